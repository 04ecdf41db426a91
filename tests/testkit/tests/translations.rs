//! What the CPUs of the simulated machine can reach: areas while they live, and nothing of them after.

mod common;

use backend_mmu_x86::{Machine, X86, kernel};
use common::machine::{is_absent, on_each_cpu};
use common::{PAGE, highmem};
use mm_core::*;
use rtmm_testkit::rig::{MmuMm, Rig, WINDOW};
use rtmm_testkit::{Access, Fault, SimConfig, SimMachine};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Fetch];

fn frames(mm: &MmuMm, at: *const u8, pages: usize) -> BTreeSet<u32> {
    let frames: BTreeSet<_> = (0..pages)
        .map(|page| mm.vmalloc_to_page(at.wrapping_add(page * PAGE)).expect("a page of the area").0)
        .collect();
    assert_eq!(frames.len(), pages, "a frame is mapped twice");
    frames
}

fn two_cpus() -> Rig<X86<SimMachine>> {
    let mut config = SimConfig::new(&[(0x10_0000, 0x10_0000 + common::RAM)]);
    config.cpus = 2;
    Rig::mmu_on(config)
}

#[test]
fn after_vfree_no_cpu_reaches_the_frames() {
    for rig in [two_cpus(), highmem()] {
        let machine = rig.machine().clone();
        rig.nothing_lost(|mm| {
            for pages in if cfg!(miri) { [1usize, 2, 5] } else { [16, 64, 100] } {
                let at = mm.vmalloc(pages * PAGE).unwrap().as_ptr();
                let before = frames(mm, at, pages);
                // Every CPU knows every page.
                on_each_cpu(&machine, |_| {
                    for page in 0..pages {
                        machine.store(at.addr() + page * PAGE, &[page as u8]).unwrap();
                    }
                });
                machine.run_on(pages % 2);
                mm.vfree(at).unwrap();
                on_each_cpu(&machine, |_| {
                    for (page, access) in (0..pages).flat_map(|page| ACCESSES.map(|access| (page, access))) {
                        is_absent(&machine, at.addr() + page * PAGE, access);
                    }
                });
                // The addresses and the frames are used again, and lead where the new area says.
                let again = mm.vmalloc(pages * PAGE).unwrap().as_ptr();
                assert_eq!(again, at);
                assert!(!frames(mm, again, pages).is_disjoint(&before));
                on_each_cpu(&machine, |cpu| {
                    for page in 0..pages {
                        let here = again.addr() + page * PAGE;
                        let frame = mm.vmalloc_to_page(again.wrapping_add(page * PAGE)).unwrap();
                        assert_eq!(machine.access(here, Access::Read).unwrap().phys, u64::from(frame.0) << 12, "{cpu}");
                    }
                });
                mm.vfree(again).unwrap();
            }
        });
    }
}

#[test]
fn after_iounmap_no_cpu_reaches_the_device() {
    let rig = two_cpus();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        for pages in [1usize, 40] {
            let at = mm.ioremap(PhysAddr(0xfee0_0000), pages * PAGE).unwrap().as_ptr().addr();
            on_each_cpu(&machine, |_| {
                for page in 0..pages {
                    let seen = machine.access(at + page * PAGE, Access::Write).unwrap();
                    assert_eq!(seen.phys, 0xfee0_0000 + (page * PAGE) as u64);
                    assert!(machine.fetch(at + page * PAGE).is_err());
                }
            });
            mm.iounmap(std::ptr::without_provenance(at)).unwrap();
            on_each_cpu(&machine, |_| (0..pages).for_each(|page| is_absent(&machine, at + page * PAGE, Access::Read)));
        }
    });
}

/// A shootdown that does nothing leaves what the tests above look for: they would see it.
#[test]
fn a_missing_shootdown_is_seen() {
    let rig = two_cpus();
    rig.platform.on_flush_remote(|_| {});
    let machine = rig.machine();
    let at = rig.mm.vmalloc(PAGE).unwrap().as_ptr();
    let frame = rig.mm.vmalloc_to_page(at).unwrap();
    on_each_cpu(machine, |_| assert!(machine.access(at.addr(), Access::Write).is_ok()));
    rig.mm.vfree(at).unwrap();
    is_absent(machine, at.addr(), Access::Read);
    machine.run_on(1);
    assert_eq!(machine.access(at.addr(), Access::Write).unwrap().phys, u64::from(frame.0) << 12);
}

/// A CPU that flushes nothing leaves what the tests of one CPU look for: they would see it.
#[test]
fn a_missing_flush_is_seen() {
    for pages in [1, 40] {
        let rig = Rig::mmu(&[(0x10_0000, 0x10_0000 + common::RAM)]);
        let machine = rig.machine();
        machine.break_flushes();
        let at = rig.mm.vmalloc(pages * PAGE).unwrap().as_ptr();
        let frame = rig.mm.vmalloc_to_page(at).unwrap();
        assert!(machine.access(at.addr(), Access::Write).is_ok());
        rig.mm.vfree(at).unwrap();
        assert_eq!(machine.access(at.addr(), Access::Write).unwrap().phys, u64::from(frame.0) << 12);
        // Somebody has the frame now, and this CPU still writes to it.
        let mut next = std::iter::from_fn(|| rig.mm.alloc_page(GFP_KERNEL).ok());
        assert!(next.any(|pfn| pfn == frame));
    }
}

#[test]
fn nothing_is_given_back_before_the_other_cpus_have_flushed() {
    let rig = two_cpus();
    let machine = rig.machine().clone();
    // The manager outlives the platform's hook, which asks it.
    let raw = Box::into_raw(rig.mm);
    // SAFETY: it is dropped at the end, when the hook is gone.
    let mm: &'static MmuMm = unsafe { &*raw };
    let held = Arc::new(Mutex::new((BTreeSet::new(), 0..0)));
    let asked = Arc::new(AtomicUsize::new(0));
    let (area, count, others) = (held.clone(), asked.clone(), machine.clone());
    rig.platform.on_flush_remote(move |range| {
        let (frames, addresses) = &*area.lock().unwrap();
        if !frames.is_empty() {
            count.fetch_add(1, Ordering::Relaxed);
            assert!(range.start <= addresses.start && addresses.end <= range.end);
            // All the memory and address space that can be had now is other memory and other addresses.
            let mut taken = Vec::new();
            while let Ok(page) = mm.get_free_page(GFP_ATOMIC) {
                assert!(!frames.contains(&(mm.backend().direct_frame(page.as_ptr().addr()) as u32)));
                taken.push(page);
            }
            for page in taken {
                mm.free_page(page.as_ptr()).unwrap();
            }
            let mut devices = Vec::new();
            while let Ok(device) = mm.ioremap(PhysAddr(0xf000_0000), 20 * PAGE) {
                let start = device.as_ptr().addr();
                assert!(start + 21 * PAGE <= addresses.start || addresses.end < start, "{start:#x}");
                devices.push(device);
                if cfg!(miri) && devices.len() == 4 {
                    break;
                }
            }
            others.flush_others(range);
            drop(devices);
        } else {
            others.flush_others(range);
        }
    });
    let free = mm.free_page_count();
    for pages in [1usize, 20, 50] {
        let at = mm.vmalloc(pages * PAGE).unwrap().as_ptr();
        *held.lock().unwrap() = (frames(mm, at, pages), at.addr()..at.addr() + pages * PAGE);
        mm.vfree(at).unwrap();
        held.lock().unwrap().0.clear();
        // What the hook mapped.
        let left: Vec<_> = mm.vmallocinfo().areas().map(|area| area.addr).collect();
        left.iter().for_each(|at| mm.iounmap(std::ptr::without_provenance(*at)).unwrap());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    mm.drain();
    mm.check().unwrap();
    assert_eq!(mm.free_page_count(), free);
    // Breaks the circle of hook, platform and manager.
    rig.platform.on_flush_remote(|_| {});
    // SAFETY: from a box above, and the hook that used it is gone.
    drop(unsafe { Box::from_raw(raw) });
}

#[test]
fn guards_fault_and_are_named() {
    let rig = two_cpus();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        // Areas of all lengths within a unit, so that guards lie between neighbours and behind.
        let lengths = if cfg!(miri) { vec![1, 2, 14, 15, 16] } else { (1..=18).collect() };
        let areas: Vec<_> =
            lengths.into_iter().map(|pages| (mm.vmalloc(pages * PAGE).unwrap().as_ptr(), pages)).collect();
        for &(at, pages) in &areas {
            let end = at.addr() + pages * PAGE;
            for (guard, access) in [at.addr() - PAGE, at.addr() - 1, end, end + PAGE - 1]
                .into_iter()
                .flat_map(|guard| ACCESSES.map(|access| (guard, access)))
            {
                is_absent(&machine, guard, access);
                let hit = mm.find_area(guard).expect("a guard belongs to somebody");
                let named = [Some(hit.area), hit.behind].into_iter().flatten().any(|area| area.addr == at.addr());
                assert!(named && hit.place != Place::Inside, "{guard:#x} is said to be {hit}");
            }
            assert!(
                matches!(mm.find_area(end - 1), Some(hit) if hit.place == Place::Inside && hit.area.addr == at.addr())
            );
        }
        // An access that begins inside and ends outside stores nothing outside.
        let (at, pages) = areas[4];
        assert!(machine.store(at.addr() + pages * PAGE - 4, &[1; 8]).is_err());
        for (at, _) in areas {
            mm.vfree(at).unwrap();
            let hit = mm.find_area(at.addr()).map(|hit| hit.place);
            assert_eq!(hit, Some(Place::Freed));
        }
    });
}

#[test]
fn memory_is_never_executable_and_protection_holds_on_every_cpu() {
    let rig = two_cpus();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        const PAGES: usize = if cfg!(miri) { 3 } else { 40 };
        let mut area = VmArea::new_in(PAGES * PAGE, mm).unwrap();
        let at = area.as_ptr().addr();
        let each = |look: &dyn Fn(usize)| on_each_cpu(&machine, |_| (0..PAGES).for_each(|page| look(at + page * PAGE)));
        each(&|page| assert!(matches!(machine.fetch(page), Err(Fault::Page { present: true, fetch: true, .. }))));
        each(&|page| machine.store(page, b"text").unwrap());
        area.protect(Prot::Read).unwrap();
        each(&|page| {
            let mut bytes = [0; 4];
            machine.load(page, &mut bytes).unwrap();
            assert_eq!(&bytes, b"text");
            let fault = machine.store(page, b"data");
            assert!(matches!(fault, Err(Fault::Page { present: true, write: true, .. })), "{fault:?}");
            assert!(machine.fetch(page).is_err());
        });
        area.protect(Prot::ReadExecute).unwrap();
        each(&|page| assert!(machine.fetch(page).is_ok() && machine.store(page, b"data").is_err()));
        // SAFETY: the root in use; nothing changes the tables meanwhile.
        assert_eq!(unsafe { kernel::writable_and_executable(&machine, machine.root()) }, None);
        area.protect(Prot::ReadWrite).unwrap();
        each(&|page| machine.store(page, b"data").unwrap());
        area.protect(Prot::Read).unwrap();
        // Freed while read-only: the next owner can write.
        drop(area);
        let next = VmArea::new_in(PAGES * PAGE, mm).unwrap();
        assert_eq!(next.as_ptr().addr(), at);
        each(&|page| machine.store(page, b"next").unwrap());
        // SAFETY: the root in use; nothing changes the tables meanwhile.
        assert_eq!(unsafe { kernel::writable_and_executable(&machine, machine.root()) }, None);
    });
}

#[test]
fn areas_prefer_memory_without_a_kernel_address() {
    let rig = highmem();
    rig.nothing_lost(|mm| {
        let free = |kind| mm.zoneinfo().zones().iter().find(|zone| zone.kind == kind).map_or(0, |zone| zone.free);
        let pages = free(ZoneKind::HighMem);
        let at = mm.vmalloc(20 * PAGE).unwrap().as_ptr();
        assert!(frames(mm, at, 20).iter().all(|frame| *frame >= 1 << 20));
        assert_eq!(pages - free(ZoneKind::HighMem), 20);
        // What needs an address never comes from there, whatever the flags say.
        for flags in [GFP_KERNEL, GFP_HIGHUSER, GFP_ATOMIC | Gfp::HIGHMEM] {
            let p = mm.get_free_page(flags).unwrap();
            let q = mm.kmalloc(9000, flags).unwrap();
            assert_eq!(pages - free(ZoneKind::HighMem), 20);
            mm.free_page(p.as_ptr()).unwrap();
            mm.kfree(q.as_ptr()).unwrap();
        }
        // More than there is of it takes from below, too.
        let more = mm.vmalloc((pages + 10) * PAGE).unwrap();
        assert!(free(ZoneKind::HighMem) < pages / 2);
        mm.check().unwrap();
        // Zeroed through a window, not through an address it does not have.
        mm.vfree(at).unwrap();
        let zeroed = mm.vzalloc(20 * PAGE).unwrap().as_ptr();
        let mut bytes = vec![1; 20 * PAGE];
        rig.machine().load(zeroed.addr(), &mut bytes).unwrap();
        assert!(bytes == vec![0; bytes.len()]);
        mm.vfree(zeroed).unwrap();
        mm.vfree(more.as_ptr()).unwrap();
    });
}

#[test]
fn the_window_is_empty_when_nothing_is_live() {
    let rig = two_cpus();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let areas: Vec<_> =
            [1, 20, 300].map(|pages| VmArea::new_in(pages.min(common::RAM as usize / PAGE / 4) * PAGE, mm)).into();
        assert!(areas.iter().all(|area| area.is_ok()));
        drop(areas);
        // SAFETY: the root in use; nothing changes the tables meanwhile.
        unsafe {
            kernel::for_each_mapping(&machine, machine.root(), |virt, _, _, _, _| {
                assert!(!(WINDOW.start..WINDOW.end).contains(&virt), "{virt:#x}");
            });
        }
        assert_eq!(mm.check().unwrap().tables, 0);
    });
}
