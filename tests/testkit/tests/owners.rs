//! Who holds what: call sites of blocks, objects and areas, and the report of what was lost.

#[macro_use]
mod common;

use common::{PAGE, TestMm};
use mm_core::*;
use std::panic::Location;

both! {
    every_call_is_named;
    the_list_is_what_is_held;
    sites_are_summed_and_bounded;
    a_leak_names_its_site;
    without_memory_for_names_objects_are_served_all_the_same;
    pages_that_were_split_stay_their_owners;
}

#[track_caller]
fn here() -> &'static Location<'static> {
    Location::caller()
}

/// The line of the one allocation there is.
fn only<B: Backend>(mm: &TestMm<B>) -> Allocation {
    let all: Vec<_> = mm.allocations().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

fn every_call_is_named<B: Backend>(mm: &TestMm<B>) {
    mm.drain();
    assert_eq!(mm.allocations().count(), 0);
    let told = |kind, bytes, line: u32| {
        let one = only(mm);
        let caller = one.caller.expect("a call site");
        assert!(caller.file().ends_with("owners.rs"), "{caller}");
        assert_eq!((one.kind, one.bytes, caller.line()), (kind, bytes, line));
    };
    for size in [8, 24, 100, 2000, 3 * PAGE] {
        let (object, line) = (mm.kmalloc(size, GFP_KERNEL).unwrap(), here().line());
        told(AllocationKind::Object, mm.ksize(object.as_ptr()).unwrap(), line);
        let (object, line) = (mm.krealloc(object.as_ptr(), 5 * PAGE, GFP_KERNEL).unwrap().unwrap(), here().line());
        told(AllocationKind::Object, 5 * PAGE, line);
        mm.kfree(object.as_ptr()).unwrap();
    }
    let (object, line) = (mm.kzalloc(40, GFP_KERNEL).unwrap(), here().line());
    told(AllocationKind::Object, mm.ksize(object.as_ptr()).unwrap(), line);
    mm.kfree(object.as_ptr()).unwrap();
    let (object, line) = (mm.kcalloc(4, 10, GFP_KERNEL).unwrap(), here().line());
    told(AllocationKind::Object, mm.ksize(object.as_ptr()).unwrap(), line);
    mm.kfree(object.as_ptr()).unwrap();
    let (object, line) = (mm.kvmalloc(40, GFP_KERNEL).unwrap(), here().line());
    told(AllocationKind::Object, mm.ksize(object.as_ptr()).unwrap(), line);
    mm.kvfree(object.as_ptr()).unwrap();
    let until = mm.platform().now();
    let (object, line) = (mm.kmalloc_deadline(40, GFP_KERNEL, until).unwrap(), here().line());
    told(AllocationKind::Object, mm.ksize(object.as_ptr()).unwrap(), line);
    mm.kfree(object.as_ptr()).unwrap();
    for order in [0, 3] {
        let (block, line) = (mm.get_free_pages(GFP_KERNEL, order).unwrap(), here().line());
        told(AllocationKind::Pages, PAGE << order, line);
        assert_eq!(mm.page_owner(mm.pfn_of(block.as_ptr()).unwrap()).unwrap().line(), line);
        mm.free_pages(block.as_ptr(), order).unwrap();
        let (block, line) = (mm.alloc_pages(GFP_HIGHUSER, order).unwrap(), here().line());
        told(AllocationKind::Pages, PAGE << order, line);
        mm.free_pages_frame(block, order).unwrap();
        let (block, line) = (mm.alloc_pages_deadline(GFP_KERNEL, order, until).unwrap(), here().line());
        told(AllocationKind::Pages, PAGE << order, line);
        mm.free_pages_frame(block, order).unwrap();
    }
    let (block, line) = (mm.alloc_pages_exact(3 * PAGE, GFP_KERNEL).unwrap(), here().line());
    told(AllocationKind::Pages, 3 * PAGE, line);
    mm.free_pages_exact(block.as_ptr(), 3 * PAGE).unwrap();
    let mut bulk = [None; 1];
    let (filled, line) = (mm.alloc_pages_bulk(GFP_KERNEL, &mut bulk).unwrap(), here().line());
    assert_eq!(filled, 1);
    told(AllocationKind::Pages, PAGE, line);
    mm.free_pages_bulk(&mut bulk).unwrap();
    let (area, line) = (mm.vmalloc(3 * PAGE).unwrap(), here().line());
    told(AllocationKind::Area, 3 * PAGE, line);
    mm.vfree(area.as_ptr()).unwrap();
    for size in [16, 200, 3000, 2 * PAGE] {
        let cache = mm.kmem_cache_create("named", size, 0, CacheFlags::empty(), None).unwrap();
        let (object, line) = (cache.alloc(GFP_KERNEL).unwrap(), here().line());
        told(AllocationKind::Cached, size, line);
        cache.free(object.as_ptr()).unwrap();
        let mut bulk = [std::ptr::null_mut(); 1];
        let ((), line) = (cache.alloc_bulk(GFP_KERNEL, &mut bulk).unwrap(), here().line());
        told(AllocationKind::Cached, size, line);
        cache.free_bulk(&bulk).unwrap();
    }
    assert_eq!(mm.allocations().count(), 0);
}

fn the_list_is_what_is_held<B: Backend>(mm: &TestMm<B>) {
    let sizes = [8, 16, 64, 100, 1000, 4000, 10_000];
    let many = if cfg!(miri) { 20 } else { 700 };
    let mut objects: Vec<_> = (0..many).map(|i| mm.kmalloc(sizes[i % sizes.len()], GFP_KERNEL).unwrap()).collect();
    // Every third goes again.
    let mut at = 0;
    objects.retain(|object| {
        at += 1;
        if at % 3 == 0 {
            mm.kfree(object.as_ptr()).unwrap();
        }
        at % 3 != 0
    });
    let mut expected: Vec<_> = objects.iter().map(|o| mm.ksize(o.as_ptr()).unwrap()).collect();
    let mut listed: Vec<_> = mm.allocations().map(|found| found.bytes).collect();
    expected.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, expected);
    let physical = |object: &std::ptr::NonNull<u8>| {
        let pfn = mm.pfn_of(object.as_ptr()).unwrap();
        pfn.phys(B::PAGE_SHIFT).0 | (object.as_ptr().addr() % PAGE) as u64
    };
    let mut expected: Vec<_> = objects.iter().map(physical).collect();
    expected.sort_unstable();
    assert_eq!(mm.allocations().map(|found| found.at).collect::<Vec<_>>(), expected, "by address");
    objects.into_iter().for_each(|object| mm.kfree(object.as_ptr()).unwrap());
}

fn sites_are_summed_and_bounded<B: Backend>(mm: &TestMm<B>) {
    let line = here().line() + 1;
    let objects: Vec<_> = (0..10).map(|_| mm.kmalloc(100, GFP_KERNEL).unwrap()).collect();
    let page = mm.get_free_page(GFP_KERNEL).unwrap();
    let area = mm.vmalloc(2 * PAGE).unwrap();
    let each = mm.ksize(objects[0].as_ptr()).unwrap();
    let sites = mm.allocations().by_site::<3>();
    let found: Vec<_> = sites.sites().iter().map(|s| (s.caller.unwrap().line(), s.count, s.bytes)).collect();
    assert_eq!(
        found,
        [(line + 2, 1, 2 * PAGE as u64), (line + 1, 1, PAGE as u64), (line, 10, 10 * each as u64)],
        "those with most bytes first"
    );
    assert_eq!(sites.others().count, 0);
    let one = mm.allocations().by_site::<1>();
    assert_eq!((one.sites().len(), one.sites()[0].count + one.others().count), (1, 12), "what has no place is told");
    assert!(one.to_string().contains("elsewhere"), "{one}");
    let text = mm.allocations().to_string();
    assert_eq!(text.lines().count(), 3, "{text}");
    let of_objects = text.lines().find(|l| l.contains(&format!("owners.rs:{line}:"))).unwrap();
    assert!(of_objects.trim_start().starts_with("10 times, "), "{text}");
    mm.vfree(area.as_ptr()).unwrap();
    mm.free_page(page.as_ptr()).unwrap();
    objects.into_iter().for_each(|object| mm.kfree(object.as_ptr()).unwrap());
}

fn a_leak_names_its_site<B: Backend>(mm: &TestMm<B>) {
    let kept = mm.kmalloc(100, GFP_KERNEL).unwrap();
    let guard = mm.leak_guard().unwrap();
    let (lost, line) = (mm.kmalloc(100, GFP_KERNEL).unwrap(), here().line());
    let text = guard.check().unwrap_err().to_string();
    assert!(text.contains(&format!("owners.rs:{line}:")), "{text}");
    assert_eq!(text.matches("owners.rs").count(), 1, "what was held before is no loss: {text}");
    mm.kfree(lost.as_ptr()).unwrap();
    // The same held by another call is no loss.
    mm.kfree(kept.as_ptr()).unwrap();
    let kept = mm.kmalloc(100, GFP_KERNEL).unwrap();
    assert_eq!(guard.check(), Ok(()));
    mm.kfree(kept.as_ptr()).unwrap();
}

fn without_memory_for_names_objects_are_served_all_the_same<B: Backend>(mm: &TestMm<B>) {
    mm.drain();
    let mut pages = Vec::new();
    // Ordinary requests leave what only the atomic one below may take, and names may not.
    while let Ok(page) = mm.get_free_page(GFP_NOWAIT | Gfp::NOWARN) {
        pages.push(page);
    }
    let before = mm.unnamed_slabs();
    let object = mm.kmalloc(100, GFP_ATOMIC).unwrap();
    assert_eq!(mm.unnamed_slabs(), before + 1);
    let unnamed = mm.allocations().find(|found| found.kind == AllocationKind::Object).unwrap();
    assert_eq!(unnamed.caller, None);
    assert!(mm.allocations().to_string().contains("unknown"));
    mm.kfree(object.as_ptr()).unwrap();
    pages.into_iter().for_each(|page| mm.free_page(page.as_ptr()).unwrap());
}

fn pages_that_were_split_stay_their_owners<B: Backend>(mm: &TestMm<B>) {
    let (block, line) = (mm.alloc_pages(GFP_KERNEL, 2).unwrap(), here().line());
    mm.split_page(block, 2).unwrap();
    let lines: Vec<_> = mm.allocations().map(|found| found.caller.unwrap().line()).collect();
    assert_eq!(lines, [line; 4]);
    (0..4).for_each(|i| mm.free_pages_frame(Pfn(block.0 + i), 0).unwrap());
    assert_eq!(mm.page_owner(block), None, "nobody has it");
}
