//! Guards and protections by regions: each is where its area is, for as long as it is.

mod common;

use backend_nommu::{Allows, Arena};
use common::steps::fail_each;
use common::{PAGE, TestMm, drained, unchanged};
use mm_core::*;
use rtmm_testkit::SimRegions;
use rtmm_testkit::rig::Rig;
use std::ptr::NonNull;

type Regions = Arena<10, SimRegions>;
type Guarded = Rig<Regions>;

const ASKED: AreaOptions = AreaOptions::new().guards(AreaGuards::Asked);
const KEPT: AreaOptions = AreaOptions::new().guards(AreaGuards::Kept);

fn rig(slots: usize) -> (Guarded, SimRegions) {
    let regions = SimRegions::new(slots);
    (Rig::guarded(1 << 30, 1 << 20, regions.clone()), regions)
}

/// The regions of an area's guards.
fn around(area: NonNull<u8>, pages: usize) -> [(usize, usize, Allows); 2] {
    let addr = area.addr().get();
    [(addr - PAGE, PAGE, Allows::Nothing), (addr + pages * PAGE, PAGE, Allows::Nothing)]
}

/// Runs a call that is refused after it took a record, of which a page may lie about until the next drain.
fn refused<B: Backend>(mm: &TestMm<B>, call: impl FnOnce()) {
    let before = drained(mm);
    call();
    assert_eq!(drained(mm), before);
}

fn free(mm: &TestMm<Regions>, area: NonNull<u8>) {
    mm.vfree(area.as_ptr()).unwrap();
}

#[test]
fn guards_stand_beside_the_area_and_go_with_it() {
    let (rig, regions) = rig(8);
    rig.nothing_lost(|mm| {
        for (pages, size) in [(1, 1), (1, PAGE), (3, 2 * PAGE + 1), (16, 16 * PAGE)] {
            let free_before = drained(mm);
            let area = mm.vmalloc_with(size, &ASKED).unwrap();
            assert_eq!(regions.all(), around(area, pages));
            mm.check().unwrap();
            free(mm, area);
            assert_eq!(regions.all(), []);
            assert_eq!(drained(mm), free_before);
        }
    });
}

#[test]
fn each_free_clears_the_regions_of_its_area_and_no_others() {
    let (rig, regions) = rig(5);
    rig.nothing_lost(|mm| {
        let plain = mm.vmalloc(4 * PAGE).unwrap();
        let other = mm.vmalloc(PAGE).unwrap();
        let (first, last) = (mm.vmalloc_with(PAGE, &ASKED).unwrap(), mm.vmalloc_with(PAGE, &ASKED).unwrap());
        mm.set_memory(plain.as_ptr(), 4, Prot::Read).unwrap();
        // No region is left, which is refused and changes nothing.
        assert_eq!(mm.vmalloc_with(PAGE, &ASKED), Err(AllocError::NoGuard));
        free(mm, other);
        assert_eq!(regions.all().len(), 5);
        free(mm, first);
        assert_eq!(regions.all().len(), 3);
        // Twice `ReadWrite`: the second gives nothing back.
        mm.set_memory(plain.as_ptr(), 4, Prot::ReadWrite).unwrap();
        mm.set_memory(plain.as_ptr(), 4, Prot::ReadWrite).unwrap();
        assert_eq!(regions.all(), around(last, 1));
        free(mm, plain);
        assert_eq!(regions.all(), around(last, 1));
        free(mm, last);
        assert_eq!(regions.all(), []);
    });
}

#[test]
fn the_pages_of_guards_are_taken_and_given_back() {
    let (rig, _) = rig(8);
    rig.nothing_lost(|mm| {
        // The first takes a page of records.
        let first = mm.vmalloc(PAGE).unwrap();
        let before = mm.free_page_count();
        let area = mm.vmalloc_with(3 * PAGE, &ASKED).unwrap();
        assert_eq!(before - mm.free_page_count(), 5);
        free(mm, area);
        assert_eq!(mm.free_page_count(), before);
        free(mm, first);
    });
}

#[test]
fn any_alignment_is_honoured_and_costs_no_more_than_the_guards() {
    let (rig, regions) = rig(8);
    rig.nothing_lost(|mm| {
        let first = mm.vmalloc(PAGE).unwrap();
        for shift in 0..=5 {
            let before = mm.free_page_count();
            let area = mm.vmalloc_with(3 * PAGE, &ASKED.align(PAGE << shift)).unwrap();
            assert!(area.addr().get().is_multiple_of(PAGE << shift));
            assert_eq!(before - mm.free_page_count(), 5);
            assert_eq!(regions.all(), around(area, 3));
            mm.check().unwrap();
            free(mm, area);
        }
        free(mm, first);
    });
}

#[test]
fn used_up_regions_are_an_error_that_changes_nothing() {
    for slots in 0..=7 {
        let (rig, regions) = rig(slots);
        rig.nothing_lost(|mm| {
            let areas: Vec<_> = (0..slots / 2).map(|_| mm.vmalloc_with(PAGE, &ASKED).unwrap()).collect();
            refused(mm, || assert_eq!(mm.vmalloc_with(PAGE, &ASKED), Err(AllocError::NoGuard)));
            assert_eq!(regions.all().len(), slots / 2 * 2);
            // What needs no region is had.
            free(mm, mm.vmalloc(PAGE).unwrap());
            // One too few is none: the odd one is kept for a protection.
            if slots % 2 == 1 {
                let mut area = VmArea::new_in(2 * PAGE, mm).unwrap();
                area.protect(Prot::Read).unwrap();
                assert_eq!(regions.all().len(), slots);
                let mut other = VmArea::new_in(2 * PAGE, mm).unwrap();
                assert_eq!(other.protect(Prot::Read), Err(MmError::NoGuard));
                area.protect(Prot::ReadWrite).unwrap();
                other.protect(Prot::Read).unwrap();
            }
            for &area in areas.iter().rev() {
                free(mm, area);
            }
            assert_eq!(regions.all(), []);
        });
    }
}

#[test]
fn each_step_of_a_guarded_area_fails_alone() {
    let (rig, regions) = rig(4);
    rig.nothing_lost(|mm| {
        let steps = fail_each(mm, "a guarded area", |plan| {
            let area = plan.during(|| plan.mm.vmalloc_with(3 * PAGE, &ASKED))?;
            Ok(plan.mm.vfree(area.as_ptr())?)
        });
        // The record, the regions, the pages.
        assert_eq!(steps, 3);
        fail_each(mm, "an aligned guarded area", |plan| {
            let area = plan.during(|| plan.mm.vmalloc_with(3 * PAGE, &ASKED.align(4 * PAGE)))?;
            Ok(plan.mm.vfree(area.as_ptr())?)
        });
        fail_each(mm, "a read-only area", |plan| {
            let area = plan.during(|| plan.mm.vmalloc_with(4 * PAGE, &AreaOptions::new().prot(Prot::Read)))?;
            Ok(plan.mm.vfree(area.as_ptr())?)
        });
        fail_each(mm, "a protection", |plan| {
            let mut area = VmArea::new_in(4 * PAGE, plan.mm)?;
            plan.during(|| area.protect(Prot::ReadExecute))
        });
        assert_eq!(regions.all(), []);
    });
}

#[test]
fn memory_that_lacks_leaves_the_regions_free() {
    let (rig, regions) = rig(2);
    rig.nothing_lost(|mm| {
        let all = mm.free_page_count();
        assert!(mm.vmalloc_with((all - 1) * PAGE, &ASKED).is_err());
        assert_eq!(mm.vmalloc_with(1 << 21, &ASKED), Err(AllocError::TooBig));
        assert_eq!(regions.all(), []);
        let area = mm.vmalloc_with(PAGE, &ASKED).unwrap();
        assert_eq!(regions.all().len(), 2);
        free(mm, area);
    });
}

#[test]
fn a_batch_keeps_the_guards_until_it_is_flushed() {
    let (rig, regions) = rig(2);
    rig.nothing_lost(|mm| {
        let area = mm.vmalloc_with(PAGE, &ASKED).unwrap();
        let mut batch = mm.free_batch();
        batch.vfree(area.as_ptr()).unwrap();
        assert_eq!(regions.all().len(), 2);
        assert_eq!(mm.vmalloc_with(PAGE, &ASKED), Err(AllocError::NoGuard));
        batch.flush();
        assert_eq!(regions.all(), []);
    });
}

#[test]
fn addresses_of_guards_are_nobodys_to_free_read_or_translate() {
    let (rig, _) = rig(8);
    rig.nothing_lost(|mm| {
        let area = mm.vmalloc_with(2 * PAGE, &ASKED).unwrap();
        let addr = area.addr().get();
        let at = |addr: usize| std::ptr::without_provenance::<u8>(addr);
        for (place, offset) in [(Place::GuardBefore, -1), (Place::GuardAfter, 2)] {
            let page = addr.wrapping_add_signed(offset * PAGE as isize);
            unchanged(mm, || assert_eq!(mm.vfree(at(page)), Err(FreeError::Interior)));
            unchanged(mm, || assert_eq!(mm.vfree(at(page + 1)), Err(FreeError::Misaligned)));
            assert_eq!(mm.vmalloc_to_page(at(page)), None);
            assert!(!mm.is_vmalloc_addr(at(page)));
            let hit = mm.find_area(page + 5).unwrap();
            assert_eq!((hit.place, hit.area.addr), (place, addr));
            assert!(hit.to_string().contains("regions.rs"), "{hit}");
            // SAFETY: nobody writes there.
            assert_eq!(unsafe { mm.vread(&mut [0; 16], at(page + 8)) }, 0);
        }
        assert_eq!(mm.find_area(addr + PAGE).unwrap().place, Place::Inside);
        let info: Vec<_> = mm.vmallocinfo().areas().collect();
        assert_eq!((info.len(), info[0].addr, info[0].pages), (1, addr, 2));
        free(mm, area);
        unchanged(mm, || assert!(mm.vfree(area.as_ptr()).is_err()));
    });
}

#[test]
fn listings_and_reads_go_through_areas_with_and_without_guards() {
    let (rig, _) = rig(8);
    rig.nothing_lost(|mm| {
        let areas: Vec<_> = (0..6)
            .map(|i| if i % 2 == 0 { mm.vmalloc_with(PAGE, &ASKED).unwrap() } else { mm.vmalloc(PAGE).unwrap() })
            .collect();
        let mut addresses: Vec<_> = areas.iter().map(|area| area.addr().get()).collect();
        addresses.sort_unstable();
        let listed: Vec<_> = mm.vmallocinfo().areas().map(|area| area.addr).collect();
        assert_eq!(listed, addresses);
        for (i, area) in areas.iter().enumerate() {
            // SAFETY: a page of ours.
            unsafe { area.write_bytes(1 + i as u8, PAGE) };
        }
        let (first, last) = (addresses[0] - 2 * PAGE, addresses[5] + 3 * PAGE);
        let mut seen = vec![0; last - first];
        // SAFETY: nobody writes there.
        let read = unsafe { mm.vread(&mut seen, std::ptr::without_provenance(first)) };
        assert_eq!(read, addresses[5] + PAGE - first);
        for (i, area) in areas.iter().enumerate() {
            let page = &seen[area.addr().get() - first..][..PAGE];
            assert!(page.iter().all(|byte| *byte == 1 + i as u8));
        }
        assert_eq!(seen.iter().filter(|byte| **byte != 0).count(), 6 * PAGE);
        areas.iter().for_each(|area| free(mm, *area));
    });
}

#[test]
fn an_area_that_moves_keeps_its_guards() {
    let (rig, regions) = rig(4);
    rig.nothing_lost(|mm| {
        let area = mm.vmalloc_with(PAGE, &ASKED).unwrap();
        // SAFETY: ours.
        unsafe { area.write_bytes(7, PAGE) };
        // SAFETY: nobody else uses it.
        let area = unsafe { mm.vrealloc(area.as_ptr(), 3 * PAGE, GFP_KERNEL) }.unwrap().unwrap();
        assert_eq!(regions.all(), around(area, 3));
        // SAFETY: three pages of ours, one of which was copied.
        assert_eq!(unsafe { std::slice::from_raw_parts(area.as_ptr(), PAGE) }, [7; PAGE]);
        free(mm, area);
    });
}

#[test]
fn a_region_protects_a_whole_area_of_a_power_of_two() {
    let (rig, regions) = rig(3);
    rig.nothing_lost(|mm| {
        let mut area = VmArea::new_in(4 * PAGE, mm).unwrap();
        let addr = area.as_ptr().addr();
        for (prot, allows) in [(Prot::Read, Allows::Reads), (Prot::ReadExecute, Allows::Fetches)] {
            area.protect(prot).unwrap();
            assert_eq!(regions.all(), [(addr, 4 * PAGE, allows)]);
        }
        // What writes from outside passes it, and leaves it as it was.
        // SAFETY: ours.
        assert_eq!(unsafe { mm.vwrite(&[3; 300], area.as_ptr()) }, 300);
        assert_eq!(regions.all(), [(addr, 4 * PAGE, Allows::Fetches)]);
        // SAFETY: ours, and read only.
        assert_eq!(unsafe { std::slice::from_raw_parts(area.as_ptr(), 300) }, [3; 300]);
        area.protect(Prot::ReadWrite).unwrap();
        area.protect(Prot::ReadWrite).unwrap();
        assert_eq!(regions.all(), []);
        // With guards it has to be asked to be aligned.
        let odd = mm.vmalloc_with(4 * PAGE, &ASKED.align(4 * PAGE)).unwrap();
        mm.set_memory(odd.as_ptr(), 4, Prot::Read).unwrap();
        assert_eq!(regions.all().len(), 3);
        free(mm, odd);
        assert_eq!(regions.all(), []);
    });
}

#[test]
fn what_a_region_does_not_cover_exactly_is_not_protected() {
    let (rig, regions) = rig(8);
    rig.nothing_lost(|mm| {
        let (odd, even) = (mm.vmalloc(3 * PAGE).unwrap(), mm.vmalloc(4 * PAGE).unwrap());
        unchanged(mm, || {
            assert_eq!(mm.set_memory(odd.as_ptr(), 3, Prot::Read), Err(MmError::Unsupported));
            assert_eq!(mm.set_memory(even.as_ptr(), 2, Prot::Read), Err(MmError::Unsupported));
            assert_eq!(mm.set_memory(even.as_ptr(), 8, Prot::Read), Err(MmError::NotMapped));
            assert_eq!(mm.set_memory(even.as_ptr().wrapping_add(PAGE), 2, Prot::Read), Err(MmError::Unsupported));
            assert_eq!(mm.set_memory(even.as_ptr().wrapping_add(PAGE), 4, Prot::Read), Err(MmError::NotMapped));
            assert_eq!(mm.vmalloc_with(3 * PAGE, &AreaOptions::new().prot(Prot::Read)), Err(AllocError::Unsupported));
        });
        assert_eq!(regions.all(), []);
        free(mm, odd);
        free(mm, even);
    });
}

#[test]
fn regions_that_stay_are_for_areas_that_stay() {
    let regions = SimRegions::until_reset(4);
    let rig: Guarded = Rig::guarded(1 << 30, 1 << 20, regions.clone());
    let mm = &*rig.mm;
    refused(mm, || assert_eq!(mm.vmalloc_with(PAGE, &ASKED), Err(AllocError::NoGuard)));
    let area = mm.vmalloc_with(2 * PAGE, &KEPT).unwrap();
    assert_eq!(regions.all(), around(area, 2));
    unchanged(mm, || {
        assert_eq!(mm.vfree(area.as_ptr()), Err(FreeError::Reserved));
        assert_eq!(mm.free_batch().vfree(area.as_ptr()), Err(FreeError::Reserved));
        assert_eq!(mm.set_memory(area.as_ptr(), 2, Prot::Read), Err(MmError::Unsupported));
    });
    mm.vmalloc_with(PAGE, &KEPT).unwrap();
    refused(mm, || assert_eq!(mm.vmalloc_with(PAGE, &KEPT), Err(AllocError::NoGuard)));
    assert_eq!(regions.all().len(), 4);
}

#[test]
fn what_cannot_be_freed_is_not_moved_nor_made_to_be_protected() {
    let regions = SimRegions::until_reset(4);
    let rig: Guarded = Rig::guarded(1 << 30, 1 << 20, regions.clone());
    let mm = &*rig.mm;
    let area = mm.vmalloc_with(2 * PAGE, &KEPT).unwrap();
    unchanged(mm, || {
        for size in [0, 1, PAGE, 3 * PAGE] {
            // SAFETY: ours.
            assert_eq!(unsafe { mm.vrealloc(area.as_ptr(), size, GFP_KERNEL) }, Err(AllocError::Unsupported));
        }
        for prot in [Prot::Read, Prot::ReadExecute] {
            assert_eq!(mm.vmalloc_with(2 * PAGE, &KEPT.prot(prot)), Err(AllocError::Unsupported));
        }
    });
    assert_eq!(regions.all(), around(area, 2));
    // Within its pages it may grow and shrink.
    // SAFETY: ours.
    assert_eq!(unsafe { mm.vrealloc(area.as_ptr(), PAGE + 1, GFP_KERNEL) }, Ok(Some(area)));
    // An area without guards comes and goes as ever.
    let plain = mm.vmalloc(PAGE).unwrap();
    // SAFETY: ours.
    let moved = unsafe { mm.vrealloc(plain.as_ptr(), 3 * PAGE, GFP_KERNEL) }.unwrap().unwrap();
    free(mm, moved);
}

#[test]
fn regions_that_can_be_cleared_let_a_kept_area_go() {
    let (rig, regions) = rig(2);
    rig.nothing_lost(|mm| {
        let area = mm.vmalloc_with(PAGE, &KEPT).unwrap();
        assert_eq!(regions.all(), around(area, 1));
        free(mm, area);
    });
}

#[test]
fn a_machine_without_regions_refuses_guards() {
    common::nommu().nothing_lost(|mm| {
        for options in [ASKED, KEPT] {
            refused(mm, || assert_eq!(mm.vmalloc_with(PAGE, &options), Err(AllocError::NoGuard)));
        }
    });
}

#[test]
fn page_tables_have_guards_whether_asked_or_not() {
    common::mmu().nothing_lost(|mm| {
        for options in [ASKED, KEPT] {
            let area = mm.vmalloc_with(PAGE, &options).unwrap();
            assert!(mm.find_area(area.addr().get() + PAGE).is_some());
            mm.vfree(area.as_ptr()).unwrap();
        }
    });
}
