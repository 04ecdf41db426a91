//! Areas and mappings when memory, tables or addresses are short.

mod common;

use common::{PAGE, TestMm, large_rig, mmu};
use mm_core::*;
use rtmm_testkit::rig::Rig;

const LARGE: usize = 512 * PAGE;

#[test]
fn exhausted_addresses_are_told_from_exhausted_memory_and_come_back_whole() {
    let rig = large_rig();
    rig.nothing_lost(|mm| {
        let page = mm.alloc_page(GFP_KERNEL).unwrap();
        let whole = mm.ioremap(PhysAddr(0xc000_0000), (12 << 20) - PAGE).unwrap();
        mm.iounmap(whole.as_ptr()).unwrap();
        let mut maps = Vec::new();
        let error = loop {
            match mm.vmap(&[page], Prot::ReadWrite) {
                Ok(map) => maps.push(map.as_ptr()),
                Err(error) => break error,
            }
        };
        assert_eq!(error, MmError::Alloc(AllocError::NoAddressSpace));
        assert_eq!(mm.vmalloc(PAGE), Err(AllocError::NoAddressSpace));
        // Every second one: still room for small ones, none for large ones.
        maps.iter().step_by(2).for_each(|map| mm.vunmap(*map).unwrap());
        assert_eq!(mm.vmalloc(17 * PAGE), Err(AllocError::NoAddressSpace));
        let small = mm.vmalloc(15 * PAGE).unwrap();
        mm.vfree(small.as_ptr()).unwrap();
        maps.iter().skip(1).step_by(2).for_each(|map| mm.vunmap(*map).unwrap());
        let whole = mm.ioremap(PhysAddr(0xc000_0000), (12 << 20) - PAGE).unwrap();
        mm.iounmap(whole.as_ptr()).unwrap();
        mm.free_pages_frame(page, 0).unwrap();
    });
}

#[test]
fn what_was_put_off_is_freed_before_a_request_fails() {
    let rig = mmu();
    rig.nothing_lost(|mm| {
        let mut held = Vec::new();
        while let Ok(area) = mm.vmalloc(64 * PAGE) {
            held.push(area.as_ptr());
        }
        rig.platform.set_context(Context::Atomic);
        held.drain(..3).for_each(|area| mm.vfree(area).unwrap());
        rig.platform.set_context(Context::Task);
        // It is missing memory or addresses; either comes back.
        let area = mm.vmalloc(64 * PAGE).unwrap();
        assert_eq!(mm.deferred_areas(), (0, 0));
        mm.vfree(area.as_ptr()).unwrap();
        held.into_iter().for_each(|area| mm.vfree(area).unwrap());
    });
}

#[test]
fn a_reserved_table_serves_when_no_other_is_to_be_had() {
    let rig = mmu();
    rig.nothing_lost(|mm| {
        let steps = |mm: &TestMm<_>| {
            mm.drain();
            mm.faults().fail_from(FaultClass::Table, 1);
            let result = mm.vmalloc(PAGE);
            mm.faults().disarm();
            result
        };
        assert_eq!(steps(mm), Err(AllocError::NoMemory));
        mm.reserve_tables(3).unwrap();
        let area = steps(mm).unwrap();
        mm.vfree(area.as_ptr()).unwrap();
        let area = steps(mm).unwrap();
        mm.vfree(area.as_ptr()).unwrap();
        mm.reserve_tables(0).unwrap();
        assert_eq!(steps(mm), Err(AllocError::NoMemory));
    });
}

#[test]
fn a_reservation_that_fails_anywhere_changes_nothing() {
    let rig = mmu();
    for kept in [0, 2, 8] {
        rig.mm.reserve_tables(kept).unwrap();
        for class in [FaultClass::Table, FaultClass::Descriptor, FaultClass::Page] {
            let mut failed = 0;
            loop {
                let done = rig.nothing_lost(|mm| {
                    mm.faults().fail_nth(class, failed + 1);
                    let result = mm.reserve_tables(5);
                    mm.faults().disarm();
                    mm.check().unwrap();
                    if result.is_ok() {
                        mm.reserve_tables(kept).unwrap();
                    } else {
                        assert_eq!(result, Err(AllocError::NoMemory));
                    }
                    result.is_ok()
                });
                if done {
                    break;
                }
                failed += 1;
            }
            let steps = if class == FaultClass::Page { 0 } else { 5usize.saturating_sub(kept) };
            assert!(failed as usize >= steps, "{class:?} of {kept}: {failed}");
        }
    }
    rig.mm.reserve_tables(0).unwrap();
}

/// All memory is taken, the reserve of interrupts too.
fn all_memory<B: Backend>(mm: &TestMm<B>) -> Vec<std::ptr::NonNull<u8>> {
    mm.drain();
    let take = |flags| std::iter::from_fn(move || mm.get_free_page(flags | Gfp::NOWARN).ok());
    take(GFP_ATOMIC).chain(take(GFP_ATOMIC | Gfp::DMA)).collect()
}

#[test]
fn with_a_reservation_a_mapping_succeeds_with_no_memory_at_all() {
    let rig = mmu();
    let device = PhysAddr(0xfe00_0000);
    let short = Err(MmError::Alloc(AllocError::NoMemory));
    rig.nothing_lost(|mm| {
        let page = mm.alloc_page(GFP_KERNEL).unwrap();
        for reserved in [0, 3, 6] {
            mm.reserve_tables(reserved).unwrap();
            let taken = all_memory(mm);
            let left = mm.free_page_count();
            let map = |which: usize| match which {
                0 => mm.vmap(&[page], Prot::ReadWrite),
                1 => mm.ioremap(device, 3 * PAGE),
                _ => mm.vm_map_ram(&[page]),
            };
            for which in 0..3 {
                // Again and again: what was used is filled up by the free, and by no drain given back.
                for _ in 0..20 {
                    let at = map(which);
                    if reserved == 0 {
                        assert_eq!(at, short, "mapping {which}");
                        continue;
                    }
                    let at = at.unwrap_or_else(|error| panic!("mapping {which} of {reserved}: {error}")).as_ptr();
                    mm.check().unwrap();
                    match which {
                        0 => mm.vunmap(at).unwrap(),
                        1 => mm.iounmap(at).unwrap(),
                        _ => mm.vm_unmap_ram(at, 1).unwrap(),
                    }
                    mm.drain();
                    assert_eq!(mm.free_page_count(), left, "mapping {which} of {reserved}");
                }
            }
            // As many as were reserved for at a time, and those for which a page that holds records has room.
            let mut many = Vec::new();
            let error = loop {
                match mm.ioremap(device, PAGE) {
                    Ok(at) => many.push(at.as_ptr()),
                    error => break error,
                }
            };
            assert_eq!(error, short);
            assert!(many.len() >= reserved, "{} of {reserved}", many.len());
            mm.check().unwrap();
            many.into_iter().for_each(|at| mm.iounmap(at).unwrap());
            taken.into_iter().for_each(|page| mm.free_page(page.as_ptr()).unwrap());
        }
        mm.reserve_tables(0).unwrap();
        mm.free_pages_frame(page, 0).unwrap();
    });
}

#[test]
fn kvmalloc_of_memory_for_devices_says_what_is_short() {
    let rig = mmu();
    let mm = &rig.mm;
    let mut held: Vec<_> = std::iter::from_fn(|| mm.get_free_page(GFP_NOWAIT | Gfp::NOWARN).ok()).collect();
    assert_ne!(mm.kvmalloc(2 * PAGE, GFP_KERNEL | Gfp::DMA | Gfp::NOWARN), Err(AllocError::BadFlags));
    held.drain(..).for_each(|page| mm.free_page(page.as_ptr()).unwrap());
}

/// Pages that a shrinker gives back.
struct Hoard<B: Backend + 'static> {
    mm: &'static TestMm<B>,
    pages: std::sync::Mutex<Vec<usize>>,
}

impl<B: Backend> Hoard<B> {
    fn fill(&self) {
        self.mm.drain();
        let more = || self.mm.get_free_page(GFP_ATOMIC | Gfp::NOWARN).ok();
        self.pages.lock().unwrap().extend(std::iter::from_fn(more).map(|page| page.addr().get()));
    }

    fn give(&self, most: usize) -> usize {
        let mut pages = self.pages.lock().unwrap();
        let left = pages.len().saturating_sub(most);
        let given = pages.split_off(left);
        drop(pages);
        given.iter().for_each(|at| self.mm.free_page(std::ptr::without_provenance(*at)).unwrap());
        given.len()
    }
}

impl<B: Backend> Shrinker for Hoard<B> {
    fn count(&self, _: &ShrinkRequest) -> usize {
        self.pages.lock().unwrap().len()
    }

    fn scan(&self, request: &ShrinkRequest) -> usize {
        self.give(request.scan.max(64))
    }
}

/// With all memory hoarded: `make` goes on until it needed the shrinker, which it never sees fail.
fn until_shrunk<B: Backend>(hoard: &Hoard<B>, what: &str, mut make: impl FnMut() -> Result<(), MmError>) {
    hoard.fill();
    let before = hoard.pages.lock().unwrap().len();
    for _ in 0..2000 {
        assert_eq!(make(), Ok(()), "{what}");
        if hoard.pages.lock().unwrap().len() < before {
            return;
        }
    }
    panic!("{what}: no memory was ever short");
}

#[test]
fn mappings_and_changes_of_them_reclaim_before_they_fail() {
    let rig: &'static Rig<_> = Box::leak(Box::new(large_rig()));
    let mm = &rig.mm;
    let own = mm.alloc_pages(GFP_KERNEL, 2).unwrap();
    let area = mm.vmalloc(2 * LARGE).unwrap().as_ptr();
    let hoard: &'static Hoard<_> = Box::leak(Box::new(Hoard { mm, pages: Default::default() }));
    mm.register_shrinker(hoard).unwrap();
    let mut maps = Vec::new();
    until_shrunk(hoard, "vmap", || mm.vmap(&[own], Prot::ReadWrite).map(|at| maps.push(at.as_ptr())));
    maps.drain(..).for_each(|map| mm.vunmap(map).unwrap());
    let mut devices = Vec::new();
    until_shrunk(hoard, "ioremap", || mm.ioremap(PhysAddr(0xfe00_0000), PAGE).map(|at| devices.push(at.as_ptr())));
    devices.drain(..).for_each(|device| mm.iounmap(device).unwrap());
    until_shrunk(hoard, "a vmap that is sorted", || {
        let map = mm.vmap(&[0, 2, 1, 3].map(|page| Pfn(own.0 + page)), Prot::Read)?;
        mm.vunmap(map.as_ptr()).map_err(|_| MmError::Inval)
    });
    let mut page = area;
    until_shrunk(hoard, "set_memory", || {
        page = page.wrapping_add(PAGE);
        mm.set_memory(page, 1, Prot::Read)
    });
    until_shrunk(hoard, "reserve_tables", || Ok(mm.reserve_tables(4)?));
    hoard.give(usize::MAX);
    mm.vfree(area).unwrap();
    mm.check().unwrap_or_else(|damage| panic!("{damage}"));
}

#[test]
fn records_kept_aside_are_filled_up_again_by_the_next_frees() {
    const KEPT: usize = 6;
    let rig = mmu();
    let device = PhysAddr(0xfe00_0000);
    rig.nothing_lost(|mm| {
        mm.reserve_tables(KEPT).unwrap();
        let taken = all_memory(mm);
        // The last ones have the records that were kept aside.
        let mut mappings: Vec<_> = std::iter::from_fn(|| mm.ioremap(device, PAGE).ok()).collect();
        assert!(mappings.len() >= KEPT);
        for at in mappings.split_off(mappings.len() - KEPT) {
            mm.iounmap(at.as_ptr()).unwrap();
        }
        taken.into_iter().for_each(|page| mm.free_page(page.as_ptr()).unwrap());
        // While there is memory none of them is used for what stays.
        let stay: Vec<_> = (0..KEPT).map(|_| mm.vmalloc(PAGE).unwrap()).collect();
        let taken = all_memory(mm);
        let last: Vec<_> = (0..KEPT).map(|_| mm.ioremap(device, PAGE).unwrap()).collect();
        mappings.iter().chain(&last).for_each(|at| mm.iounmap(at.as_ptr()).unwrap());
        stay.iter().for_each(|at| mm.vfree(at.as_ptr()).unwrap());
        taken.into_iter().for_each(|page| mm.free_page(page.as_ptr()).unwrap());
        mm.reserve_tables(0).unwrap();
    });
}
