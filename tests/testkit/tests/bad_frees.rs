//! Wrong frees: each is refused with the error that says why, and changes nothing.

#[macro_use]
mod common;

use common::{PAGE, TestMm, frame_ptr, frames, state, unchanged};
use mm_core::*;
use std::ptr::{null, without_provenance};

both! {
    freeing_twice;
    freeing_what_became_part_of_a_larger_block;
    freeing_with_another_order;
    freeing_an_interior_pointer;
    freeing_every_offset_of_a_slab;
    freeing_pointers_of_other_kinds_of_memory;
    freeing_null_is_fine;
    freeing_by_another_call;
    freeing_each_frame_there_is;
    freeing_a_page_that_became_a_table;
    misusing_caches;
    names_and_numbers_of_caches;
}

fn freeing_twice<B: Backend>(mm: &TestMm<B>) {
    for size in [1, 8, 64, 100, 1000, 4096, 4097, 20_000, 100_000] {
        let (p, q) = (mm.kmalloc(size, GFP_KERNEL).unwrap(), mm.kmalloc(size, GFP_KERNEL).unwrap());
        mm.kfree(p.as_ptr()).unwrap();
        assert_eq!(unchanged(mm, || mm.kfree(p.as_ptr())), Err(FreeError::DoubleFree), "size {size}");
        // With other frees in between, and when the slab itself has gone.
        mm.kfree(q.as_ptr()).unwrap();
        for again in [p, q] {
            assert_eq!(unchanged(mm, || mm.kfree(again.as_ptr())), Err(FreeError::DoubleFree), "size {size}");
        }
        mm.drain();
        assert_eq!(unchanged(mm, || mm.kfree(p.as_ptr())), Err(FreeError::DoubleFree), "size {size}");
    }
    for order in 0..=4 {
        let p = mm.get_free_pages(GFP_KERNEL, order).unwrap();
        mm.free_pages(p.as_ptr(), order).unwrap();
        for other in [order, 0, 10, 11, usize::MAX] {
            assert_eq!(unchanged(mm, || mm.free_pages(p.as_ptr(), other)), Err(FreeError::DoubleFree));
        }
    }
    let p = mm.alloc_pages_exact(3 * PAGE, GFP_KERNEL).unwrap();
    mm.free_pages_exact(p.as_ptr(), 3 * PAGE).unwrap();
    assert_eq!(unchanged(mm, || mm.free_pages_exact(p.as_ptr(), 3 * PAGE)), Err(FreeError::DoubleFree));
    let p = mm.vmalloc(5 * PAGE).unwrap();
    mm.vfree(p.as_ptr()).unwrap();
    assert_eq!(unchanged(mm, || mm.vfree(p.as_ptr())), Err(FreeError::DoubleFree));
    let p = mm.ioremap(PhysAddr(0xf000_0000), PAGE).unwrap();
    mm.iounmap(p.as_ptr()).unwrap();
    assert_eq!(unchanged(mm, || mm.iounmap(p.as_ptr())), Err(FreeError::DoubleFree));
}

fn freeing_what_became_part_of_a_larger_block<B: Backend>(mm: &TestMm<B>) {
    let pages: Vec<_> = (0..8).map(|_| mm.get_free_page(GFP_KERNEL).unwrap()).collect();
    for page in &pages {
        mm.free_page(page.as_ptr()).unwrap();
    }
    for page in &pages {
        assert_eq!(unchanged(mm, || mm.free_page(page.as_ptr())), Err(FreeError::DoubleFree));
    }
    // Taken again as one block, they are its first page and its inside.
    let block = mm.get_free_pages(GFP_KERNEL, 3).unwrap();
    for page in &pages {
        let want = match page.as_ptr().addr().wrapping_sub(block.as_ptr().addr()) {
            0 => FreeError::WrongOrder,
            at if at < 8 * PAGE => FreeError::Interior,
            _ => FreeError::DoubleFree,
        };
        assert_eq!(unchanged(mm, || mm.free_page(page.as_ptr())), Err(want));
    }
    mm.free_pages(block.as_ptr(), 3).unwrap();
}

fn freeing_with_another_order<B: Backend>(mm: &TestMm<B>) {
    for order in 0..=5 {
        let p = mm.get_free_pages(GFP_KERNEL, order).unwrap();
        for other in (0..=12).chain([63, 64, usize::MAX]).filter(|other| *other != order) {
            let error = unchanged(mm, || mm.free_pages(p.as_ptr(), other));
            assert_eq!(error, Err(FreeError::WrongOrder), "{other} for {order}");
        }
        for pages in [0, (1 << order) + 1, usize::MAX / PAGE] {
            let error = unchanged(mm, || mm.free_pages_exact(p.as_ptr(), pages * PAGE));
            assert_eq!(error, Err(FreeError::WrongOrder), "{pages} pages for order {order}");
        }
        assert_eq!(unchanged(mm, || mm.free_pages_exact(p.as_ptr(), usize::MAX)), Err(FreeError::WrongOrder));
        mm.free_pages(p.as_ptr(), order).unwrap();
    }
    let p = mm.alloc_pages_exact(3 * PAGE, GFP_KERNEL).unwrap();
    assert_eq!(unchanged(mm, || mm.free_pages(p.as_ptr(), 2)), Err(FreeError::WrongOrder));
    mm.free_pages_exact(p.as_ptr(), 2 * PAGE + 1).unwrap();
}

fn freeing_an_interior_pointer<B: Backend>(mm: &TestMm<B>) {
    let block = mm.get_free_pages(GFP_KERNEL, 3).unwrap().as_ptr();
    let large = mm.kmalloc(5 * PAGE, GFP_KERNEL).unwrap().as_ptr();
    let area = mm.vmalloc(6 * PAGE).unwrap().as_ptr();
    for page in 1..5 {
        for order in [0, 1, 3] {
            let inside = block.wrapping_add(page * PAGE);
            assert_eq!(unchanged(mm, || mm.free_pages(inside, order)), Err(FreeError::Interior));
            assert_eq!(unchanged(mm, || mm.free_pages(inside.wrapping_add(1), order)), Err(FreeError::Misaligned));
        }
        assert_eq!(unchanged(mm, || mm.kfree(large.wrapping_add(page * PAGE))), Err(FreeError::Interior));
        assert_eq!(unchanged(mm, || mm.vfree(area.wrapping_add(page * PAGE))), Err(FreeError::Interior));
    }
    for offset in [1, 7, 8, 16, PAGE - 8, PAGE - 1] {
        assert_eq!(unchanged(mm, || mm.free_pages(block.wrapping_add(offset), 3)), Err(FreeError::Misaligned));
        assert_eq!(unchanged(mm, || mm.kfree(large.wrapping_add(offset))), Err(FreeError::Interior));
        assert_eq!(unchanged(mm, || mm.ksize(large.wrapping_add(offset))), Err(FreeError::Interior));
        assert_eq!(unchanged(mm, || mm.vfree(area.wrapping_add(offset))), Err(FreeError::Misaligned));
        let moved = unchanged(mm, || mm.krealloc(large.wrapping_add(offset), 100, GFP_KERNEL));
        assert_eq!(moved, Err(AllocError::BadPointer));
    }
    mm.free_pages(block, 3).unwrap();
    mm.kfree(large).unwrap();
    mm.vfree(area).unwrap();
}

fn freeing_every_offset_of_a_slab<B: Backend>(mm: &TestMm<B>) {
    for size in if cfg!(miri) { &[100usize, 2000][..] } else { &[8, 24, 64, 100, 520, 2000, 4096] } {
        let p = mm.kmalloc(*size, GFP_KERNEL).unwrap().as_ptr();
        let usable = mm.ksize(p).unwrap();
        let before = state(mm);
        // The object is alone in its cache: all around it, in its slab and beyond, nothing can be freed.
        for offset in (0..4 * PAGE).step_by(if cfg!(miri) { 61 } else { 1 }) {
            for at in [p.wrapping_add(offset), p.wrapping_sub(offset)] {
                if at != p {
                    assert!(mm.kfree(at).is_err(), "{offset} from an object of {size}");
                    assert!(mm.krealloc(at, 0, GFP_KERNEL).is_err());
                }
            }
        }
        for inside in 1..usable {
            assert_eq!(mm.kfree(p.wrapping_add(inside)), Err(FreeError::Interior));
        }
        assert_eq!(state(mm), before);
        mm.kfree(p).unwrap();
    }
}

fn freeing_pointers_of_other_kinds_of_memory<B: Backend>(mm: &TestMm<B>) {
    static STATIC: [u8; 2 * PAGE] = [0; 2 * PAGE];
    let stack = [0u8; 2 * PAGE];
    let heap = vec![0u8; 2 * PAGE];
    let code = freeing_twice::<B> as fn(&TestMm<B>) as *const u8;
    let mut foreign = vec![code, STATIC.as_ptr(), stack.as_ptr(), heap.as_ptr(), heap.as_ptr().wrapping_add(3)];
    // The first page boundary inside each, so that "misaligned" does not come first.
    let rounded: Vec<_> = foreign.iter().map(|p| p.map_addr(|addr| addr.next_multiple_of(PAGE))).collect();
    foreign.extend(rounded);
    // Every power of two, the edges of address space and the edges of RAM.
    foreign.extend((0..usize::BITS).map(|bit| without_provenance(1 << bit)));
    foreign.extend([1, 8, 4095, usize::MAX, usize::MAX - 7, usize::MAX & !4095].map(without_provenance));
    let all = frames(mm);
    let is_ram = |p: *const u8| all.binary_search(&(mm.backend().direct_frame(p.addr()) as u32)).is_ok();
    for edge in [all[0], all[all.len() - 1]] {
        let at = frame_ptr(mm, edge);
        foreign.extend([at.wrapping_sub(1), at.wrapping_sub(PAGE), at.wrapping_add(PAGE)].map(|p| p.cast_const()));
    }
    foreign.retain(|p| mm.backend().direct_frame(p.addr()) > u32::MAX as usize || !is_ram(*p));
    assert!(foreign.len() > 30);
    let cache = mm.kmem_cache_create("foreign", 64, 0, CacheFlags::empty(), None).unwrap();
    let before = state(mm);
    for p in foreign {
        assert_eq!(mm.kfree(p), Err(FreeError::Foreign), "{p:?}");
        assert_eq!(mm.ksize(p), Err(FreeError::Foreign), "{p:?}");
        assert_eq!(mm.krealloc(p.cast_mut(), 8, GFP_KERNEL), Err(AllocError::BadPointer), "{p:?}");
        assert_eq!(cache.free(p), Err(FreeError::Foreign), "{p:?}");
        assert_eq!(mm.vfree(p), Err(FreeError::Foreign), "{p:?}");
        assert_eq!(mm.free_pages(p, 0), Err(FreeError::Foreign), "{p:?}");
        assert_eq!(mm.free_pages_exact(p, 3 * PAGE), Err(FreeError::Foreign), "{p:?}");
        // There may have been a device's registers anywhere without an MMU.
        let want = if B::HAS_MMU { FreeError::Foreign } else { FreeError::DoubleFree };
        assert_eq!(mm.iounmap(p), Err(want), "{p:?}");
        assert_eq!(mm.vmalloc_to_page(p), None);
        assert!(!mm.is_vmalloc_addr(p) && mm.find_area(p.addr()).is_none());
    }
    assert_eq!(state(mm), before);
}

fn freeing_null_is_fine<B: Backend>(mm: &TestMm<B>) {
    unchanged(mm, || {
        for order in [0, 3, 11, usize::MAX] {
            assert_eq!(mm.free_pages(null(), order), Ok(()));
        }
        assert_eq!(mm.free_pages_exact(null(), 100), Ok(()));
        assert_eq!([mm.kfree(null()), mm.vfree(null()), mm.iounmap(null())], [Ok(()); 3]);
        assert_eq!(mm.ksize(null()), Ok(0));
        assert_eq!(mm.krealloc(std::ptr::null_mut(), 0, GFP_KERNEL), Ok(None));
    });
}

fn freeing_by_another_call<B: Backend>(mm: &TestMm<B>) {
    let small = mm.kmalloc(4096, GFP_KERNEL).unwrap().as_ptr();
    let large = mm.kmalloc(3 * PAGE, GFP_KERNEL).unwrap().as_ptr();
    let page = mm.get_free_page(GFP_KERNEL).unwrap().as_ptr();
    let area = mm.vmalloc(3 * PAGE).unwrap().as_ptr();
    let device = mm.ioremap(PhysAddr(0xf000_0000), 3 * PAGE).unwrap().as_ptr();
    let cache = mm.kmem_cache_create("other", 4096, 0, CacheFlags::empty(), None).unwrap();
    let object = cache.alloc(GFP_KERNEL).unwrap().as_ptr();
    let wrong = Err(FreeError::WrongAllocator);
    for p in [page, area, object] {
        assert_eq!(unchanged(mm, || mm.kfree(p)), wrong);
        assert!(unchanged(mm, || mm.krealloc(p, 10_000, GFP_KERNEL)).is_err());
        assert!(mm.ksize(p).is_err());
    }
    for p in [small, large, area, object] {
        assert_eq!(unchanged(mm, || mm.free_pages(p, 0)), wrong);
        assert_eq!(unchanged(mm, || mm.free_pages_exact(p, 3 * PAGE)), wrong);
    }
    for p in [small, large, page, object, device] {
        assert_eq!(unchanged(mm, || mm.vfree(p)), wrong);
    }
    for p in [small, large, page, object, area] {
        assert_eq!(unchanged(mm, || mm.iounmap(p)), wrong);
    }
    for p in [small, large, page, area] {
        assert_eq!(unchanged(mm, || cache.free(p)), wrong);
    }
    assert!(unchanged(mm, || mm.kfree(device)).is_err());
    assert!(unchanged(mm, || mm.free_pages(device, 0)).is_err());
    assert!(unchanged(mm, || cache.free(device)).is_err());
    mm.kfree(small).unwrap();
    mm.kfree(large).unwrap();
    mm.free_page(page).unwrap();
    mm.vfree(area).unwrap();
    mm.iounmap(device).unwrap();
    cache.free(object).unwrap();
}

/// With one of everything live, every free of every frame but the right one is refused.
fn freeing_each_frame_there_is<B: Backend>(mm: &TestMm<B>) {
    let small = mm.kmalloc(PAGE, GFP_KERNEL).unwrap().as_ptr();
    let large = mm.kmalloc(3 * PAGE, GFP_KERNEL).unwrap().as_ptr();
    let block = mm.get_free_pages(GFP_KERNEL, 2).unwrap().as_ptr();
    let exact = mm.alloc_pages_exact(3 * PAGE, GFP_KERNEL).unwrap().as_ptr();
    let area = mm.vmalloc(20 * PAGE).unwrap().as_ptr();
    let cache = mm.kmem_cache_create("sweep", 5 * PAGE, PAGE, CacheFlags::empty(), None).unwrap();
    let object = cache.alloc(GFP_KERNEL).unwrap().as_ptr();
    let before = state(mm);
    let mut ends = 0;
    for (i, pfn) in frames(mm).into_iter().enumerate() {
        if cfg!(miri) && i % 5 != 0 {
            continue;
        }
        let p = frame_ptr(mm, pfn);
        for at in [p, p.wrapping_add(8), p.wrapping_add(PAGE - 8)] {
            for order in 0..=3 {
                assert!(mm.free_pages(at, order).is_err() || (at, order) == (block, 2), "{pfn} order {order}");
            }
            assert!(mm.free_pages_exact(at, 3 * PAGE).is_err() || at == exact, "{pfn}");
            assert!(mm.kfree(at).is_err() || at == small || at == large, "{pfn}");
            assert!(cache.free(at).is_err() || at == object, "{pfn}");
            assert!(mm.vfree(at).is_err() || at == area, "{pfn}");
            assert!(mm.iounmap(at).is_err(), "{pfn}");
        }
        ends += usize::from([small, large, block, exact, area, object].contains(&p));
    }
    let (after, live) = (state(mm), if B::HAS_MMU { 5 } else { 6 });
    if !cfg!(miri) {
        assert_eq!(ends, live, "each live object was met, and freed by its own call");
        assert_ne!(before, after);
        assert_eq!(mm.kfree(small), Err(FreeError::DoubleFree));
    } else {
        let _ = (mm.kfree(small), mm.kfree(large), mm.free_pages(block, 2), mm.free_pages_exact(exact, 3 * PAGE));
        let _ = cache.free(object);
    }
    if B::HAS_MMU || cfg!(miri) {
        let _ = mm.vfree(area);
    }
}

/// Tables are pages too; a stale pointer to a page that became one must not free it, in use or kept for later.
fn freeing_a_page_that_became_a_table<B: Backend>(mm: &TestMm<B>) {
    let stale: Vec<_> = (0..16).map(|_| mm.get_free_page(GFP_KERNEL).unwrap().as_ptr()).collect();
    for p in &stale {
        mm.free_page(*p).unwrap();
    }
    let area = mm.vmalloc(PAGE).unwrap();
    for round in ["in use", "kept"] {
        for p in &stale {
            let error = unchanged(mm, || mm.free_page(*p)).unwrap_err();
            assert!(
                [FreeError::DoubleFree, FreeError::Reserved, FreeError::WrongAllocator].contains(&error),
                "{round}"
            );
            assert!(unchanged(mm, || mm.kfree(*p)).is_err(), "{round}");
        }
        if round == "in use" {
            mm.vfree(area.as_ptr()).unwrap();
        }
    }
}

fn misusing_caches<B: Backend>(mm: &TestMm<B>) {
    let make = |name, size| mm.kmem_cache_create(name, size, 0, CacheFlags::empty(), None).unwrap();
    let caches = [make("a", 40), make("b", 40), make("c", 1000), make("d", 3 * PAGE), make("e", 10 * PAGE)];
    let objects: Vec<_> = caches.iter().map(|cache| cache.alloc(GFP_KERNEL).unwrap().as_ptr()).collect();
    for (i, cache) in caches.iter().enumerate() {
        for (j, object) in objects.iter().enumerate() {
            if i != j {
                assert_eq!(unchanged(mm, || cache.free(*object)), Err(FreeError::WrongCache), "{i} {j}");
            } else {
                for inside in [1, 8, 39] {
                    assert_eq!(unchanged(mm, || cache.free(object.wrapping_add(inside))), Err(FreeError::Interior));
                }
            }
        }
        assert_eq!(unchanged(mm, || cache.alloc(GFP_KERNEL | GFP_DMA)), Err(AllocError::BadFlags));
        assert_eq!(unchanged(mm, || cache.alloc(Gfp(1 << 31))), Err(AllocError::BadFlags));
    }
    // Objects of several pages have an inside of several pages.
    for page in 1..10 {
        assert_eq!(unchanged(mm, || caches[4].free(objects[4].wrapping_add(page * PAGE))), Err(FreeError::Interior));
    }
    let mut keep = Vec::new();
    for (cache, object) in caches.into_iter().zip(&objects) {
        let before = state(mm);
        let (cache, error) = cache.destroy().err().unwrap();
        assert_eq!((error, state(mm)), (MmError::Busy(1), before));
        cache.free(*object).unwrap();
        assert_eq!(unchanged(mm, || cache.free(*object)), Err(FreeError::DoubleFree));
        keep.push(cache);
    }
    for cache in keep {
        assert!(cache.destroy().is_ok());
    }
    // What was an object is free memory now.
    let other = make("other", 40);
    assert_eq!(unchanged(mm, || other.free(objects[0])), Err(FreeError::DoubleFree));
}

fn names_and_numbers_of_caches<B: Backend>(mm: &TestMm<B>) {
    let none = CacheFlags::empty();
    let create = |name, size, align, flags| mm.kmem_cache_create(name, size, align, flags, None).map(drop);
    let one = mm.kmem_cache_create("one", 100, 16, none, None).unwrap();
    let before = state(mm);
    assert_eq!(create("one", 200, 0, none), Err(MmError::Exists));
    assert_eq!(create("", 100, 0, none), Err(MmError::Inval));
    assert_eq!(create("two", 0, 0, none), Err(MmError::Inval));
    assert_eq!(create("two", 100, 0, CacheFlags(1)), Err(MmError::Inval));
    for align in [3, 5, 6, 4095, usize::MAX, PAGE << 11, 1 << (usize::BITS - 1)] {
        assert_eq!(create("two", 100, align, none), Err(AllocError::BadAlign.into()), "{align}");
    }
    for size in [(PAGE << 10) + 1, isize::MAX as usize, usize::MAX - 7, usize::MAX] {
        assert_eq!(create("two", size, 0, none), Err(AllocError::TooBig.into()), "{size}");
    }
    assert_eq!(state(mm), before);
    for align in [1, 2, 4, 8, 64, 512, 4096] {
        let cache = mm.kmem_cache_create("two", 24, align, CacheFlags::HWCACHE_ALIGN, None).unwrap();
        let object = cache.alloc(GFP_KERNEL).unwrap();
        assert_eq!(object.as_ptr().addr() % align.max(64), 0);
        cache.free(object.as_ptr()).unwrap();
    }
    assert!(one.destroy().is_ok());
}

/// What Drop and `GlobalAlloc` cannot return goes to the platform.
#[test]
fn frees_that_cannot_return_an_error_report_it() {
    let rig = common::nommu();
    let mm = &*rig.mm;
    let reported = |want: FreeError, at: *const u8| {
        let bugs = rig.platform.take_bugs();
        assert!(matches!(bugs[..], [Bug::BadFree { addr, error }] if addr == at.addr() && error == want), "{bugs:?}");
    };
    let pages = Pages::new_in(GFP_KERNEL, 1, mm).unwrap();
    let at = pages.as_ptr();
    mm.free_pages(at, 1).unwrap();
    unchanged(mm, || drop(pages));
    reported(FreeError::DoubleFree, at);
    let boxed = KBox::new_in([1u8; 3 * PAGE], GFP_KERNEL, mm).unwrap();
    let at = boxed.as_ptr();
    mm.kfree(at).unwrap();
    // The memory is still RAM, so that the value can be moved out.
    assert_eq!(unchanged(mm, || boxed.into_inner()), [1; 3 * PAGE]);
    reported(FreeError::DoubleFree, at);
    let area = VmArea::new_in(PAGE, mm).unwrap();
    let at = area.as_ptr();
    mm.vfree(at).unwrap();
    unchanged(mm, || drop(area));
    reported(FreeError::DoubleFree, at);
    let mapping = IoMapping::new_in(PhysAddr(0xf000_0000), 8, mm).unwrap();
    let at = mapping.as_ptr();
    mm.iounmap(at).unwrap();
    unchanged(mm, || drop(mapping));
    reported(FreeError::DoubleFree, at);
    let stack = 0u8;
    unchanged(mm, || mm.dealloc_layout((&raw const stack).cast_mut()));
    reported(FreeError::Foreign, &stack);
    let cache = mm.kmem_cache_create("dropped", 100, 0, CacheFlags::empty(), None).unwrap();
    let object = cache.alloc(GFP_KERNEL).unwrap();
    // SAFETY: 100 bytes of ours.
    unsafe { object.write_bytes(6, 100) };
    unchanged(mm, || drop(cache));
    assert!(matches!(rig.platform.take_bugs()[..], [Bug::CacheBusy { objects: 1 }]));
    // The cache stays, and so does the object.
    // SAFETY: the object was not freed.
    assert_eq!(unsafe { object.read() }, 6);
    assert_eq!(mm.kmem_cache_create("dropped", 8, 0, CacheFlags::empty(), None).err(), Some(MmError::Exists));
}
