//! Free pages that the CPU cannot reach: what is free faults, what is allocated does not, whatever way it came and
//! went.

mod common;

use backend_mmu_x86::X86;
use common::{PAGE, TestMm, nommu};
use mm_core::*;
use rtmm_testkit::rig::Rig;
use rtmm_testkit::{Entries, Fault, SimConfig, SimMachine};
use std::future::Future;
use std::panic::catch_unwind;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

type SimRig = Rig<X86<SimMachine>>;

fn config() -> SimConfig {
    let (low, high) = ((1 << 20, 5 << 20), (1 << 32, (1 << 32) + (1 << 20)));
    let mut config = SimConfig::new(&[low, high]);
    (config.lowmem_end, config.entries) = (low.1, Entries::Pages);
    config
}

fn hidden() -> SimRig {
    Rig::mmu_prepared(config(), |mm| mm.debug_pagealloc_enable().unwrap())
}

fn hidden_and_poisoned() -> SimRig {
    Rig::mmu_prepared(config(), |mm| {
        mm.debug_pagealloc_enable().unwrap();
        mm.page_poisoning_enable().unwrap();
    })
}

/// What the simulated CPU meets when it stores to a frame by its kernel address.
fn store(rig: &SimRig, pfn: Pfn) -> Result<(), Fault> {
    let at = rig.mm.backend().direct_virt(pfn).expect("low memory").0;
    rig.machine().store(at + 5, &[1])
}

fn faults(rig: &SimRig, pfn: Pfn) -> bool {
    match store(rig, pfn) {
        Ok(()) => false,
        Err(Fault::Page { present: false, write: true, .. }) => true,
        Err(other) => panic!("{other:?}"),
    }
}

/// As many frames with a kernel address cannot be reached as are free, and those are named.
fn all_agree(rig: &SimRig) {
    let mm = &rig.mm;
    let hidden: Vec<_> = (1 << 8..5 << 8).map(Pfn).filter(|pfn| !mm.backend().can_reach(*pfn)).collect();
    let low = |zone: &&ZoneInfo| zone.kind != ZoneKind::HighMem;
    let free: usize = mm.zoneinfo().zones().iter().filter(low).map(|zone| zone.free).sum();
    assert_eq!(hidden.len(), free);
    for pfn in (1 << 8..5 << 8).map(Pfn) {
        let at = mm.backend().direct_ptr((pfn.0 as usize) << 12).addr() + 77;
        assert_eq!(mm.find_freed(at).map(|page| page.frame), hidden.contains(&pfn).then_some(pfn));
    }
    mm.check().unwrap();
}

/// Each way to take and give pages; the translation is in the TLB when they go.
#[test]
fn what_is_free_faults_and_what_is_allocated_does_not() {
    for rig in [hidden(), hidden_and_poisoned()] {
        let mm = &rig.mm;
        rig.nothing_lost(|mm: &TestMm<X86<SimMachine>>| {
            let reach = |pfn: Pfn, pages: u32| (pfn.0..pfn.0 + pages).for_each(|pfn| store(&rig, Pfn(pfn)).unwrap());
            let fault = |pfn: Pfn, pages: u32| assert!((pfn.0..pfn.0 + pages).all(|pfn| faults(&rig, Pfn(pfn))));
            for order in [0, 0, 3, 6] {
                let block = mm.get_free_pages(GFP_KERNEL, order).unwrap().as_ptr();
                let pfn = mm.pfn_of(block).unwrap();
                reach(pfn, 1 << order);
                mm.free_pages(block, order).unwrap();
                fault(pfn, 1 << order);
            }
            let exact = mm.alloc_pages_exact(5 * PAGE, GFP_KERNEL).unwrap().as_ptr();
            let pfn = mm.pfn_of(exact).unwrap();
            reach(pfn, 5);
            fault(Pfn(pfn.0 + 5), 3);
            mm.free_pages_exact(exact, 5 * PAGE).unwrap();
            fault(pfn, 5);
            let mut bulk = [None; 40];
            assert_eq!(mm.alloc_pages_bulk(GFP_KERNEL, &mut bulk).unwrap(), 40);
            let all: Vec<_> = bulk.iter().flatten().copied().collect();
            all.iter().for_each(|pfn| reach(*pfn, 1));
            mm.free_pages_bulk(&mut bulk).unwrap();
            all.iter().for_each(|pfn| fault(*pfn, 1));
            let large = mm.kmalloc(3 * PAGE, GFP_KERNEL).unwrap().as_ptr();
            let pfn = mm.pfn_of(large).unwrap();
            reach(pfn, 3);
            mm.kfree(large).unwrap();
            fault(pfn, 3);
            // With a reference it goes with the last.
            let page = mm.get_free_page(GFP_KERNEL).unwrap().as_ptr();
            let pfn = mm.pfn_of(page).unwrap();
            mm.get_page(pfn).unwrap();
            mm.free_page(page).unwrap();
            reach(pfn, 1);
            mm.put_page(pfn).unwrap();
            fault(pfn, 1);
            let object = mm.kmalloc(64, GFP_KERNEL).unwrap().as_ptr();
            let pfn = mm.pfn_of(object.wrapping_sub(object.addr() % PAGE)).unwrap();
            reach(pfn, 1);
            mm.kfree(object).unwrap();
            mm.drain();
            fault(pfn, 1);
        });
        assert_eq!(rig.platform.take_bugs().len(), 0);
        all_agree(&rig);
        let held: Vec<_> = (0..200).map(|i| (i % 3, mm.alloc_pages(GFP_KERNEL, i % 3).unwrap())).collect();
        let area = mm.vmalloc(100 * PAGE).unwrap().as_ptr();
        all_agree(&rig);
        held.iter().step_by(2).for_each(|(order, pfn)| mm.free_pages_frame(*pfn, *order).unwrap());
        mm.vfree(area).unwrap();
        mm.drain();
        all_agree(&rig);
    }
}

/// Handed to a waiter who takes it, or goes without it.
#[test]
fn what_is_handed_over_can_be_reached_by_who_takes_it_only() {
    for rig in [hidden(), hidden_and_poisoned()] {
        let mm = &rig.mm;
        let all: Vec<_> = std::iter::from_fn(|| mm.alloc_pages(GFP_NOWAIT, 0).ok()).collect();
        let mut context = Context::from_waker(Waker::noop());
        for (goes_without, page) in [(false, all[3]), (true, all[5])] {
            let mut future = Box::pin(mm.alloc_pages_async(GFP_KERNEL, 0));
            assert_eq!(future.as_mut().poll(&mut context), Poll::Pending);
            mm.free_pages_frame(page, 0).unwrap();
            assert!(faults(&rig, page), "nobody has come for it");
            if goes_without {
                drop(future);
                assert!(faults(&rig, page));
                let other = mm.alloc_pages(GFP_NOWAIT, 0).unwrap();
                store(&rig, other).unwrap();
            } else {
                let Poll::Ready(Ok(pfn)) = future.as_mut().poll(&mut context) else { panic!("handed over") };
                store(&rig, pfn).unwrap();
                mm.free_pages_frame(pfn, 0).unwrap();
                assert_eq!(mm.alloc_pages(GFP_NOWAIT, 0), Ok(pfn));
            }
        }
        let mut future = pin!(mm.kmalloc_async(PAGE, GFP_KERNEL));
        assert!(future.as_mut().poll(&mut context).is_pending());
        all[10..20].iter().for_each(|pfn| mm.free_pages_frame(*pfn, 0).unwrap());
        let Poll::Ready(Ok(object)) = future.as_mut().poll(&mut context) else { panic!("there are pages") };
        // SAFETY: ours.
        unsafe { object.write_bytes(3, PAGE) };
        assert_eq!(rig.platform.take_bugs().len(), 0);
    }
}

/// With poison, broken memory is found though nobody can reach the page, and the rest of its block stays hidden.
#[test]
fn a_scrub_looks_at_pages_that_cannot_be_reached() {
    let rig = hidden_and_poisoned();
    let mm = &rig.mm;
    let block = mm.alloc_pages(GFP_KERNEL, 2).unwrap();
    mm.free_pages_frame(block, 2).unwrap();
    // SAFETY: RAM of the rig, which the test spoils past the tables.
    unsafe { mm.backend().with_frame(Pfn(block.0 + 1), |p| p.add(9).write(0)) };
    let again = mm.alloc_pages(GFP_KERNEL, 2).unwrap();
    assert_ne!(again, block);
    assert!(matches!(rig.platform.take_bugs()[..], [Bug::PageDamaged { frame, .. }] if frame.0 == block.0 + 1));
    assert!((0..4).all(|i| faults(&rig, Pfn(block.0 + i))));
    // SAFETY: as above.
    unsafe { mm.backend().with_frame(Pfn(block.0 + 3), |p| p.add(9).write(0)) };
    let step = mm.scrub(&mut ScrubCursor::default(), usize::MAX);
    assert_eq!((step.withdrawn, rig.platform.take_bugs().len()), (1, 1));
    mm.free_pages_frame(again, 2).unwrap();
    assert_eq!(mm.meminfo().withdrawn as usize, 2 * PAGE);
    assert!((0..4).all(|i| faults(&rig, Pfn(block.0 + i))));
}

/// It is a choice before `init`, of who can.
#[test]
fn large_entries_and_no_entries_are_refused() {
    let large = || {
        Rig::mmu_prepared(SimConfig { entries: Entries::Large, ..config() }, |mm| mm.debug_pagealloc_enable().unwrap())
    };
    let said = catch_unwind(|| drop(large())).unwrap_err();
    assert!(said.downcast_ref::<String>().unwrap().contains("Unsupported"));
    assert_eq!(nommu().mm.debug_pagealloc_enable(), Err(MmError::Unsupported));
    let rig = common::mmu();
    assert_eq!(rig.mm.debug_pagealloc_enable(), Err(MmError::AlreadyInit));
    let page = rig.mm.get_free_page(GFP_KERNEL).unwrap().as_ptr();
    rig.mm.free_page(page).unwrap();
    assert_eq!(rig.mm.find_freed(page.addr()), None);
    store(&rig, Pfn(1 << 8)).unwrap();
}
