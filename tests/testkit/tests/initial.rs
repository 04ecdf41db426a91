//! What memory holds when it is handed out with feature `init-on-alloc`: nothing of its last owner.

#[macro_use]
mod common;

use common::{PAGE, TestMm};
use mm_core::*;
use std::ptr::NonNull;

both! {
    nothing_of_the_last_owner_is_handed_out;
    what_a_constructor_made_is_left_alone;
}

/// Fills what was handed out with a secret, when it held none.
fn spoil(at: NonNull<u8>, len: usize, what: &str) {
    // SAFETY: the caller was just given that much memory, which is ordinary RAM.
    let bytes = unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), len) };
    assert_eq!(bytes.iter().position(|&byte| byte != 0), None, "{what} of {len} bytes held something");
    bytes.fill(0xa5);
}

fn nothing_of_the_last_owner_is_handed_out<B: Backend>(mm: &TestMm<B>) {
    // The second time each is most likely the same memory.
    for _ in 0..3 {
        for size in [8, 100, 2000, 3 * PAGE] {
            let object = mm.kmalloc(size, GFP_KERNEL).unwrap();
            spoil(object, mm.ksize(object.as_ptr()).unwrap(), "kmalloc");
            mm.kfree(object.as_ptr()).unwrap();
            let object = mm.kmalloc_deadline(size, GFP_KERNEL, mm.platform().now()).unwrap();
            spoil(object, mm.ksize(object.as_ptr()).unwrap(), "kmalloc_deadline");
            mm.kfree(object.as_ptr()).unwrap();
        }
        for order in [0, 2] {
            let block = mm.get_free_pages(GFP_KERNEL, order).unwrap();
            spoil(block, PAGE << order, "get_free_pages");
            mm.free_pages(block.as_ptr(), order).unwrap();
            let block = mm.alloc_pages(GFP_KERNEL, order).unwrap();
            spoil(mm.page_address(block).unwrap(), PAGE << order, "alloc_pages");
            mm.free_pages_frame(block, order).unwrap();
        }
        let block = mm.alloc_pages_exact(3 * PAGE, GFP_KERNEL).unwrap();
        spoil(block, 3 * PAGE, "alloc_pages_exact");
        mm.free_pages_exact(block.as_ptr(), 3 * PAGE).unwrap();
        let mut bulk = [None; 5];
        assert_eq!(mm.alloc_pages_bulk(GFP_KERNEL, &mut bulk), Ok(5));
        bulk.iter().flatten().for_each(|&pfn| spoil(mm.page_address(pfn).unwrap(), PAGE, "alloc_pages_bulk"));
        mm.free_pages_bulk(&mut bulk).unwrap();
        let area = mm.vmalloc(3 * PAGE).unwrap();
        for page in 0..3 {
            let pfn = mm.vmalloc_to_page(area.as_ptr().wrapping_add(page * PAGE)).unwrap();
            spoil(mm.page_address(pfn).unwrap(), PAGE, "vmalloc");
        }
        mm.vfree(area.as_ptr()).unwrap();
        let cache = mm.kmem_cache_create("initial", 100, 0, CacheFlags::empty(), None).unwrap();
        for _ in 0..2 {
            let object = cache.alloc(GFP_KERNEL).unwrap();
            spoil(object, 100, "a cache");
            cache.free(object.as_ptr()).unwrap();
            let mut bulk = [std::ptr::null_mut(); 5];
            cache.alloc_bulk(GFP_KERNEL, &mut bulk).unwrap();
            bulk.iter().for_each(|&object| spoil(NonNull::new(object).unwrap(), 100, "alloc_bulk"));
            cache.free_bulk(&bulk).unwrap();
        }
    }
}

fn what_a_constructor_made_is_left_alone<B: Backend>(mm: &TestMm<B>) {
    // SAFETY: an object of the cache, and nobody else's.
    let constructor = |object: NonNull<u8>| unsafe { object.write_bytes(7, 60) };
    let cache = mm.kmem_cache_create("made", 60, 0, CacheFlags::empty(), Some(constructor)).unwrap();
    for _ in 0..2 {
        let object = cache.alloc(GFP_KERNEL).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { std::slice::from_raw_parts(object.as_ptr(), 60) }, [7; 60]);
        cache.free(object.as_ptr()).unwrap();
    }
    assert_eq!(cache.alloc(GFP_KERNEL | Gfp::ZERO), Err(AllocError::BadFlags), "asked for, it is refused still");
}
