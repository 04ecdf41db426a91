//! Memory of which only single pages are free: kmalloc works as long as there is one.

mod common;

use common::waiting::*;
use common::{PAGE, fragment};
use mm_core::*;
use std::sync::Arc;
use std::task::Poll;

#[test]
fn kmalloc_of_every_size_makes_do_with_single_pages() {
    // Guards around objects are laid out by class, and have slabs of several pages.
    if cfg!(feature = "debug") {
        return;
    }
    common::nommu().nothing_lost(|mm| {
        let fragments = fragment(mm);
        assert_eq!(mm.get_free_pages(GFP_KERNEL, 1), Err(AllocError::NoContig));
        let before = mm.free_page_count();
        for size in (8..=PAGE).step_by(8) {
            let objects = [(); 3].map(|()| mm.kmalloc(size, GFP_ATOMIC).unwrap_or_else(|e| panic!("{size}: {e}")));
            for object in objects {
                let align = size & size.wrapping_neg();
                assert!(object.addr().get().is_multiple_of(align), "{object:?} of {size}");
                let usable = mm.ksize(object.as_ptr()).unwrap();
                assert!((size..=PAGE).contains(&usable), "{usable} of {size}");
                // SAFETY: live, and that long.
                unsafe { object.as_ptr().write_bytes(0xa5, usable) };
            }
            mm.check().unwrap();
            objects.into_iter().for_each(|object| mm.kfree(object.as_ptr()).unwrap());
            let zeroed = mm.kzalloc(size, GFP_ATOMIC).unwrap();
            let usable = mm.ksize(zeroed.as_ptr()).unwrap();
            // SAFETY: live, and that long.
            let bytes = unsafe { core::slice::from_raw_parts(zeroed.as_ptr(), usable) };
            assert!(bytes.iter().all(|&byte| byte == 0), "kzalloc of {size}");
            mm.kfree(zeroed.as_ptr()).unwrap();
            mm.drain();
            assert_eq!(mm.free_page_count(), before, "{size}");
        }
        // A small object costs a slab of small objects, not a page.
        let many = [(); 32].map(|()| mm.kmalloc(64, GFP_ATOMIC).unwrap());
        assert!(before - mm.free_page_count() <= 2, "{} pages", before - mm.free_page_count());
        many.into_iter().for_each(|object| mm.kfree(object.as_ptr()).unwrap());
        fragments.undo(mm);
    });
}

#[test]
fn the_last_free_page_serves_a_small_object() {
    common::nommu().nothing_lost(|mm| {
        let mut pages: Vec<_> = std::iter::from_fn(|| mm.get_free_page(GFP_ATOMIC | Gfp::NOWARN).ok()).collect();
        let object = |mm: &common::TestMm<_>| mm.kmalloc(64, GFP_ATOMIC | Gfp::NOWARN);
        assert_eq!(object(mm), Err(AllocError::NoMemory));
        // One for the objects, one for what tells which are free.
        for page in [pages.pop().unwrap(), pages.pop().unwrap()] {
            mm.free_page(page.as_ptr()).unwrap();
        }
        if !cfg!(feature = "debug") {
            let live = object(mm).unwrap();
            mm.kfree(live.as_ptr()).unwrap();
        }
        pages.into_iter().for_each(|page| mm.free_page(page.as_ptr()).unwrap());
    });
}

#[test]
fn who_waits_for_a_small_object_is_served_by_a_single_page() {
    if cfg!(feature = "debug") {
        return;
    }
    for size in [16, 64, 1920, 3584] {
        let rig = rig();
        let mm = &rig.mm;
        mm.drain();
        let before = mm.free_page_count();
        let taken = use_up(mm);
        // Highest first, so that every second is far from each that is free.
        taken.lock().unwrap().sort_unstable();
        let bell = Arc::new(Bell::default());
        let mut waiting = Box::pin(mm.kmalloc_async(size, GFP_KERNEL));
        assert!(poll(waiting.as_mut(), &bell).is_pending());
        let mut held = Vec::new();
        let object = loop {
            free_one(mm, &taken).expect("served by then");
            held.extend(taken.lock().unwrap().pop());
            if let Poll::Ready(object) = poll(waiting.as_mut(), &bell) {
                break object.unwrap();
            }
            assert!(held.len() < 4, "{size}: {} single pages are free", held.len());
        };
        assert!(bell.rung() != 0);
        mm.kfree(object.as_ptr()).unwrap();
        drop(waiting);
        taken.lock().unwrap().extend(held);
        end(rig, &taken, before);
    }
}
