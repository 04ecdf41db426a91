//! Events: one for each allocation and free that succeeds, outside every lock, and none from inside the hook.

#[macro_use]
mod common;

use common::{PAGE, TestMm};
use mm_core::*;
use std::sync::{Arc, Mutex};

both! {
    each_call_is_told_once;
    what_fails_is_not_told;
    batches_are_told_one_by_one;
}

/// What is told from now on.
fn listen<B: Backend>(mm: &TestMm<B>) -> Arc<Mutex<Vec<Event>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = told.clone();
    mm.platform().on_trace(move |event| list.lock().unwrap().push(*event));
    told
}

fn each_call_is_told_once<B: Backend>(mm: &TestMm<B>) {
    let told = listen(mm);
    let take = || std::mem::take(&mut *told.lock().unwrap());
    for size in [8, 100, 3 * PAGE] {
        let object = mm.kmalloc(size, GFP_KERNEL).unwrap();
        let line = line!() - 1;
        let ptr = object.as_ptr().addr();
        match take()[..] {
            [Event::Kmalloc { ptr: p, size: s, flags: GFP_KERNEL, caller }] => {
                assert_eq!((p, s, caller.line()), (ptr, size, line));
            }
            ref other => panic!("{other:?}"),
        }
        mm.kfree(object.as_ptr()).unwrap();
        assert_eq!(take(), [Event::Kfree { ptr }]);
    }
    for order in [0, 2] {
        let block = mm.get_free_pages(GFP_KERNEL, order).unwrap();
        let pfn = mm.pfn_of(block.as_ptr()).unwrap();
        let pages = 1 << order;
        assert!(matches!(take()[..], [Event::PageAlloc { pfn: f, pages: n, .. }] if (f, n) == (pfn, pages)));
        mm.free_pages(block.as_ptr(), order).unwrap();
        assert_eq!(take(), [Event::PageFree { pfn, pages }]);
        let pfn = mm.alloc_pages(GFP_KERNEL, order).unwrap();
        assert!(matches!(take()[..], [Event::PageAlloc { pfn: f, pages: n, .. }] if (f, n) == (pfn, pages)));
        mm.free_pages_frame(pfn, order).unwrap();
        assert_eq!(take(), [Event::PageFree { pfn, pages }]);
    }
    let area = mm.vmalloc(3 * PAGE).unwrap();
    let addr = area.as_ptr().addr();
    assert!(matches!(take()[..], [Event::Vmalloc { addr: a, size, .. }] if (a, size) == (addr, 3 * PAGE)));
    mm.vfree(area.as_ptr()).unwrap();
    assert_eq!(take(), [Event::Vfree { addr }]);
    let cache = mm.kmem_cache_create("told", 60, 0, CacheFlags::empty(), None).unwrap();
    let object = cache.alloc(GFP_KERNEL | Gfp::ZERO).unwrap();
    let ptr = object.as_ptr().addr();
    let asked = GFP_KERNEL | Gfp::ZERO;
    assert!(matches!(take()[..], [Event::CacheAlloc { cache: "told", ptr: p, size: 60, flags, .. }]
        if p == ptr && flags == asked));
    cache.free(object.as_ptr()).unwrap();
    assert_eq!(take(), [Event::CacheFree { cache: "told", ptr }]);
    // A move is an allocation and a free; staying in place is neither.
    let object = mm.kmalloc(100, GFP_KERNEL).unwrap();
    let object = mm.krealloc(object.as_ptr(), 90, GFP_KERNEL).unwrap().unwrap();
    assert_eq!(take().len(), 1);
    let object = mm.krealloc(object.as_ptr(), 900, GFP_KERNEL).unwrap().unwrap();
    assert!(matches!(take()[..], [Event::Kmalloc { size: 900, .. }, Event::Kfree { .. }]));
    mm.kfree(object.as_ptr()).unwrap();
    assert_eq!(mm.events_missed(), 0);
}

fn what_fails_is_not_told<B: Backend>(mm: &TestMm<B>) {
    let object = mm.kmalloc(100, GFP_KERNEL).unwrap();
    let told = listen(mm);
    mm.kfree(object.as_ptr()).unwrap();
    told.lock().unwrap().clear();
    assert!(mm.kfree(object.as_ptr()).is_err());
    assert!(mm.kmalloc(0, GFP_KERNEL).is_err());
    assert!(mm.get_free_pages(GFP_KERNEL, 99).is_err());
    assert!(mm.vfree(object.as_ptr()).is_err());
    mm.kfree(std::ptr::null()).unwrap();
    mm.vfree(std::ptr::null()).unwrap();
    mm.free_pages(std::ptr::null(), 0).unwrap();
    assert_eq!(*told.lock().unwrap(), []);
}

fn batches_are_told_one_by_one<B: Backend>(mm: &TestMm<B>) {
    let told = listen(mm);
    let mut pages = [None; 40];
    mm.alloc_pages_bulk(GFP_KERNEL, &mut pages).unwrap();
    mm.free_pages_bulk(&mut pages).unwrap();
    let count = |is: fn(&Event) -> bool| told.lock().unwrap().iter().filter(|event| is(event)).count();
    assert_eq!(count(|event| matches!(event, Event::PageAlloc { .. })), 40);
    assert_eq!(count(|event| matches!(event, Event::PageFree { .. })), 40);
    let cache = mm.kmem_cache_create("batch", 64, 0, CacheFlags::empty(), None).unwrap();
    let mut objects = [std::ptr::null_mut(); 40];
    cache.alloc_bulk(GFP_KERNEL, &mut objects).unwrap();
    cache.free_bulk(&objects).unwrap();
    assert_eq!(count(|event| matches!(event, Event::CacheAlloc { .. })), 40);
    assert_eq!(count(|event| matches!(event, Event::CacheFree { .. })), 40);
}

#[test]
fn a_hook_may_allocate_and_is_not_told_of_that() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let rig = common::nommu();
    let mm: &'static TestMm<_> = Box::leak(rig.mm);
    let _ram = std::mem::ManuallyDrop::new(rig.ram);
    let (calls, depth) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, inside) = (calls.clone(), depth.clone());
    rig.platform.on_trace(move |_| {
        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "never from inside itself");
        seen.fetch_add(1, Ordering::SeqCst);
        // Every structure the events are of: none of their locks is held.
        let object = mm.kmalloc(100, GFP_ATOMIC).unwrap();
        let page = mm.get_free_page(GFP_ATOMIC).unwrap();
        let area = mm.vmalloc(PAGE).unwrap();
        mm.vfree(area.as_ptr()).unwrap();
        mm.free_page(page.as_ptr()).unwrap();
        mm.kfree(object.as_ptr()).unwrap();
        mm.drain();
        inside.fetch_sub(1, Ordering::SeqCst);
    });
    let object = mm.kmalloc(100, GFP_KERNEL).unwrap();
    let page = mm.get_free_page(GFP_KERNEL).unwrap();
    let area = mm.vmalloc(PAGE).unwrap();
    mm.vfree(area.as_ptr()).unwrap();
    mm.free_page(page.as_ptr()).unwrap();
    mm.kfree(object.as_ptr()).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 6);
    assert_eq!(mm.events_missed(), 36, "what the hook itself did");
    // A hook that unwinds is told of what comes next.
    rig.platform.on_trace(|_| panic!("a hook that fails"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| mm.kmalloc(8, GFP_KERNEL))).is_err());
    let after = Arc::new(AtomicUsize::new(0));
    let seen = after.clone();
    rig.platform.on_trace(move |_| _ = seen.fetch_add(1, Ordering::SeqCst));
    let object = mm.kmalloc(8, GFP_KERNEL).unwrap();
    mm.kfree(object.as_ptr()).unwrap();
    assert_eq!(after.load(Ordering::SeqCst), 2);
    rig.platform.on_trace(|_| {});
}
