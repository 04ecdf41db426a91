//! The rest of the `vmalloc` family on the simulated machine: what the tables say, what a failure leaves, what is put
//! off.

#[macro_use]
mod common;

use backend_mmu_x86::{Machine, kernel};
use common::steps::{Plan, fail_each};
use common::{PAGE, TestMm, large_rig, mmu, nommu};
use mm_core::*;
use rtmm_testkit::rig::{Rig, WINDOW};
use rtmm_testkit::{Access, MemoryType, SimTables};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const LARGE: usize = 512 * PAGE;

/// No frame is writable at one address and executable at another.
fn never_both<M: Machine>(machine: &M) {
    // SAFETY: the root in use; nothing changes the tables meanwhile.
    assert_eq!(unsafe { kernel::writable_and_executable(machine, machine.root()) }, None);
}

#[test]
fn every_cache_mode_is_what_the_tables_say_and_the_only_one_of_its_pages() {
    let rig = mmu();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        type Map = fn(
            &TestMm<backend_mmu_x86::X86<rtmm_testkit::SimMachine>>,
            PhysAddr,
            usize,
        ) -> Result<std::ptr::NonNull<u8>, MmError>;
        let modes: [(Map, MemoryType); 4] = [
            (|mm, phys, size| mm.ioremap(phys, size), MemoryType::Uncached),
            (|mm, phys, size| mm.ioremap_wc(phys, size), MemoryType::WriteCombining),
            (|mm, phys, size| mm.ioremap_wt(phys, size), MemoryType::WriteThrough),
            (|mm, phys, size| mm.ioremap_cache(phys, size), MemoryType::WriteBack),
        ];
        // Small entries, and large ones, whose cache bits lie elsewhere.
        for (phys, size) in [(0xfe00_0000, 3 * PAGE), (0xe000_0000, 2 * LARGE)] {
            for (mode, (map, memory)) in modes.iter().enumerate() {
                let at = map(mm, PhysAddr(phys), size).unwrap();
                for page in (0..size).step_by(PAGE) {
                    let seen = machine.look(at.as_ptr().addr() + page).unwrap();
                    assert_eq!((seen.memory, seen.phys), (*memory, phys + page as u64));
                    assert_eq!(seen.bytes as usize, if size > LARGE { LARGE } else { PAGE });
                }
                for (other, (map, _)) in modes.iter().enumerate() {
                    let last = map(mm, PhysAddr(phys + size as u64 - 1), 1);
                    assert_eq!(last.is_ok(), other == mode, "{other} over {mode}");
                    match last {
                        Ok(at) => mm.iounmap(at.as_ptr()).unwrap(),
                        Err(error) => assert_eq!(error, MmError::AliasConflict),
                    }
                }
                mm.iounmap(at.as_ptr()).unwrap();
            }
        }
    });
}

#[test]
fn large_areas_are_mapped_by_large_entries_unless_asked_otherwise() {
    let rig = large_rig();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let size = 2 * LARGE + 5 * PAGE;
        for (entries, first) in [(Entries::Largest, LARGE), (Entries::Small, PAGE)] {
            let at = mm.vmalloc_with(size, &AreaOptions::new().entries(entries)).unwrap().as_ptr();
            assert_eq!(machine.look(at.addr()).unwrap().bytes as usize, first);
            assert_eq!(machine.look(at.addr() + 2 * LARGE).unwrap().bytes as usize, PAGE);
            if first == LARGE {
                assert_eq!(at.addr() % LARGE, 0);
            }
            assert!(machine.look(at.addr() - 1).is_err() && machine.look(at.addr() + size).is_err());
            let hit = mm.find_area(at.addr() - 1).unwrap();
            assert_eq!((hit.place, hit.area.addr), (Place::GuardBefore, at.addr()));
            assert_eq!(mm.find_area(at.addr() + LARGE + 7).unwrap().area.addr, at.addr());
            assert_eq!(mm.vmallocinfo().areas().filter(|area| area.addr == at.addr()).count(), 1);
            for page in 0..size / PAGE {
                machine.store(at.addr() + page * PAGE, &[page as u8]).unwrap();
            }
            mm.vfree(at).unwrap();
            assert!(machine.access(at.addr(), Access::Read).is_err());
        }
    });
}

#[test]
fn no_frame_is_writable_and_executable_whatever_is_asked() {
    for rig in [mmu(), large_rig()] {
        let machine = rig.machine().clone();
        let large = mm_core::Mm::free_page_count(&rig.mm) > 2500;
        let size = if large { LARGE + 3 * PAGE } else { 5 * PAGE };
        rig.nothing_lost(|mm| {
            let at = mm.vmalloc(size).unwrap().as_ptr();
            let pages = size / PAGE;
            let page = |n: usize| at.wrapping_add(n * PAGE).cast_const();
            let alias = |n: usize| {
                let pfn = mm.vmalloc_to_page(page(n)).unwrap();
                machine.look(mm.backend().direct_virt(pfn).unwrap().0).unwrap()
            };
            for (first, count) in [(0, pages), (1, 1), (pages - 2, 2), (0, pages - 1)] {
                mm.set_memory(page(first), count, Prot::ReadExecute).unwrap();
                never_both(&machine);
                for n in 0..pages {
                    let inside = (first..first + count).contains(&n);
                    assert_eq!(machine.fetch(page(n).addr()).is_ok(), inside, "page {n}");
                    assert_eq!(alias(n).writable, !inside, "page {n}");
                }
                mm.set_memory(page(0), 1, Prot::Read).unwrap();
                never_both(&machine);
                mm.set_memory(page(0), pages, Prot::ReadWrite).unwrap();
                never_both(&machine);
                assert!((0..pages).all(|n| alias(n).writable && machine.store(page(n).addr(), &[1]).is_ok()));
            }
            // Freed while executable: the frames are writable again, and the direct map is whole.
            mm.set_memory(page(0), pages, Prot::ReadExecute).unwrap();
            mm.vfree(at).unwrap();
            never_both(&machine);
            // SAFETY: as in `never_both`.
            unsafe {
                kernel::for_each_mapping(&machine, machine.root(), |virt, _, _, writable, executable| {
                    assert!(writable && !executable, "{virt:#x}");
                });
            }
        });
    }
}

/// The table is valid at every step: whatever store a CPU's walk falls behind, no frame is both, and what was not asked
/// to change translates as before.
#[test]
fn protection_changes_are_sound_after_every_single_store() {
    let rig = large_rig();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let at = mm.vmalloc(LARGE + PAGE).unwrap().as_ptr();
        let frame = mm.vmalloc_to_page(at.wrapping_add(LARGE - PAGE)).unwrap();
        let stores = Arc::new(AtomicUsize::new(0));
        let (seen, looker, last) = (stores.clone(), machine.clone(), at.addr() + LARGE - PAGE);
        machine.watch(Some(Box::new(move |_, _| {
            // The walk over all tables is slow; after each of the first stores, and then now and then.
            let n = seen.fetch_add(1, Ordering::SeqCst);
            if n < 40 || n.is_multiple_of(37) {
                never_both(&looker);
            }
            let phys = looker.look(last).unwrap().phys;
            assert_eq!(phys, u64::from(frame.0) << 12, "after store {n}");
        })));
        mm.set_memory(at.wrapping_add(3 * PAGE), 4, Prot::ReadExecute).unwrap();
        mm.set_memory(at.wrapping_add(4 * PAGE), 2, Prot::ReadWrite).unwrap();
        mm.set_memory(at.wrapping_add(3 * PAGE), 4, Prot::Read).unwrap();
        machine.watch(None);
        assert!(stores.load(Ordering::SeqCst) > 500, "a table was filled");
        mm.vfree(at).unwrap();
    });
}

#[test]
fn a_split_that_finds_no_table_changes_nothing() {
    let rig = large_rig();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let at = mm.vmalloc(2 * LARGE).unwrap().as_ptr();
        mm.drain();
        let before = mm.free_page_count();
        for prot in [Prot::Read, Prot::ReadExecute] {
            let mut failed = 0;
            loop {
                mm.faults().fail_nth(FaultClass::Any, failed + 1);
                // Both ends split an entry.
                let result = mm.set_memory(at.wrapping_add(PAGE), 2 * LARGE / PAGE - 2, prot);
                mm.faults().disarm();
                if result.is_ok() {
                    break;
                }
                failed += 1;
                assert_eq!(result, Err(MmError::Alloc(AllocError::NoMemory)));
                for edge in [0, PAGE, LARGE, 2 * LARGE - PAGE] {
                    assert!(machine.access(at.addr() + edge, Access::Write).is_ok(), "{edge:#x}");
                    assert!(machine.fetch(at.addr() + edge).is_err());
                }
                never_both(&machine);
                mm.drain();
                mm.check().unwrap();
                assert_eq!(mm.free_page_count(), before, "after failure {failed} of {prot:?}");
            }
            assert!(failed >= 2, "{failed} steps");
            mm.set_memory(at, 2 * LARGE / PAGE, Prot::ReadWrite).unwrap();
            mm.vfree(at).unwrap();
            let again = mm.vmalloc(2 * LARGE).unwrap().as_ptr();
            assert_eq!(again, at);
        }
        mm.vfree(at).unwrap();
    });
}

#[test]
fn a_free_in_an_interrupt_is_put_off_and_never_lost() {
    fn storm<B: Backend>(rig: &Rig<B>) {
        rig.nothing_lost(|mm| {
            let areas: Vec<_> = (1..=20).map(|pages| mm.vmalloc(pages * PAGE).unwrap().as_ptr()).collect();
            let device = mm.ioremap(PhysAddr(0xfe00_0000), PAGE).unwrap().as_ptr();
            let page = mm.alloc_page(GFP_KERNEL).unwrap();
            let map = mm.vmap(&[page], Prot::ReadWrite).unwrap().as_ptr();
            rig.platform.set_context(Context::Atomic);
            for &area in &areas {
                mm.vfree(area).unwrap();
                assert_eq!(mm.vfree(area), Err(FreeError::DoubleFree));
            }
            mm.iounmap(device).unwrap();
            mm.vunmap(map).unwrap();
            assert!(mm.vunmap(map).is_err());
            rig.platform.set_context(Context::Task);
            // Without an MMU there is nothing to flush, and so nothing to put off.
            let put_off = if B::HAS_PROTECT { 22 } else { 0 };
            assert_eq!(mm.deferred_areas().0, put_off);
            mm.check().unwrap_or_else(|damage| panic!("{damage}"));
            assert_eq!(mm.vmallocinfo().count(), 0);
            // Nothing of it is used again yet.
            let next = mm.vmalloc(PAGE).unwrap().as_ptr();
            assert_eq!(areas.contains(&next), put_off == 0);
            assert_eq!(mm.flush_deferred(), put_off);
            assert_eq!(mm.flush_deferred(), 0);
            mm.vfree(next).unwrap();
            mm.free_pages_frame(page, 0).unwrap();
        });
    }
    storm(&mmu());
    storm(&nommu());
}

/// Frees `areas` areas of `pages` pages in an interrupt.
fn put_off<B: Backend>(rig: &Rig<B>, areas: usize, pages: usize) {
    let made: Vec<_> = (0..areas).map(|_| rig.mm.vmalloc(pages * PAGE).unwrap().as_ptr()).collect();
    rig.platform.set_context(Context::Atomic);
    made.into_iter().for_each(|area| rig.mm.vfree(area).unwrap());
    rig.platform.set_context(Context::Task);
}

#[test]
fn what_interrupts_put_off_is_bounded_by_the_next_call_in_a_task() {
    type Call = (&'static str, fn(&TestMm<backend_mmu_x86::X86<rtmm_testkit::SimMachine>>, Pfn));
    let calls: [Call; 6] = [
        ("vmalloc", |mm, _| mm.vfree(mm.vmalloc(PAGE).unwrap().as_ptr()).unwrap()),
        ("a refused vfree", |mm, _| assert!(mm.vfree(std::ptr::without_provenance(WINDOW.start + PAGE)).is_err())),
        ("ioremap", |mm, _| mm.iounmap(mm.ioremap(PhysAddr(0xfe00_0000), PAGE).unwrap().as_ptr()).unwrap()),
        ("vmap", |mm, page| mm.vunmap(mm.vmap(&[page], Prot::Read).unwrap().as_ptr()).unwrap()),
        ("a batch", |mm, _| assert!(mm.free_batch().vfree(std::ptr::without_provenance(WINDOW.start)).is_err())),
        ("reserve_tables", |mm, _| mm.reserve_tables(0).unwrap()),
    ];
    let rig = mmu();
    rig.nothing_lost(|mm| {
        let page = mm.alloc_page(GFP_KERNEL).unwrap();
        for (what, call) in calls {
            // One less is not flushed by anybody who has enough.
            put_off(&rig, 31, 1);
            call(mm, page);
            assert_eq!(mm.deferred_areas(), (31, 31), "{what}");
            let last = mm.vmalloc(PAGE).unwrap().as_ptr();
            let other = mm.vmalloc(PAGE).unwrap().as_ptr();
            rig.platform.set_context(Context::Atomic);
            mm.vfree(last).unwrap();
            // Interrupts go on as before: what they free is taken, and nothing is flushed.
            mm.vfree(other).unwrap();
            assert_eq!(mm.vfree(other), Err(FreeError::DoubleFree));
            rig.platform.set_context(Context::Task);
            assert_eq!(mm.deferred_areas(), (33, 33), "{what}");
            mm.check().unwrap();
            let before = mm.free_page_count();
            call(mm, page);
            assert_eq!(mm.deferred_areas(), (0, 0), "{what}");
            assert!(mm.free_page_count() >= before + 33 - 8, "{what}");
            // And once more it takes as many.
            put_off(&rig, 1, 1);
            call(mm, page);
            assert_eq!(mm.deferred_areas(), (1, 1), "{what}");
            assert_eq!(mm.flush_deferred(), 1);
        }
        // Few areas of many pages.
        put_off(&rig, 3, 341);
        calls[0].1(mm, page);
        assert_eq!(mm.deferred_areas(), (3, 1023));
        put_off(&rig, 1, 1);
        calls[0].1(mm, page);
        assert_eq!(mm.deferred_areas(), (0, 0));
        mm.free_pages_frame(page, 0).unwrap();
    });
}

#[test]
fn a_batch_holds_back_no_more_than_it_says_and_flushes_once() {
    let rig = large_rig();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let areas: Vec<_> = (0..40).map(|_| mm.vmalloc(2 * PAGE).unwrap().as_ptr()).collect();
        for area in &areas {
            machine.store(area.addr(), &[1]).unwrap();
        }
        let (pages, whole) = machine.flushes();
        let mut batch = mm.free_batch();
        for (i, area) in areas.iter().enumerate() {
            batch.vfree(*area).unwrap();
            assert_eq!(
                batch.held().0,
                (i + 1)
                    % FreeBatch::<rtmm_testkit::TestPlatform, backend_mmu_x86::X86<rtmm_testkit::SimMachine>>::AREAS
            );
        }
        drop(batch);
        let now = machine.flushes();
        assert!((now.0 - pages) + (now.1 - whole) <= 4, "{:?} flushes", (now.0 - pages, now.1 - whole));
        for area in &areas {
            assert!(machine.access(area.addr(), Access::Read).is_err());
        }
    });
}

/// What is held back and never flushed is lost, which the scan tells, and nobody gets it.
#[test]
fn a_forgotten_batch_is_told_and_nothing_of_it_is_used_again() {
    let rig = mmu();
    let mm = &rig.mm;
    let keep = mm.vmalloc(PAGE).unwrap().as_ptr();
    let area = mm.vmalloc(3 * PAGE).unwrap().as_ptr();
    let frames: Vec<_> = (0..3).map(|page| mm.vmalloc_to_page(area.wrapping_add(page * PAGE)).unwrap()).collect();
    let mut batch = mm.free_batch();
    batch.vfree(area).unwrap();
    std::mem::forget(batch);
    let damage = mm.check().unwrap_err();
    assert!(damage.to_string().contains("area"), "{damage}");
    let mut pages = Vec::new();
    while let Ok(pfn) = mm.alloc_page(GFP_ATOMIC) {
        assert!(!frames.contains(&pfn));
        pages.push(pfn);
    }
    pages.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());
    let next = mm.vmalloc(PAGE).unwrap().as_ptr();
    assert_ne!(next, area);
    mm.vfree(next).unwrap();
    mm.vfree(keep).unwrap();
}

fn every_new_call<B: Backend>(mm: &TestMm<B>) {
    fail_each(mm, "an aligned area", |plan: &Plan<'_, B>| {
        let p = plan.during(|| plan.mm.vmalloc_with(3 * PAGE, &AreaOptions::new().align(0x2_0000)))?;
        Ok(plan.mm.vfree(p.as_ptr())?)
    });
    fail_each(mm, "an area of another size", |plan| {
        let old = plan.mm.vmalloc(2 * PAGE)?;
        // SAFETY: nobody else has it.
        let result = plan.during(|| unsafe { plan.mm.vrealloc(old.as_ptr(), 4 * PAGE, GFP_KERNEL) });
        let now = match result {
            Ok(new) => new.expect("not of size 0"),
            Err(_) => old,
        };
        plan.mm.vfree(now.as_ptr())?;
        result.map(drop).map_err(Into::into)
    });
    fail_each(mm, "kvmalloc", |plan| {
        let p = plan.during(|| plan.mm.kvmalloc(3 * PAGE, GFP_KERNEL))?;
        Ok(plan.mm.kvfree(p.as_ptr())?)
    });
    fail_each(mm, "vmap", |plan| {
        mapped(plan, |mm, pages| {
            let p = mm.vmap(pages, Prot::ReadWrite)?;
            Ok(Box::new(move || mm.vunmap(p.as_ptr())))
        })
    });
    fail_each(mm, "vm_map_ram", |plan| {
        mapped(plan, |mm, pages| {
            let p = mm.vm_map_ram(pages)?;
            Ok(Box::new(move || mm.vm_unmap_ram(p.as_ptr(), 4)))
        })
    });
    if B::HAS_MMU {
        fail_each(mm, "vmap in another order", |plan| {
            mapped(plan, |mm, pages| {
                pages.reverse();
                let p = mm.vmap(pages, Prot::Read)?;
                Ok(Box::new(move || mm.vunmap(p.as_ptr())))
            })
        });
        fail_each(mm, "an executable area", |plan| {
            let options = AreaOptions::new().prot(Prot::ReadExecute);
            let p = plan.during(|| plan.mm.vmalloc_with(3 * PAGE, &options))?;
            Ok(plan.mm.vfree(p.as_ptr())?)
        });
    }
    fail_each(mm, "ioremap_wc", |plan| {
        let p = plan.during(|| plan.mm.ioremap_wc(PhysAddr(0xf000_0000), 3 * PAGE))?;
        Ok(plan.mm.iounmap(p.as_ptr())?)
    });
}

type Undo<'a> = Box<dyn FnOnce() -> Result<(), FreeError> + 'a>;

/// Maps four pages with the plan in force, and takes everything back.
fn mapped<'a, B: Backend>(
    plan: &Plan<'a, B>,
    map: fn(&'a TestMm<B>, &mut [Pfn]) -> Result<Undo<'a>, MmError>,
) -> Result<(), MmError> {
    let block = plan.mm.alloc_pages(GFP_KERNEL, 2)?;
    let mut pages: Vec<_> = (0..4).map(|page| Pfn(block.0 + page)).collect();
    let result = plan.during(|| map(plan.mm, &mut pages)).and_then(|undo| Ok(undo()?));
    plan.mm.free_pages_frame(block, 2)?;
    result
}

both! {
    every_new_call;
    a_batch_leaves_short_mappings_to_their_own_call;
}

fn a_batch_leaves_short_mappings_to_their_own_call<B: Backend>(mm: &TestMm<B>) {
    let block = mm.alloc_pages(GFP_KERNEL, 6).unwrap();
    for count in [1, 40] {
        let pages: Vec<_> = (0..count).map(|page| Pfn(block.0 + page)).collect();
        let mapped = mm.vm_map_ram(&pages).unwrap().as_ptr();
        let mut batch = mm.free_batch();
        assert_eq!(batch.vunmap(mapped), Err(FreeError::WrongAllocator));
        assert_eq!(batch.held(), (0, 0));
        drop(batch);
        mm.vm_unmap_ram(mapped, count as usize).unwrap();
    }
    mm.free_pages_frame(block, 6).unwrap();
}

#[test]
fn any_two_steps_of_a_large_area_may_fail() {
    let rig = large_rig();
    rig.nothing_lost(|mm| {
        let size = LARGE + 40 * PAGE;
        for k in 1..12 {
            for l in 1..6 {
                mm.faults().fail_pair(FaultClass::Any, k, l);
                let area = mm.vmalloc(size);
                mm.faults().disarm();
                if let Ok(area) = area {
                    mm.vfree(area.as_ptr()).unwrap();
                }
                mm.check().unwrap_or_else(|damage| panic!("{k}, {l}: {damage}"));
            }
        }
    });
}

#[test]
fn the_frames_of_an_area_are_not_mapped_writable_for_it_may_become_executable() {
    let rig = large_rig();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let area = mm.vmalloc(8 * PAGE).unwrap().as_ptr();
        let frames: Vec<_> = (0..8).map(|i| mm.vmalloc_to_page(area.wrapping_add(i * PAGE)).unwrap()).collect();
        let own = mm.alloc_pages(GFP_KERNEL, 2).unwrap();
        for frame in &frames {
            assert_eq!(mm.vmap(&[*frame], Prot::ReadWrite), Err(MmError::Unsupported));
            assert_eq!(mm.vmap(&[own, *frame], Prot::ReadWrite), Err(MmError::Unsupported));
        }
        assert_eq!(mm.vm_map_ram(&frames), Err(MmError::Unsupported));
        // Pages of the caller's own, from the middle of their block, are fine.
        let some = [Pfn(own.0 + 1), Pfn(own.0 + 2)];
        let map = mm.vmap(&some, Prot::ReadWrite).unwrap();
        mm.vunmap(map.as_ptr()).unwrap();
        let seen = mm.vmap(&frames, Prot::Read).unwrap();
        mm.set_memory(area, 8, Prot::ReadExecute).unwrap();
        never_both(&machine);
        mm.vunmap(seen.as_ptr()).unwrap();
        mm.vfree(area).unwrap();
        mm.free_pages_frame(own, 2).unwrap();
    });
}

#[test]
fn a_page_whose_iounmap_was_put_off_is_mapped_in_another_mode() {
    let rig = mmu();
    rig.nothing_lost(|mm| {
        let device = PhysAddr(0xfe00_0000);
        let old = mm.ioremap(device, PAGE).unwrap();
        assert_eq!(mm.ioremap_wc(device, PAGE), Err(MmError::AliasConflict));
        rig.platform.set_context(Context::Atomic);
        mm.iounmap(old.as_ptr()).unwrap();
        rig.platform.set_context(Context::Task);
        let new = mm.ioremap_wc(device, PAGE).unwrap();
        mm.iounmap(new.as_ptr()).unwrap();
    });
}

#[test]
fn an_area_that_grows_within_its_page_with_zero_shows_no_stale_bytes() {
    let rig = mmu();
    let machine = rig.machine().clone();
    rig.nothing_lost(|mm| {
        let area = mm.vmalloc(PAGE + 100).unwrap().as_ptr();
        machine.store(area.addr(), &[7; 2 * PAGE]).unwrap();
        for size in [PAGE + 60, 2 * PAGE] {
            // SAFETY: nobody else has it.
            let same = unsafe { mm.vrealloc(area, size, GFP_KERNEL | Gfp::ZERO) }.unwrap().unwrap();
            assert_eq!(same.as_ptr(), area);
        }
        let mut bytes = [1; 2 * PAGE];
        machine.load(area.addr(), &mut bytes).unwrap();
        assert!(bytes[..PAGE + 60].iter().all(|byte| *byte == 7));
        assert!(bytes[PAGE + 60..].iter().all(|byte| *byte == 0));
        mm.vfree(area).unwrap();
    });
}

#[test]
fn what_others_map_right_before_the_window_is_no_areas() {
    let rig = mmu();
    let (mm, machine) = (&rig.mm, rig.machine().clone());
    let (start, below) = (WINDOW.start as *const u8, VirtAddr(WINDOW.start - PAGE));
    let frames = (0..4).map(|_| {
        let page = mm.get_free_page(GFP_KERNEL | Gfp::ZERO).unwrap();
        mm.pfn_of(page.as_ptr()).unwrap()
    });
    let mut tables = SimTables::new(machine.clone(), frames.collect());
    tables.bring(4);
    let run = PageRange { start: mm.alloc_pages(GFP_KERNEL, 0).unwrap(), count: 1 };
    // SAFETY: nobody else changes the tables, and the page and the frame are nobody else's.
    unsafe {
        mm.backend().map(machine.root(), below, run, Prot::ReadWrite, CacheMode::WriteBack, &mut tables).unwrap();
    }
    assert_eq!(mm.vfree(start), Err(FreeError::DoubleFree));
    // A free of the first page looks for no guard there, and so no look after it finds the table.
    assert_eq!(mm.vmalloc_to_page(below.0 as *const u8), None);
    let area = mm.vmalloc(PAGE).unwrap().as_ptr();
    assert!(mm.vmalloc_to_page(area).is_some());
    assert_eq!(mm.vmalloc_to_page(below.0 as *const u8), None);
    for elsewhere in [
        0,
        1,
        PAGE,
        usize::MAX,
        usize::MAX - PAGE,
        0xffff << (usize::BITS - 16),
        WINDOW.end,
        area.addr() ^ 1 << (usize::BITS - 17),
    ] {
        assert_eq!(mm.vmalloc_to_page(elsewhere as *const u8), None, "{elsewhere:#x}");
    }
    mm.vfree(area).unwrap();
    assert_eq!(mm.vmalloc_to_page(area), None);
}
