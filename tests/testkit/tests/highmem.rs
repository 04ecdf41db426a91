//! HIGHMEM on a machine with PAE: frames without a kernel address, some past 4 GiB, and the ways to reach them.

#[macro_use]
mod common;

use common::machine::on_each_cpu;
use common::steps::{Plan, exact, fail_each};
use common::{PAGE, TestMm, pae, unchanged};
use mm_core::*;
use rtmm_testkit::rig::{PAE_WINDOW, PaeMm, Rig};
use rtmm_testkit::{Access, Fault, SimConfig, SimPae};
use std::ptr::without_provenance;

type Pae = backend_mmu_x86::X86<SimPae>;

const LOWMEM_END: u64 = 0x3800_0000;
const FOUR_GIB: u64 = 1 << 32;

fn phys(pfn: Pfn) -> u64 {
    pfn.phys(12).0
}

fn free_in(mm: &PaeMm, kind: ZoneKind) -> usize {
    mm.zoneinfo().zones().iter().find(|zone| zone.kind == kind).map_or(0, |zone| zone.free)
}

both! {
    a_frame_with_an_address_is_mapped_there;
}

fn a_frame_with_an_address_is_mapped_there<B: Backend>(mm: &TestMm<B>) {
    let pfn = mm.alloc_page(GFP_HIGHUSER | Gfp::ZERO).unwrap();
    let at = mm.page_address(pfn).unwrap();
    let (one, two) = (KMap::new_in(pfn, mm).unwrap(), mm.kmap(pfn).unwrap());
    assert_eq!((one.as_ptr(), two), (at.as_ptr(), at));
    assert_eq!(one.into_raw(), at);
    for _ in 0..3 {
        mm.kunmap(at.as_ptr()).unwrap();
    }
    assert_eq!(mm.check().unwrap().kmaps, 0);
    assert_eq!(unchanged(mm, || mm.kunmap(at.as_ptr().wrapping_add(1))), Err(FreeError::Misaligned));
    let here = 0u8;
    for foreign in [(&raw const here).map_addr(|addr| addr & !4095), without_provenance(usize::MAX & !4095)] {
        assert_eq!(unchanged(mm, || mm.kunmap(foreign)), Err(FreeError::Foreign));
    }
    for nothing in [0, u32::MAX] {
        assert_eq!(unchanged(mm, || mm.kmap(Pfn(nothing))).unwrap_err(), AllocError::BadFrame);
    }
    mm.free_pages_frame(pfn, 0).unwrap();
}

/// Takes single frames until one lies past 4 GiB, which comes last; gives the others back.
fn past_four_gib(mm: &PaeMm) -> Pfn {
    let mut others = Vec::new();
    let found = loop {
        let pfn = mm.alloc_page(GFP_HIGHUSER | Gfp::NOWARN).expect("a frame past 4 GiB");
        if phys(pfn) >= FOUR_GIB {
            break pfn;
        }
        others.push(pfn);
    };
    others.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());
    found
}

#[test]
fn what_needs_an_address_never_comes_from_highmem() {
    let rig = pae();
    rig.nothing_lost(|mm| {
        let high = free_in(mm, ZoneKind::HighMem);
        let mut pages = Vec::new();
        // Until low memory is used up, whatever the flags say.
        for flags in [GFP_HIGHUSER, GFP_KERNEL, GFP_ATOMIC | Gfp::HIGHMEM, GFP_ATOMIC].into_iter().cycle() {
            let Ok(page) = mm.get_free_page(flags) else { break };
            pages.push(page);
        }
        pages.extend(std::iter::from_fn(|| mm.get_free_page(GFP_ATOMIC | Gfp::NOWARN).ok()));
        assert_eq!(mm.kmalloc(64, GFP_ATOMIC | Gfp::HIGHMEM | Gfp::NOWARN).unwrap_err(), AllocError::NoMemory);
        assert_eq!(mm.kmalloc(3 * PAGE, GFP_HIGHUSER | Gfp::NOWARN).unwrap_err(), AllocError::NoMemory);
        assert_eq!(free_in(mm, ZoneKind::HighMem), high);
        for page in pages {
            mm.free_page(page.as_ptr()).unwrap();
        }
    });
}

/// One in another, deeper than there are windows: told, not done, and nothing is left behind.
#[test]
fn frames_in_each_other_are_refused_where_windows_end() {
    fn nest(mm: &PaeMm, frames: &Frames<&PaeMm>, depth: u32) -> u32 {
        let inside = |at: *mut u8| {
            // SAFETY: one page of a frame of ours.
            unsafe { at.write(depth as u8) };
            let deepest = nest(mm, frames, depth + 1);
            // The pointer is as good as before.
            // SAFETY: as above.
            assert_eq!(unsafe { at.read() }, depth as u8);
            // The manager finds windows of its own in the deepest call.
            let zeroed = mm.alloc_pages(GFP_HIGHUSER & !Gfp::WAIT | Gfp::ZERO, 0).unwrap();
            mm.free_pages_frame(zeroed, 0).unwrap();
            deepest
        };
        frames.with_frame(depth % 16, inside).unwrap_or(depth)
    }
    pae().nothing_lost(|mm| {
        let frames = Frames::new_in(GFP_HIGHUSER, 4, mm).unwrap();
        assert_eq!(frames.address(), None, "HIGHMEM");
        for _ in 0..3 {
            assert_eq!(nest(mm, &frames, 0), 6);
        }
        assert_eq!(frames.with_frame(16, |_| ()), None);
    });
}

#[test]
fn areas_take_frames_past_four_gib_and_are_zeroed() {
    let rig = pae();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        // Every frame of HIGHMEM holds something.
        let mut dirty = Vec::new();
        while let Ok(pfn) = mm.alloc_page(GFP_HIGHUSER | Gfp::NOWARN) {
            if phys(pfn) < LOWMEM_END {
                mm.free_pages_frame(pfn, 0).unwrap();
                break;
            }
            // SAFETY: a frame of the test's; one page is written.
            unsafe { mm.backend().with_frame(pfn, |p| p.write_bytes(0xa5, PAGE)) };
            dirty.push(pfn);
        }
        // All that is to be had before low memory is.
        let zones = mm.zoneinfo();
        let high = zones.zones().iter().find(|zone| zone.kind == ZoneKind::HighMem).unwrap();
        assert_eq!(high.free, high.marks.low);
        let all = dirty.len();
        dirty.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());

        let area = mm.vzalloc(all * PAGE).unwrap().as_ptr();
        let mut past = 0;
        for page in 0..all {
            let at = area.wrapping_add(page * PAGE);
            let frame = mm.vmalloc_to_page(at).unwrap();
            assert!(phys(frame) >= LOWMEM_END, "{frame}");
            past += usize::from(phys(frame) >= FOUR_GIB);
            assert_eq!(machine.access(at.addr(), Access::Read).unwrap().phys, phys(frame));
        }
        // Half of the rig's HIGHMEM lies past 4 GiB, and its marks keep the last frames of it.
        assert_eq!(past, (all + high.marks.low) / 2 - high.marks.low);
        let mut bytes = vec![1; all * PAGE];
        machine.load(area.addr(), &mut bytes).unwrap();
        assert!(bytes == vec![0; bytes.len()]);
        assert_eq!(free_in(mm, ZoneKind::HighMem), high.marks.low);

        // What is written to the area is read through an address of the frame's own.
        let last = area.wrapping_add((all - 1) * PAGE);
        machine.store(last.addr(), b"far away").unwrap();
        let frame = mm.vmalloc_to_page(last).unwrap();
        assert!(phys(frame) >= FOUR_GIB);
        let mapped = KMap::new_in(frame, mm).unwrap();
        assert_eq!((mapped.pfn(), mapped.len()), (frame, PAGE));
        let mut bytes = [0; 8];
        machine.load(mapped.as_ptr().addr(), &mut bytes).unwrap();
        assert_eq!(&bytes, b"far away");
        drop(mapped);
        mm.vfree(area).unwrap();
    });
}

#[test]
fn two_maps_of_a_frame_are_two_addresses_of_the_same_bytes() {
    let rig = pae();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let pfn = past_four_gib(mm);
        assert_eq!(mm.page_address(pfn), None);
        let (one, two) = (mm.kmap(pfn).unwrap().as_ptr(), mm.kmap(pfn).unwrap().as_ptr());
        assert_ne!(one, two);
        machine.store(one.addr() + PAGE - 4, b"both").unwrap();
        let mut bytes = [0; 4];
        machine.load(two.addr() + PAGE - 4, &mut bytes).unwrap();
        assert_eq!(&bytes, b"both");
        assert!(matches!(machine.fetch(one.addr()), Err(Fault::Page { present: true, fetch: true, .. })));
        // The first to come is the first to go: no order is asked for.
        mm.kunmap(one).unwrap();
        machine.load(two.addr() + PAGE - 4, &mut bytes).unwrap();
        mm.kunmap(two).unwrap();
        mm.free_pages_frame(pfn, 0).unwrap();
    });
}

#[test]
fn a_slot_is_flushed_before_it_is_used_again() {
    let rig = pae();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let frames = [mm.alloc_page(GFP_HIGHUSER).unwrap(), past_four_gib(mm)];
        let old = mm.kmap(frames[0]).unwrap().as_ptr();
        // Every CPU knows where it leads.
        on_each_cpu(&machine, |_| assert_eq!(machine.access(old.addr(), Access::Write).unwrap().phys, phys(frames[0])));
        mm.kunmap(old).unwrap();
        on_each_cpu(&machine, |_| {
            assert!(matches!(machine.access(old.addr(), Access::Read), Err(Fault::Page { present: false, .. })));
        });
        let new = mm.kmap(frames[1]).unwrap().as_ptr();
        assert_eq!(new, old, "the lowest slot");
        on_each_cpu(&machine, |_| assert_eq!(machine.access(new.addr(), Access::Write).unwrap().phys, phys(frames[1])));
        mm.kunmap(new).unwrap();
        frames.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());
    });
}

#[test]
fn slots_run_out_with_an_error_and_come_back() {
    let rig = pae();
    rig.nothing_lost(|mm| {
        let frames = mm.alloc_pages(GFP_HIGHUSER, 2).unwrap();
        let mut slots = Vec::new();
        let error = loop {
            match mm.kmap(Pfn(frames.0 + slots.len() as u32 % 4)) {
                Ok(at) => slots.push(at.as_ptr()),
                Err(error) => break error,
            }
        };
        assert_eq!((error, slots.len()), (AllocError::NoAddressSpace, 504));
        assert_eq!(mm.check().unwrap().kmaps, 504);
        assert_eq!(unchanged(mm, || mm.kmap(frames)).unwrap_err(), AllocError::NoAddressSpace);
        // A frame with an address needs no slot, and the windows of `with_frame` are others.
        let low = mm.alloc_page(GFP_KERNEL).unwrap();
        assert_eq!(mm.kmap(low).unwrap(), mm.page_address(low).unwrap());
        mm.free_pages_frame(low, 0).unwrap();
        // SAFETY: a frame of the test's; one byte is written.
        unsafe { mm.backend().with_frame(frames, |p| p.write(7)) };
        let area = mm.vzalloc(4 * PAGE).unwrap().as_ptr();
        mm.vfree(area).unwrap();
        // Any one of them makes room again.
        let given = slots.swap_remove(300);
        mm.kunmap(given).unwrap();
        assert_eq!(mm.kmap(frames).unwrap().as_ptr(), given);
        slots.push(given);
        slots.into_iter().for_each(|at| mm.kunmap(at).unwrap());
        mm.free_pages_frame(frames, 2).unwrap();
    });
}

#[test]
fn wrong_kunmaps_are_refused_and_change_nothing() {
    let rig = pae();
    rig.nothing_lost(|mm| {
        let refused = |addr: *const u8| unchanged(mm, || mm.kunmap(addr)).unwrap_err();
        let pfn = mm.alloc_page(GFP_HIGHUSER).unwrap();
        let at = mm.kmap(pfn).unwrap().as_ptr();
        let next = at.wrapping_add(PAGE);
        assert_eq!(refused(next), FreeError::DoubleFree, "a slot with nothing in it");
        for inside in [1, 8, PAGE - 1] {
            assert_eq!(refused(at.wrapping_add(inside)), FreeError::Misaligned);
        }
        mm.kunmap(at).unwrap();
        assert_eq!(refused(at), FreeError::DoubleFree);

        let area = mm.vmalloc(PAGE).unwrap().as_ptr();
        for of_area in [area, area.wrapping_sub(PAGE), without_provenance(PAE_WINDOW.start)] {
            assert_eq!(refused(of_area), FreeError::WrongAllocator);
        }
        mm.vfree(area).unwrap();
        // Beside the windows, the local ones among them, user space, and the ends of the address space.
        let here = 0u8;
        let local = 0xffc0_0000;
        for foreign in [local, local + 7 * PAGE, local - PAGE, 0xffe0_0000, 0x1000, 0x4000_0000, usize::MAX & !4095] {
            assert_eq!(refused(without_provenance(foreign)), FreeError::Foreign, "{foreign:#x}");
        }
        assert_eq!(refused(&raw const here), FreeError::Foreign);
        // The address a frame has anyway is fine, and null, and any number of times.
        let page = mm.get_free_page(GFP_KERNEL).unwrap().as_ptr();
        for _ in 0..2 {
            assert_eq!(mm.kunmap(page), Ok(()));
            assert_eq!(mm.kunmap(std::ptr::null()), Ok(()));
        }
        assert_eq!(refused(page.wrapping_add(1)), FreeError::Misaligned);
        mm.free_page(page).unwrap();
        mm.free_pages_frame(pfn, 0).unwrap();
    });
}

#[test]
fn only_frames_of_ram_are_mapped() {
    let rig = pae();
    rig.nothing_lost(|mm| {
        let holes = [0, LOWMEM_END - 0x1000, 0xf000_0000, FOUR_GIB, 0x1_1fff_f000, 0xf_ffff_f000];
        for hole in holes.map(|phys| (phys >> 12) as u32).into_iter().chain([u32::MAX - 1, u32::MAX]) {
            assert_eq!(unchanged(mm, || mm.kmap(Pfn(hole))).unwrap_err(), AllocError::BadFrame, "{hole:#x}");
        }
    });
    let new = PaeMm::new(
        rtmm_testkit::TestPlatform::new(),
        Pae::new(SimPae::new(SimConfig::pae(&[(0x10_0000, 0x20_0000)], LOWMEM_END))),
    );
    assert_eq!(new.kmap(Pfn(0x100)).unwrap_err(), AllocError::NotReady);
    assert_eq!(new.kunmap(without_provenance(0xffc0_8000)), Err(FreeError::NotReady));
}

#[test]
fn a_wrong_drop_goes_to_the_platform() {
    let rig = pae();
    let mm = &*rig.mm;
    let pfn = mm.alloc_page(GFP_HIGHUSER).unwrap();
    let mapped = KMap::new_in(pfn, mm).unwrap();
    mm.kunmap(mapped.as_ptr()).unwrap();
    let addr = mapped.as_ptr().addr();
    drop(mapped);
    let bugs = rig.platform.take_bugs();
    assert!(matches!(bugs[..], [Bug::BadFree { addr: at, error: FreeError::DoubleFree }] if at == addr), "{bugs:?}");
    mm.free_pages_frame(pfn, 0).unwrap();
}

#[test]
fn calls_with_a_frame_stand_in_each_other_and_leave_nothing() {
    let rig = pae();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let (from, to) = (past_four_gib(mm), mm.alloc_page(GFP_HIGHUSER).unwrap());
        // SAFETY: frames of the test's; a page of each is used while both closures run.
        unsafe {
            mm.backend().with_frame(from, |from| {
                from.write_bytes(0x3c, PAGE);
                mm.backend().with_frame(to, |to| to.copy_from_nonoverlapping(from, PAGE));
            });
            let copied = mm.backend().with_frame(to, |to| std::slice::from_raw_parts(to, PAGE).to_vec());
            assert!(copied == vec![0x3c; PAGE]);
        }
        on_each_cpu(&machine, |_| {
            for slot in 0..8 {
                let at = 0xffc0_0000 + slot * PAGE;
                assert!(matches!(machine.access(at, Access::Read), Err(Fault::Page { present: false, .. })));
            }
        });
        mm.free_pages_frame(from, 0).unwrap();
        mm.free_pages_frame(to, 0).unwrap();
    });
}

/// The slots of the root, which a CPU keeps from the moment it loads it.
#[test]
fn the_root_and_the_directories_are_made_at_boot() {
    let rig = pae();
    let machine = rig.machine().clone();
    let root = |mm: &PaeMm| {
        let at = mm.backend().kernel_root().phys(12).0;
        let entries = machine.ram().ptr(at).unwrap().cast::<u64>();
        // SAFETY: the root is RAM of the machine.
        [0, 1, 2, 3].map(|slot| unsafe { entries.add(slot).read() })
    };
    rig.nothing_lost(|mm| {
        let before = root(mm);
        // No protection bits, nothing for users, the kernel's gigabyte below 4 GiB.
        assert_eq!((before[..3].to_vec(), before[3] & 0xfff & !(7 << 9), before[3] >> 32), (vec![0; 3], 1, 0));
        let areas: Vec<_> = std::iter::from_fn(|| mm.vmalloc(60 * PAGE).ok()).collect();
        assert!(!areas.is_empty());
        assert_eq!(root(mm), before);
        areas.into_iter().for_each(|area| mm.vfree(area.as_ptr()).unwrap());
        assert_eq!(root(mm), before);
    });
}

fn map_and_unmap(plan: &Plan<'_, Pae>) -> Result<(), MmError> {
    let mm: &TestMm<Pae> = plan.mm;
    let pfn = mm.alloc_page(GFP_HIGHUSER).map_err(MmError::from)?;
    let result = exact(plan, || mm.kmap(pfn)).map(|at| mm.kunmap(at.as_ptr()).unwrap());
    mm.free_pages_frame(pfn, 0).unwrap();
    result
}

fn zeroed_area(plan: &Plan<'_, Pae>) -> Result<(), MmError> {
    let area = plan.during(|| plan.mm.vzalloc(40 * PAGE))?;
    plan.mm.vfree(area.as_ptr()).unwrap();
    Ok(())
}

#[test]
fn every_step_of_highmem_may_fail() {
    let rig: Rig<Pae> = pae();
    assert_eq!(fail_each(&rig.mm, "kmap", map_and_unmap), 1);
    fail_each(&rig.mm, "vzalloc", zeroed_area);
}
