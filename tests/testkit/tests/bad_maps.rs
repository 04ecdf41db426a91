//! Mappings of device ranges and pages: what cannot be is refused with a clear error and changes nothing, what may be
//! goes back in any order.

#[macro_use]
mod common;

use common::{PAGE, TestMm, frames, mmu, nommu, state, unchanged};
use mm_core::*;
use std::ptr::NonNull;

both! {
    ram_is_no_device;
    ranges_that_wrap_or_pass_the_address_width;
    an_unaligned_range_keeps_its_offset;
    unmapping_twice_and_inside;
    an_ioremap_has_no_frames_of_ours;
    listings_reach_the_end_of_address_space;
    mappings_of_the_same_pages_go_back_in_any_order;
    pages_of_an_area_are_mapped_for_a_short_time;
}

fn ram_is_no_device<B: Backend>(mm: &TestMm<B>) {
    let zones = mm.zoneinfo();
    let before = state(mm);
    let is_ram = |phys: u64, size: usize| {
        assert_eq!(mm.ioremap(PhysAddr(phys), size), Err(MmError::IsRam), "{size:#x} at {phys:#x}");
    };
    for zone in zones.zones() {
        let (start, end) = (u64::from(zone.span.0) * PAGE as u64, u64::from(zone.span.1) * PAGE as u64);
        is_ram(start, 1);
        is_ram(start, PAGE);
        is_ram(start - 1, 2);
        is_ram(start - 1, (end - start + 2) as usize);
        is_ram(start, (end - start) as usize);
        is_ram(end - 1, 1);
        is_ram(end - 1, 3 * PAGE);
        is_ram((start + end) / 2, 8);
    }
    // Wherever the manager keeps its tables is RAM, too.
    for pfn in frames(mm).into_iter().step_by(if cfg!(miri) { 31 } else { 3 }) {
        is_ram(u64::from(pfn) * PAGE as u64 + 8, 8);
    }
    assert_eq!(state(mm), before);
    // Right beside it is not.
    let end = u64::from(zones.zones().last().unwrap().span.1) * PAGE as u64;
    let p = mm.ioremap(PhysAddr(end), 8).unwrap();
    mm.iounmap(p.as_ptr()).unwrap();
}

fn ranges_that_wrap_or_pass_the_address_width<B: Backend>(mm: &TestMm<B>) {
    let before = state(mm);
    // The simulated processor has 46 bits, frame numbers reach 44.
    let width = if B::HAS_MMU { 44 } else { B::PHYS_BITS };
    let end = 1u64 << width;
    for (phys, size) in [
        (u64::MAX, 1usize),
        (u64::MAX, 2),
        (u64::MAX - 4095, PAGE),
        (u64::MAX - 4095, PAGE + 1),
        (1 << 63, PAGE),
        (1 << 52, 1),
        (end, 1),
        (end, PAGE),
        (end - 1, 2),
        (end - PAGE as u64, 2 * PAGE),
        (end - PAGE as u64, usize::MAX),
    ] {
        let error = mm.ioremap(PhysAddr(phys), size);
        assert_eq!(error, Err(MmError::BadRange), "{size:#x} at {phys:#x}");
    }
    // Page rounding must not wrap either.
    for phys in [0xf000_0000, 0xf000_0fff] {
        assert!(mm.ioremap(PhysAddr(phys), usize::MAX - 4094).is_err());
    }
    assert_eq!(state(mm), before);
}

fn an_unaligned_range_keeps_its_offset<B: Backend>(mm: &TestMm<B>) {
    for (phys, size, pages) in [
        (0xf000_0000u64, 1usize, 1u32),
        (0xf000_0123, 8, 1),
        (0xf000_0fff, 1, 1),
        (0xf000_0fff, 2, 2),
        (0xf000_0001, PAGE, 2),
        (0xf000_0800, 2 * PAGE, 3),
        (0xf000_0fff, PAGE + 2, 3),
    ] {
        let p = mm.ioremap(PhysAddr(phys), size).unwrap();
        assert_eq!(p.as_ptr().addr() & (PAGE - 1), phys as usize & (PAGE - 1), "{phys:#x}");
        let area = mm.vmallocinfo().areas().next().unwrap();
        assert_eq!((area.kind, area.phys, area.pages, area.size), (AreaKind::Ioremap, phys, pages, size));
        if !B::HAS_MMU {
            assert_eq!(p.as_ptr().addr() as u64, phys);
        }
        mm.check().unwrap();
        mm.iounmap(p.as_ptr()).unwrap();
        assert_eq!(mm.vmallocinfo().count(), 0);
    }
    if B::HAS_MMU {
        // Any address in the first page will do; one in a later page will not.
        let p = mm.ioremap(PhysAddr(0xf000_0700), 2 * PAGE).unwrap().as_ptr();
        assert_eq!(unchanged(mm, || mm.iounmap(p.wrapping_add(PAGE))), Err(FreeError::Interior));
        mm.iounmap(p.wrapping_sub(0x700)).unwrap();
    } else {
        assert_eq!(unchanged(mm, || mm.ioremap(PhysAddr(0), PAGE)), Err(MmError::Inval));
    }
}

fn unmapping_twice_and_inside<B: Backend>(mm: &TestMm<B>) {
    let p = mm.ioremap(PhysAddr(0xf000_0000), 4 * PAGE).unwrap().as_ptr();
    for page in 1..4 {
        let want = if B::HAS_MMU { FreeError::Interior } else { FreeError::DoubleFree };
        assert_eq!(unchanged(mm, || mm.iounmap(p.wrapping_add(page * PAGE))), Err(want));
    }
    if B::HAS_MMU {
        assert_eq!(unchanged(mm, || mm.iounmap(p.wrapping_sub(PAGE))), Err(FreeError::Interior), "the guard");
        assert_eq!(unchanged(mm, || mm.iounmap(p.wrapping_add(4 * PAGE))), Err(FreeError::DoubleFree), "behind it");
    }
    mm.iounmap(p).unwrap();
    for _ in 0..2 {
        assert_eq!(unchanged(mm, || mm.iounmap(p)), Err(FreeError::DoubleFree));
    }
    // The address is another area's now.
    let area = mm.vmalloc(PAGE).unwrap().as_ptr();
    if B::HAS_MMU {
        assert_eq!(area, p);
        assert_eq!(unchanged(mm, || mm.iounmap(p)), Err(FreeError::WrongAllocator));
    }
    mm.vfree(area).unwrap();
}

fn an_ioremap_has_no_frames_of_ours<B: Backend>(mm: &TestMm<B>) {
    let free = mm.free_page_count();
    let p = mm.ioremap(PhysAddr(0xf000_0000), 9 * PAGE).unwrap().as_ptr();
    for page in 0..10 {
        assert_eq!(mm.vmalloc_to_page(p.wrapping_add(page * PAGE)), None);
    }
    // A record, and tables: no page of the range.
    assert!(free - mm.free_page_count() <= 4);
    mm.iounmap(p).unwrap();
}

fn listings_reach_the_end_of_address_space<B: Backend>(mm: &TestMm<B>) {
    if B::HAS_MMU {
        return;
    }
    // The last page and the last byte a 32-bit machine has, where end addresses do not fit a pointer.
    let last = 1u64 << B::PHYS_BITS.min(32);
    let made: Vec<NonNull<u8>> = [(last - PAGE as u64, PAGE), (last - 1, 1), (last - 2 * PAGE as u64, 2 * PAGE)]
        .into_iter()
        .map(|(phys, size)| mm.ioremap(PhysAddr(phys), size).unwrap())
        .collect();
    assert_eq!(mm.vmallocinfo().count(), 3);
    assert_eq!(mm.vmallocinfo().to_string().lines().count(), 3);
    mm.check().unwrap();
    for p in made {
        mm.iounmap(p.as_ptr()).unwrap();
        mm.check().unwrap();
    }
}

/// Address space, unlike memory, can run out or be in pieces.
#[test]
fn address_space_runs_out_and_comes_back() {
    if cfg!(miri) {
        // The address space has tests of its own that Miri runs; filling a window takes it minutes.
        return;
    }
    const UNIT: usize = 1 << 16;
    let window = rtmm_testkit::rig::WINDOW.len();
    let rig = common::mmu();
    rig.nothing_lost(|mm| {
        // Areas of one unit each, until none is left; device ranges take no memory.
        let mut areas = Vec::new();
        let error = loop {
            match mm.ioremap(PhysAddr(0x1_0000_0000), UNIT - PAGE) {
                Ok(area) => areas.push(area.as_ptr()),
                Err(error) => break error,
            }
        };
        assert_eq!(error, AllocError::NoAddressSpace.into());
        // The last unit holds the last guard.
        assert_eq!(areas.len(), window / UNIT - 1);
        unchanged(mm, || {
            assert_eq!(mm.vmalloc(1), Err(AllocError::NoAddressSpace));
            assert_eq!(mm.vmalloc(UNIT), Err(AllocError::NoAddressSpace));
        });
        // In pieces: what fits a piece is served, more is not.
        for area in areas.iter().step_by(2) {
            mm.iounmap(*area).unwrap();
        }
        assert_eq!(unchanged(mm, || mm.vmalloc(UNIT)), Err(AllocError::NoAddressSpace));
        let small = mm.vmalloc(UNIT - PAGE).unwrap();
        assert_eq!(small.as_ptr(), areas[0], "the lowest piece");
        mm.vfree(small.as_ptr()).unwrap();
        for area in areas.iter().skip(1).step_by(2) {
            mm.iounmap(*area).unwrap();
        }
        // All of it is one piece again.
        let all = mm.ioremap(PhysAddr(0x1_0000_0000), window - UNIT - PAGE).unwrap();
        assert_eq!(all.as_ptr(), areas[0]);
        assert_eq!(unchanged(mm, || mm.vmalloc(1)), Err(AllocError::NoAddressSpace));
        mm.iounmap(all.as_ptr()).unwrap();
        let more = unchanged(mm, || mm.ioremap(PhysAddr(0x1_0000_0000), window - UNIT));
        assert_eq!(more, Err(AllocError::NoAddressSpace.into()));
    });
}

#[test]
fn a_page_that_is_given_twice_is_refused_in_whatever_order_the_pages_come() {
    let rig = mmu();
    let mm = &rig.mm;
    let pages: Vec<Pfn> = (0..60).map(|_| mm.alloc_pages(GFP_KERNEL, 0).unwrap()).collect();
    let split = |runs: usize| -> Vec<Pfn> { pages.rchunks(pages.len() / runs).flatten().copied().collect() };
    // A run each, a few that follow each other backwards, more than are looked at so, and two that meet.
    let meeting = pages.iter().step_by(2).chain(pages.iter().skip(1).step_by(2)).copied().collect();
    for mut order in [pages.clone(), split(2), split(6), split(60), meeting] {
        for whole in [&order[..], &order[..20], &order[3..]] {
            let map = mm.vmap(whole, Prot::ReadWrite).unwrap();
            mm.vunmap(map.as_ptr()).unwrap();
        }
        for (from, to) in [(0, 59), (59, 0), (0, 1), (29, 30), (7, 8), (31, 40)] {
            let (page, was) = (order[from], order[to]);
            order[to] = page;
            assert_eq!(mm.vmap(&order, Prot::ReadWrite), Err(MmError::Inval), "{from} {to}");
            order[to] = was;
        }
    }
    pages.iter().for_each(|page| mm.free_pages_frame(*page, 0).unwrap());
    mm.check().unwrap_or_else(|damage| panic!("{damage}"));
}

#[test]
fn a_free_frame_is_not_mapped() {
    fn refused<B: Backend>(mm: &TestMm<B>) {
        let block = mm.alloc_pages(GFP_KERNEL, 3).unwrap();
        mm.free_pages_frame(block, 3).unwrap();
        for i in 0..8 {
            assert_eq!(mm.vmap(&[Pfn(block.0 + i)], Prot::ReadWrite), Err(MmError::Inval));
        }
    }
    refused(&mmu().mm);
    refused(&nommu().mm);
}

fn mappings_of_the_same_pages_go_back_in_any_order<B: Backend>(mm: &TestMm<B>) {
    let block = mm.alloc_pages(GFP_KERNEL, 2).unwrap();
    let pages: Vec<_> = (0..4).map(|page| Pfn(block.0 + page)).collect();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
        let made = [
            mm.vm_map_ram(&pages[..2]).unwrap().as_ptr(),
            mm.vmap(&pages, Prot::ReadWrite).unwrap().as_ptr(),
            mm.vm_map_ram(&pages).unwrap().as_ptr(),
        ];
        assert_eq!(mm.vm_unmap_ram(made[0], 3), Err(FreeError::WrongOrder));
        for which in order {
            match which {
                0 => mm.vm_unmap_ram(made[0], 2).unwrap(),
                1 => mm.vunmap(made[1]).unwrap(),
                _ => mm.vm_unmap_ram(made[2], 4).unwrap(),
            }
            mm.check().unwrap();
        }
        assert_eq!(mm.vmallocinfo().count(), 0);
    }
    mm.free_pages_frame(block, 2).unwrap();
}

fn pages_of_an_area_are_mapped_for_a_short_time<B: Backend>(mm: &TestMm<B>) {
    let area = mm.vmalloc(2 * PAGE).unwrap().as_ptr();
    let pages: Vec<_> = (0..2).map(|page| mm.vmalloc_to_page(area.wrapping_add(page * PAGE)).unwrap()).collect();
    match mm.vm_map_ram(&pages) {
        Ok(mapped) => {
            assert_eq!(mm.vunmap(mapped.as_ptr()), Err(FreeError::WrongAllocator));
            mm.vm_unmap_ram(mapped.as_ptr(), 2).unwrap();
        }
        Err(error) => assert_eq!((error, B::HAS_PROTECT), (MmError::Unsupported, true)),
    }
    assert_eq!(mm.vm_unmap_ram(area, 2), Err(FreeError::WrongAllocator));
    mm.vfree(area).unwrap();
}
