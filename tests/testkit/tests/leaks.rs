//! The guard against losses, and faults by chance.

#[macro_use]
mod common;

use common::{PAGE, TestMm};
use mm_core::*;

both! {
    each_kind_of_loss_is_told;
    what_caches_keep_is_no_loss;
    chance_is_survived;
}

fn each_kind_of_loss_is_told<B: Backend>(mm: &TestMm<B>) {
    let guard = mm.leak_guard().unwrap();
    assert_eq!(guard.check(), Ok(()));
    let told = |what: &str| {
        let text = guard.check().unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    };
    let object = mm.kmalloc(100, GFP_KERNEL).unwrap();
    told("objects of kmalloc: 0 before, 1 now");
    mm.kfree(object.as_ptr()).unwrap();
    let page = mm.get_free_pages(GFP_KERNEL, 1).unwrap();
    told("blocks of pages: ");
    told("free pages: ");
    mm.free_pages(page.as_ptr(), 1).unwrap();
    let area = mm.vmalloc(3 * PAGE).unwrap();
    told("areas: 0 before, 1 now");
    mm.vfree(area.as_ptr()).unwrap();
    let cache = mm.kmem_cache_create("leaky", 64, 0, CacheFlags::empty(), None).unwrap();
    let object = cache.alloc(GFP_KERNEL).unwrap();
    told("objects of caches: 0 before, 1 now");
    cache.free(object.as_ptr()).unwrap();
    drop(cache);
    let held = mm.alloc_page(GFP_KERNEL).unwrap();
    mm.get_page(held).unwrap();
    mm.free_pages_frame(held, 0).unwrap();
    told("free pages: ");
    mm.put_page(held).unwrap();
    assert_eq!(guard.check(), Ok(()));
    // Something given back that was held before is not as it was either.
    let object = mm.kmalloc(9, GFP_KERNEL).unwrap();
    let guard = mm.leak_guard().unwrap();
    mm.kfree(object.as_ptr()).unwrap();
    assert!(matches!(guard.check(), Err(Leak::Lost { .. })));
}

fn what_caches_keep_is_no_loss<B: Backend>(mm: &TestMm<B>) {
    let guard = mm.leak_guard().unwrap();
    for size in [8, 100, 4000] {
        let objects: Vec<_> = (0..100).map(|_| mm.kmalloc(size, GFP_KERNEL).unwrap()).collect();
        objects.into_iter().for_each(|object| mm.kfree(object.as_ptr()).unwrap());
    }
    assert_eq!(guard.check(), Ok(()));
}

fn chance_is_survived<B: Backend>(mm: &TestMm<B>) {
    let guard = mm.leak_guard().unwrap();
    for class in [FaultClass::Any, FaultClass::Page, FaultClass::Slab, FaultClass::Descriptor] {
        mm.faults().fail_by_chance(class, FaultAttr { probability: 30, ..FaultAttr::new(11) });
        let (mut failed, mut served) = (0, 0);
        for i in 0..if cfg!(miri) { 20 } else { 300 } {
            let size = [2000, 3000, 9000][i % 3];
            match mm.kmalloc(size, GFP_KERNEL) {
                Ok(object) => {
                    served += 1;
                    mm.kfree(object.as_ptr()).unwrap();
                    mm.drain();
                }
                Err(_) => failed += 1,
            }
        }
        let steps = mm.faults().failed();
        mm.faults().disarm();
        assert_eq!(steps, failed, "each step that fails fails its call, and no call fails else");
        assert!(failed > 0 && served > 0, "{class:?}: {failed} failed, {served} served");
    }
    assert_eq!(guard.check(), Ok(()));
}
