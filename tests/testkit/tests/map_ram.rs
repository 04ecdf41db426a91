//! `vm_map_ram`: mappings in blocks that are made once, with guards, names and a flush of their own.

mod common;

use backend_mmu_x86::X86;
use common::machine::{is_absent, on_each_cpu};
use common::{PAGE, drained, highmem, pae, unchanged};
use mm_core::*;
use rtmm_testkit::{Access, SimMachine, TestPlatform};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

type PagedMm<const PAE: bool> = Mm<TestPlatform, X86<SimMachine<PAE>>>;

/// Runs a test on 64-bit tables and on PAE.
fn on_both(long: fn(&PagedMm<false>), short: fn(&PagedMm<true>)) {
    highmem().nothing_lost(long);
    pae().nothing_lost(short);
}

fn frames<const PAE: bool>(mm: &PagedMm<PAE>, count: usize) -> Vec<Pfn> {
    (0..count).map(|_| mm.alloc_page(GFP_HIGHUSER).unwrap()).collect()
}

fn free<const PAE: bool>(mm: &PagedMm<PAE>, frames: Vec<Pfn>) {
    frames.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());
}

/// What a mapping promises: its pages on every CPU, a guard on both sides, its name, its place in the list.
fn keeps_its_promises<const PAE: bool>(mm: &PagedMm<PAE>) {
    let machine = mm.backend().machine();
    let given = frames(mm, 40);
    for count in (1..=33).step_by(4) {
        let pages = &given[..count];
        let others =
            [mm.vm_map_ram(&given[..1]).unwrap(), mm.vm_map_ram(pages).unwrap(), mm.vm_map_ram(&given[..2]).unwrap()];
        let at = others[1].as_ptr();
        on_each_cpu(machine, |_| {
            for (page, pfn) in pages.iter().enumerate() {
                let seen = machine.access(at.addr() + page * PAGE, Access::Write).unwrap();
                assert!(seen.phys == u64::from(pfn.0) << 12 && !seen.executable);
                assert_eq!(mm.vmalloc_to_page(at.wrapping_add(page * PAGE)), Some(*pfn));
            }
            is_absent(machine, at.addr() - 1, Access::Write);
            is_absent(machine, at.addr() + count * PAGE, Access::Write);
        });
        let hit = mm.find_area(at.addr() + count * PAGE - 1).unwrap();
        assert_eq!((hit.place, hit.area.addr, hit.area.pages), (Place::Inside, at.addr(), count as u32));
        let hit = mm.find_area(at.addr() + count * PAGE).unwrap();
        assert_eq!(hit.area.addr, at.addr(), "{hit}");
        assert_ne!(hit.place, Place::Inside);
        let listed: Vec<_> = mm.vmallocinfo().areas().filter(|area| area.addr == at.addr()).collect();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].size, listed[0].kind), (count * PAGE, AreaKind::Map));
        assert!(listed[0].caller.file().ends_with("map_ram.rs"), "{}", listed[0].caller);
        assert_eq!(mm.vmallocinfo().areas().count(), 3);
        let addresses: Vec<_> = mm.vmallocinfo().areas().map(|area| area.addr).collect();
        assert!(addresses.is_sorted());
        for other in [0, 2, 1] {
            mm.vm_unmap_ram(others[other].as_ptr(), [1, count, 2][other]).unwrap();
        }
        on_each_cpu(machine, |_| (0..count).for_each(|page| is_absent(machine, at.addr() + page * PAGE, Access::Read)));
        assert_eq!(mm.vmallocinfo().areas().count(), 0);
        mm.check().unwrap();
    }
    free(mm, given);
}

#[test]
fn a_mapping_has_guards_a_name_and_its_frames() {
    on_both(keeps_its_promises, keeps_its_promises);
}

fn refuses_bad_frees<const PAE: bool>(mm: &PagedMm<PAE>) {
    let given = frames(mm, 20);
    let at = mm.vm_map_ram(&given[..8]).unwrap().as_ptr();
    let inside = at.wrapping_add(3 * PAGE);
    let behind = at.wrapping_add(9 * PAGE);
    unchanged(mm, || {
        for wrong in [0, 7, 9, usize::MAX] {
            assert_eq!(mm.vm_unmap_ram(at, wrong), Err(FreeError::WrongOrder), "{wrong}");
        }
        assert_eq!(mm.vm_unmap_ram(inside, 8), Err(FreeError::Interior));
        assert_eq!(mm.vm_unmap_ram(at.wrapping_add(1), 8), Err(FreeError::Misaligned));
        assert_eq!(mm.vm_unmap_ram(behind, 8), Err(FreeError::DoubleFree));
        for free in [Mm::vfree, Mm::vunmap, Mm::iounmap] {
            assert_eq!(free(mm, at), Err(FreeError::WrongAllocator));
            assert_eq!(free(mm, inside), Err(FreeError::Interior));
            assert_eq!(free(mm, behind), Err(FreeError::DoubleFree));
        }
        assert_eq!(mm.set_memory(at, 1, Prot::Read), Err(MmError::NotMapped));
        assert!(mm.vm_map_ram(&[]).is_err());
        assert_eq!(mm.vm_map_ram(&[given[0], given[0]]), Err(MmError::Inval));
        assert_eq!(mm.vm_map_ram(&[Pfn(u32::MAX)]), Err(MmError::Inval));
    });
    mm.vm_unmap_ram(at, 8).unwrap();
    assert_eq!(mm.vm_unmap_ram(at, 8), Err(FreeError::DoubleFree));
    free(mm, given);
}

#[test]
fn wrong_counts_places_and_frees_are_refused() {
    on_both(refuses_bad_frees, refuses_bad_frees);
}

/// More pages than a block is for are an area, which no other call takes back either.
fn areas_refuse_bad_frees<const PAE: bool>(mm: &PagedMm<PAE>) {
    let given = frames(mm, 40);
    let at = mm.vm_map_ram(&given).unwrap().as_ptr();
    let long = mm.vmap(&given, Prot::ReadWrite).unwrap().as_ptr();
    unchanged(mm, || {
        for free in [Mm::vfree, Mm::vunmap, Mm::iounmap] {
            assert_eq!(free(mm, at), Err(FreeError::WrongAllocator));
        }
        assert_eq!(mm.free_batch().vunmap(at), Err(FreeError::WrongAllocator));
        mm.platform().set_context(Context::Atomic);
        assert_eq!(mm.vunmap(at), Err(FreeError::WrongAllocator));
        mm.platform().set_context(Context::Task);
        for wrong in [0, 39, 41] {
            assert_eq!(mm.vm_unmap_ram(at, wrong), Err(FreeError::WrongOrder));
        }
        assert_eq!(mm.vm_unmap_ram(at.wrapping_add(PAGE), 40), Err(FreeError::Interior));
        assert_eq!(mm.vm_unmap_ram(long, 40), Err(FreeError::WrongAllocator));
        assert_eq!(mm.vunmap(at), Err(FreeError::WrongAllocator), "also after all that");
    });
    mm.vm_unmap_ram(at, 40).unwrap();
    assert_eq!(mm.vm_unmap_ram(at, 40), Err(FreeError::DoubleFree));
    mm.vunmap(long).unwrap();
    free(mm, given);
}

#[test]
fn areas_of_it_are_refused_by_other_frees() {
    on_both(areas_refuse_bad_frees, areas_refuse_bad_frees);
}

fn fills_up<const PAE: bool>(mm: &PagedMm<PAE>) {
    let given = frames(mm, 32);
    let start = drained(mm);
    let mut mapped = Vec::new();
    // More than all blocks have room for: the rest are areas of their own.
    for round in 0..60 {
        let count = 1 + round * 7 % 32;
        mapped.push((mm.vm_map_ram(&given[..count]).unwrap().as_ptr(), count));
    }
    let mut taken: Vec<_> = mapped.iter().map(|&(at, count)| (at.addr(), at.addr() + count * PAGE)).collect();
    taken.sort_unstable();
    assert!(taken.windows(2).all(|two| two[0].1 < two[1].0), "a guard at least between two");
    mm.check().unwrap();
    for i in 0..mapped.len() {
        // In another order.
        let (at, count) = mapped[i * 17 % 60];
        mm.vm_unmap_ram(at, count).unwrap();
        mm.check().unwrap();
    }
    assert_eq!(drained(mm), start, "blocks go back when nothing is mapped in them");
    free(mm, given);
}

#[test]
fn full_blocks_are_followed_by_areas_and_empty_ones_go_back() {
    on_both(fills_up, fills_up);
}

/// While a mapping waits for the other CPUs' flush, its addresses are nobody's.
#[test]
fn addresses_are_not_used_again_before_their_flush() {
    let rig = highmem();
    let machine = rig.machine().clone();
    let raw = Box::into_raw(rig.mm);
    // The manager outlives the platform's hook, which asks it.
    // SAFETY: it is dropped at the end, when the hook is gone.
    let mm: &'static PagedMm<false> = unsafe { &*raw };
    let given = frames(mm, 4);
    let held = Arc::new(Mutex::new(None));
    let (waiting, others, some) = (held.clone(), machine.clone(), given.clone());
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let hooked = seen.clone();
    rig.platform.on_flush_remote(move |range| {
        if let Some(at) = waiting.lock().unwrap().take() {
            let at: usize = at;
            let next = mm.vm_map_ram(&some).unwrap().as_ptr().addr();
            assert!(next + 4 * PAGE < at || at + 4 * PAGE < next, "{next:#x} and {at:#x}");
            hooked.lock().unwrap().insert(next);
        }
        others.flush_others(range);
    });
    let first = mm.vm_map_ram(&given).unwrap().as_ptr();
    *held.lock().unwrap() = Some(first.addr());
    mm.vm_unmap_ram(first, 4).unwrap();
    // Now they are free.
    assert_eq!(mm.vm_map_ram(&given).unwrap().as_ptr(), first);
    mm.vm_unmap_ram(first, 4).unwrap();
    let left: Vec<usize> = seen.lock().unwrap().iter().copied().collect();
    assert_eq!(left.len(), 1);
    mm.vm_unmap_ram(std::ptr::without_provenance(left[0]), 4).unwrap();
    free(mm, given);
    mm.drain();
    mm.check().unwrap();
    rig.platform.on_flush_remote(|_| {});
    // SAFETY: from a box above, and the hook that used it is gone.
    drop(unsafe { Box::from_raw(raw) });
}

fn any_step_may_fail<const PAE: bool>(mm: &PagedMm<PAE>) {
    let given = frames(mm, 8);
    let mut failures = 0;
    for k in 1.. {
        let before = drained(mm);
        mm.faults().fail_nth(FaultClass::Any, k);
        let mapped = mm.vm_map_ram(&given);
        let hit = mm.faults().hit();
        mm.faults().disarm();
        failures += usize::from(mapped.is_err());
        if let Ok(at) = mapped {
            mm.vm_unmap_ram(at.as_ptr(), 8).unwrap();
        }
        assert_eq!(drained(mm), before, "step {k}");
        if !hit {
            break;
        }
    }
    // Address space, the record, the page table; without room for a block it is an area.
    assert!(failures >= 3, "{failures}");
    free(mm, given);
}

#[test]
fn any_step_of_the_first_mapping_may_fail() {
    on_both(any_step_may_fail, any_step_may_fail);
}

fn empty_blocks_give_way<const PAE: bool>(mm: &PagedMm<PAE>) {
    let given = frames(mm, 1);
    let whole = mm.vmap(&given, Prot::ReadWrite).unwrap().as_ptr();
    mm.vunmap(whole).unwrap();
    let units = || -> Vec<*mut u8> {
        std::iter::from_fn(|| mm.vmap(&given, Prot::ReadWrite).ok().map(|at| at.as_ptr())).collect()
    };
    let all = units();
    all.iter().for_each(|at| mm.vunmap(*at).unwrap());
    // A block that is kept.
    let at = mm.vm_map_ram(&given).unwrap().as_ptr();
    mm.vm_unmap_ram(at, 1).unwrap();
    let again = units();
    assert_eq!(again.len(), all.len(), "what is kept stands in nobody's way");
    // A block needs more than a piece of address space, a mapping does not.
    mm.vunmap(again[3]).unwrap();
    assert_eq!(mm.vm_map_ram(&given).unwrap().as_ptr(), again[3]);
    mm.vm_unmap_ram(again[3], 1).unwrap();
    let again: Vec<_> = again.iter().copied().enumerate().filter(|(i, _)| *i != 3).map(|(_, at)| at).collect();
    let last = mm.vmap(&given, Prot::ReadWrite).unwrap();
    assert_eq!(mm.vm_map_ram(&given), Err(MmError::Alloc(AllocError::NoAddressSpace)));
    mm.vunmap(last.as_ptr()).unwrap();
    again.iter().for_each(|at| mm.vunmap(*at).unwrap());
    free(mm, given);
}

#[test]
fn blocks_that_are_kept_give_way_to_areas() {
    on_both(empty_blocks_give_way, empty_blocks_give_way);
}

/// A flush that never ends, as when the CPU dies in it: slots that nobody flushes are nobody's, and the scan tells of
/// them.
#[test]
fn slots_that_were_forgotten_before_their_flush_are_told_and_never_used_again() {
    fn forgotten<const PAE: bool>(mm: &PagedMm<PAE>, platform: &TestPlatform) {
        let given = frames(mm, 3);
        let at = mm.vm_map_ram(&given).unwrap().as_ptr();
        mm.check().unwrap();
        platform.on_flush_remote(|_| panic!("it ends here"));
        let unmapped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| mm.vm_unmap_ram(at, 3)));
        platform.on_flush_remote(|_| ());
        assert!(unmapped.is_err());
        assert_eq!(mm.vm_unmap_ram(at, 3), Err(FreeError::DoubleFree));
        let damage = mm.check().unwrap_err();
        assert!(damage.to_string().contains("vm_map_ram wait for a flush"), "{damage}");
        mm.drain();
        let others: Vec<_> = (0..60).map(|_| mm.vm_map_ram(&given[..2]).unwrap().as_ptr()).collect();
        let apart = |other: &*mut u8| other.addr() >= at.addr() + 4 * PAGE || other.addr() + 2 * PAGE <= at.addr();
        assert!(others.iter().all(apart), "a slot that a CPU may reach was used again");
        others.into_iter().for_each(|other| mm.vm_unmap_ram(other, 2).unwrap());
    }
    let (long, pae) = (highmem(), pae());
    forgotten(&long.mm, &long.platform);
    forgotten(&pae.mm, &pae.platform);
}

#[test]
fn what_interrupts_unmap_is_bounded_for_mappings_past_a_block_too() {
    let rig = highmem();
    rig.nothing_lost(|mm| {
        let pages: Vec<_> = (0..40).map(|_| mm.alloc_page(GFP_KERNEL).unwrap()).collect();
        for _ in 0..100 {
            let at = mm.vm_map_ram(&pages).unwrap();
            rig.platform.set_context(Context::Atomic);
            mm.vm_unmap_ram(at.as_ptr(), pages.len()).unwrap();
            rig.platform.set_context(Context::Task);
            let (areas, put_off) = mm.deferred_areas();
            assert!(areas <= 32 && put_off < 1024 + pages.len(), "{areas} areas, {put_off} pages");
        }
        mm.flush_deferred();
        pages.iter().for_each(|&page| mm.free_pages_frame(page, 0).unwrap());
    });
}
