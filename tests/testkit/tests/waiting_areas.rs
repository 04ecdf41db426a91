//! Waiting for areas, and areas that come free while somebody waits.

mod common;

use common::waiting::*;
use common::*;
use mm_core::*;
use rtmm_testkit::rig::Rig;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

#[test]
fn an_interrupt_that_finds_no_memory_leaves_areas_to_tasks() {
    let rig = mmu();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let area = rig.mm.vmalloc(PAGE).unwrap();
    let taken = use_up(&rig.mm);
    let high = std::iter::from_fn(|| rig.mm.get_free_page(GFP_ATOMIC | Gfp::NOWARN).ok());
    taken.lock().unwrap().extend(high.map(|page| page.addr().get()));
    rig.platform.set_context(Context::Atomic);
    rig.mm.vfree(area.as_ptr()).unwrap();
    assert_eq!(rig.mm.get_free_page(GFP_ATOMIC | Gfp::NOWARN), Err(AllocError::NoMemory));
    assert_eq!(rig.mm.deferred_areas(), (1, 1));
    rig.platform.set_context(Context::Task);
    let page = rig.mm.get_free_page(GFP_ATOMIC).unwrap();
    assert_eq!(rig.mm.deferred_areas(), (0, 0));
    free(&rig.mm, page.addr().get());
    while free_one(&rig.mm, &taken).is_some() {}
    rig.mm.drain();
    assert_eq!(rig.mm.free_page_count(), before);
}

#[test]
fn a_free_of_an_area_serves_those_who_wait() {
    let rig = rig();
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let area = rig.mm.vmalloc(4 * PAGE).unwrap().addr().get();
    let taken = use_up(&rig.mm);
    rig.platform.on_wait(move || _ = rig.mm.vfree(std::ptr::without_provenance(area)));
    let block = rig.mm.get_free_pages(GFP_KERNEL, 2).unwrap();
    assert_eq!(block.addr().get(), area);
    rig.mm.free_pages(block.as_ptr(), 2).unwrap();
    end(rig, &taken, before);
}

#[test]
fn vmalloc_waits_for_its_pages() {
    let rig = Box::leak(Box::new(mmu()));
    rig.mm.drain();
    let before = rig.mm.free_page_count();
    let taken = use_up(&rig.mm);
    let others = taken.clone();
    // Each time it waits one page comes.
    let mm = &rig.mm;
    rig.platform.on_wait(move || _ = free_one(mm, &others).unwrap());
    let area = mm.vmalloc(6 * PAGE).unwrap();
    assert!(rig.platform.waits() >= 3, "{}", rig.platform.waits());
    mm.check().unwrap();
    rig.platform.nothing_happens();
    mm.vfree(area.as_ptr()).unwrap();
    // And gives all back when they do not come.
    let more = use_up(mm);
    let start = rig.platform.now();
    assert_eq!(mm.vmalloc_deadline(3 * PAGE, start + SOON), Err(AllocError::NoMemory));
    assert_eq!(rig.platform.now(), start + SOON);
    more.lock().unwrap().drain(..).for_each(|at| free(mm, at));
    end(rig, &taken, before);
}

#[test]
fn tables_kept_aside_are_used_before_anybody_waits_for_one() {
    let rig = Box::leak(Box::new(mmu()));
    let mm = &rig.mm;
    mm.drain();
    mm.reserve_tables(4).unwrap();
    let before = mm.free_page_count();
    let taken = use_up(mm);
    let others = taken.clone();
    // The page for its record and that of the area come, and no more.
    let left = AtomicUsize::new(2);
    rig.platform.on_wait(move || {
        if left.load(Ordering::SeqCst) != 0 {
            left.fetch_sub(1, Ordering::SeqCst);
            free_one(mm, &others).unwrap();
        }
    });
    let start = rig.platform.now();
    let area = mm.vmalloc_deadline(PAGE, start + SOON).unwrap();
    assert_eq!(rig.platform.now(), start, "it waited for a table in vain");
    rig.platform.nothing_happens();
    mm.vfree(area.as_ptr()).unwrap();
    end(rig, &taken, before);
}

#[test]
fn an_area_that_an_interrupt_frees_serves_those_who_wait() {
    let rig = Box::leak(Box::new(mmu()));
    let mm = &rig.mm;
    mm.drain();
    let before = mm.free_page_count();
    let areas = [(); 2].map(|()| mm.vmalloc(4 * PAGE).unwrap().addr().get());
    let taken = use_up(mm);
    let vfree = |area| {
        rig.platform.set_context(Context::Atomic);
        mm.vfree(std::ptr::without_provenance(area)).unwrap();
        rig.platform.set_context(Context::Task);
    };
    rig.platform.on_wait(move || vfree(areas[0]));
    let start = rig.platform.now();
    let page = mm.get_free_page(GFP_KERNEL).unwrap();
    assert_eq!((rig.platform.now(), mm.deferred_areas()), (start, (0, 0)));
    rig.platform.nothing_happens();
    taken.lock().unwrap().push(page.addr().get());
    taken.lock().unwrap().append(&mut use_up(mm).lock().unwrap());
    let bell = Arc::new(Bell::default());
    let mut future = Box::pin(mm.get_free_pages_async(GFP_KERNEL, 0));
    assert!(poll(future.as_mut(), &bell).is_pending());
    vfree(areas[1]);
    assert_eq!(bell.rung(), 1);
    let Poll::Ready(Ok(page)) = poll(future.as_mut(), &bell) else { panic!("flushed in its task") };
    free(mm, page.addr().get());
    drop(future);
    end(rig, &taken, before);
}

/// As above, when it is an area that is waited for: by its pages, its table, or its record.
#[test]
fn an_area_that_an_interrupt_frees_serves_an_area_that_waits() {
    fn serves<B: Backend>(rig: &'static Rig<B>) {
        let mm = &rig.mm;
        mm.drain();
        let before = mm.free_page_count();
        for pages in [1, 3] {
            let area = mm.vmalloc(8 * PAGE).unwrap().addr().get();
            let taken = use_up(mm);
            let left = Mutex::new(Some(area));
            rig.platform.on_wait(move || {
                if let Some(area) = left.lock().unwrap().take() {
                    rig.platform.set_context(Context::Atomic);
                    mm.vfree(std::ptr::without_provenance(area)).unwrap();
                    rig.platform.set_context(Context::Task);
                }
            });
            let start = rig.platform.now();
            let got = mm.vmalloc_deadline(pages * PAGE, start + SOON).unwrap();
            assert_eq!(
                (rig.platform.now(), mm.deferred_areas()),
                (start, (0, 0)),
                "{pages} pages came with the deadline"
            );
            rig.platform.nothing_happens();
            mm.vfree(got.as_ptr()).unwrap();
            while free_one(mm, &taken).is_some() {}
        }
        mm.drain();
        mm.check().unwrap();
        assert_eq!(mm.free_page_count(), before);
    }
    serves(Box::leak(Box::new(mmu())));
    serves(rig());
}
