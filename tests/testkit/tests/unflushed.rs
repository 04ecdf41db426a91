//! Flush before free, at run time: what was unmapped is in nobody's hands until it is flushed, and dropping it flushes.

mod common;

use common::machine::{is_absent, on_each_cpu};
use common::{PAGE, highmem, pae};
use mm_core::*;
use rtmm_testkit::{Access, SimMachine, TestPlatform};
use std::collections::BTreeSet;

type PagedMm<const PAE: bool> = Mm<TestPlatform, backend_mmu_x86::X86<SimMachine<PAE>>>;

/// An area that every CPU knows, its frames, and where it is.
fn known_area<const PAE: bool>(mm: &PagedMm<PAE>, machine: &SimMachine<PAE>, pages: usize) -> (*mut u8, BTreeSet<u32>) {
    let at = mm.vmalloc(pages * PAGE).unwrap().as_ptr();
    on_each_cpu(machine, |_| {
        (0..pages).for_each(|page| assert!(machine.access(at.addr() + page * PAGE, Access::Write).is_ok()));
    });
    let frames = (0..pages).map(|page| mm.vmalloc_to_page(at.wrapping_add(page * PAGE)).unwrap().0).collect();
    (at, frames)
}

/// Takes all the memory and the address space there is, looks at it, and gives it back.
fn everything_else<const PAE: bool>(mm: &PagedMm<PAE>, mut look: impl FnMut(Pfn), mut at: impl FnMut(usize)) {
    let mut pages = Vec::new();
    while let Ok(pfn) = mm.alloc_page(GFP_ATOMIC | Gfp::HIGHMEM) {
        look(pfn);
        pages.push(pfn);
    }
    pages.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());
    let mut areas = Vec::new();
    while let Ok(area) = mm.ioremap(PhysAddr(0xf000_0000), 3 * PAGE) {
        at(area.as_ptr().addr());
        areas.push(area);
    }
    assert!(areas.len() > 10);
    areas.into_iter().for_each(|area| mm.iounmap(area.as_ptr()).unwrap());
}

/// `end` is what becomes of the value: afterwards everything is back, and no CPU has a translation.
fn comes_back<const PAE: bool>(
    mm: &PagedMm<PAE>,
    machine: &SimMachine<PAE>,
    end: fn(mm_core::vmalloc::Unflushed<'_, TestPlatform, backend_mmu_x86::X86<SimMachine<PAE>>>),
) {
    for pages in [1, 3, 20, 70] {
        let free = mm.free_page_count();
        let (at, frames) = known_area(mm, machine, pages);
        let unflushed = mm.vfree_unflushed(at).unwrap();
        assert_eq!(mm.vfree(at), Err(FreeError::DoubleFree));
        assert_eq!(mm.vmalloc_to_page(at), None);
        everything_else(
            mm,
            |pfn| assert!(!frames.contains(&pfn.0), "{pfn:?} is used again before the flush"),
            |addr| assert!(addr + 3 * PAGE < at.addr() || at.addr() + pages * PAGE < addr, "{addr:#x} is used again"),
        );
        let before = machine.flushes();
        end(unflushed);
        assert_ne!(machine.flushes(), before);
        on_each_cpu(machine, |_| {
            (0..pages).for_each(|page| is_absent(machine, at.addr() + page * PAGE, Access::Read));
        });
        mm.drain();
        mm.check().unwrap();
        assert_eq!(mm.free_page_count(), free);
        let mut seen = 0;
        everything_else(mm, |pfn| seen += usize::from(frames.contains(&pfn.0)), |_| ());
        assert_eq!(seen, pages, "its frames can be had again");
        mm.drain();
    }
}

#[test]
fn dropping_it_flushes_and_gives_everything_back() {
    let (long, pae) = (highmem(), pae());
    let (machine, pae_machine) = (long.machine().clone(), pae.machine().clone());
    long.nothing_lost(|mm| comes_back(mm, &machine, |unflushed| drop(unflushed)));
    pae.nothing_lost(|mm| comes_back(mm, &pae_machine, |unflushed| drop(unflushed)));
}

#[test]
fn flushing_it_gives_everything_back() {
    let (long, pae) = (highmem(), pae());
    let (machine, pae_machine) = (long.machine().clone(), pae.machine().clone());
    long.nothing_lost(|mm| comes_back(mm, &machine, |unflushed| unflushed.flush()));
    pae.nothing_lost(|mm| comes_back(mm, &pae_machine, |unflushed| unflushed.flush()));
}

/// Nothing is flushed, so nothing may be used again, and the scan says so.
#[test]
fn forgetting_it_leaks_is_told_and_reuses_nothing() {
    fn forgotten<const PAE: bool>(mm: &PagedMm<PAE>, machine: &SimMachine<PAE>) {
        let (at, frames) = known_area(mm, machine, 20);
        // The table stays for others.
        let keep = mm.vmalloc(PAGE).unwrap();
        std::mem::forget(mm.vfree_unflushed(at).unwrap());
        let damage = mm.check().unwrap_err();
        // Its addresses and its frames are nobody's.
        assert!(["flush", "address space"].iter().any(|word| damage.to_string().contains(word)), "{damage}");
        for _ in 0..3 {
            mm.drain();
            everything_else(
                mm,
                |pfn| assert!(!frames.contains(&pfn.0), "{pfn:?} is used again"),
                |addr| assert!(addr + 3 * PAGE < at.addr() || at.addr() + 20 * PAGE < addr, "{addr:#x} is used again"),
            );
        }
        assert_eq!(mm.vfree(at), Err(FreeError::DoubleFree));
        mm.vfree(keep.as_ptr()).unwrap();
        assert!(mm.check().is_err());
    }
    let (long, pae) = (highmem(), pae());
    forgotten(&long.mm, long.machine());
    forgotten(&pae.mm, pae.machine());
}

#[test]
fn an_area_that_is_none_is_refused_as_by_vfree() {
    let rig = highmem();
    rig.nothing_lost(|mm| {
        let at = mm.vmalloc(3 * PAGE).unwrap().as_ptr();
        let device = mm.ioremap(PhysAddr(0xf000_0000), PAGE).unwrap().as_ptr();
        let stray = [at.wrapping_add(PAGE), at.wrapping_add(1), at.wrapping_sub(PAGE), device, std::ptr::null_mut()];
        for addr in stray {
            let refused = mm.vfree_unflushed(addr).map(drop);
            assert!(refused.is_err(), "{addr:p}");
            if !addr.is_null() {
                assert_eq!(refused, mm.vfree(addr), "{addr:p}");
            }
        }
        mm.vfree_unflushed(at).unwrap().flush();
        assert_eq!(mm.vfree_unflushed(at).map(drop), Err(FreeError::DoubleFree));
        mm.iounmap(device).unwrap();
    });
}
