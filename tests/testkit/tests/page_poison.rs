//! Poisoned pages: writes to free ones are found, reported, and the page is never used again.

mod common;

use common::{NOMMU_RAM, PAGE, RAM, TestMm};
use mm_core::*;
use rtmm_testkit::rig::Rig;
use rtmm_testkit::{SimConfig, TestPlatform};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const POISON: u8 = 0xaa;

fn nommu() -> Rig<backend_nommu::Arena> {
    Rig::arena_prepared(NOMMU_RAM, RAM, |mm| mm.page_poisoning_enable().unwrap())
}

/// Half the memory has no kernel address.
fn highmem() -> Rig<backend_mmu_x86::X86<rtmm_testkit::SimMachine>> {
    let (low, high) = ((1 << 20, (1 << 20) + RAM / 2), (1 << 32, (1 << 32) + RAM / 2));
    let mut config = SimConfig::new(&[low, high]);
    config.lowmem_end = low.1;
    Rig::mmu_prepared(config, |mm| mm.page_poisoning_enable().unwrap())
}

/// Writes one byte of a frame that is free.
fn plant<B: Backend>(mm: &TestMm<B>, pfn: Pfn, at: usize, byte: u8) {
    // SAFETY: RAM of the rig, which the test spoils.
    unsafe { mm.backend().with_frame(pfn, |p| p.add(at).write(byte)) };
}

/// The one report there is.
fn reported(platform: &TestPlatform) -> (Pfn, usize, u8) {
    match platform.take_bugs()[..] {
        [Bug::PageDamaged { frame, at, found }] => {
            assert_eq!(at >> 12, u64::from(frame.0));
            (frame, at as usize & (PAGE - 1), found)
        }
        ref other => panic!("{other:?}"),
    }
}

fn withdrawn<B: Backend>(mm: &TestMm<B>) -> usize {
    mm.check().unwrap();
    mm.meminfo().withdrawn as usize / PAGE
}

/// Takes everything there is, and says which frames came.
fn everything<B: Backend>(mm: &TestMm<B>) -> Vec<Pfn> {
    std::iter::from_fn(|| mm.alloc_pages(GFP_HIGHUSER & !Gfp::WAIT, 0).ok()).collect()
}

/// Reading a page after its free sees poison, whatever call it was of.
#[test]
fn a_read_after_the_free_sees_poison() {
    let rig = nommu();
    let mm = &rig.mm;
    let page = mm.get_zeroed_page(GFP_KERNEL).unwrap().as_ptr();
    let block = mm.get_free_pages(GFP_KERNEL, 3).unwrap().as_ptr();
    let large = mm.kzalloc(3 * PAGE, GFP_KERNEL).unwrap().as_ptr();
    let bulk = mm.get_zeroed_page(GFP_KERNEL).unwrap().as_ptr();
    // SAFETY: ours.
    unsafe { block.write_bytes(1, 8 * PAGE) };
    mm.free_page(page).unwrap();
    mm.free_pages(block, 3).unwrap();
    mm.kfree(large).unwrap();
    mm.free_pages_bulk(&mut [mm.pfn_of(bulk)]).unwrap();
    for (at, len) in [(page, PAGE), (block, 8 * PAGE), (large, 3 * PAGE), (bulk, PAGE)] {
        // SAFETY: RAM of the rig.
        assert!(unsafe { std::slice::from_raw_parts(at, len) }.iter().all(|byte| *byte == POISON));
    }
    assert_eq!(rig.platform.take_bugs().len(), 0);
    assert_eq!(withdrawn(mm), 0);
}

/// Each way to take pages finds the damaged one, withdraws it, and goes on with another.
#[test]
fn a_write_after_the_free_is_found_when_the_page_would_come_again() {
    type Take = fn(&TestMm<backend_nommu::Arena>) -> Pfn;
    let ways: [Take; 6] = [
        |mm| mm.pfn_of(mm.get_free_page(GFP_KERNEL).unwrap().as_ptr()).unwrap(),
        |mm| mm.pfn_of(mm.get_zeroed_page(GFP_KERNEL).unwrap().as_ptr()).unwrap(),
        |mm| mm.alloc_pages(GFP_ATOMIC, 4).unwrap(),
        |mm| mm.pfn_of(mm.kmalloc(3 * PAGE, GFP_KERNEL).unwrap().as_ptr()).unwrap(),
        |mm| mm.pfn_of(mm.vmalloc(PAGE).unwrap().as_ptr()).unwrap(),
        |mm| {
            let mut pages = [None; 20];
            assert_eq!(mm.alloc_pages_bulk(GFP_KERNEL, &mut pages).unwrap(), 20);
            pages[0].unwrap()
        },
    ];
    for (way, take) in ways.into_iter().enumerate() {
        for (at, found) in [(0, 0xab), (1, 0), (PAGE / 2 + 3, 0x11), (PAGE - 1, 0x2a)] {
            let rig = nommu();
            let mm = &rig.mm;
            // What would come.
            let pfn = take(&nommu().mm);
            plant(mm, pfn, at, found);
            let got = take(mm);
            assert_ne!(got, pfn, "way {way}");
            assert_eq!(reported(&rig.platform), (pfn, at, found), "way {way}");
            assert_eq!(withdrawn(mm), 1);
            assert!(!everything(mm).contains(&pfn));
            assert_eq!(mm.free_pages_frame(pfn, 0), Err(FreeError::Reserved));
        }
    }
}

/// Of a block only the damaged pages are lost, one report each.
#[test]
fn of_a_damaged_block_the_other_pages_stay_in_use() {
    let rig = nommu();
    let mm = &rig.mm;
    let before = everything(mm);
    before.iter().for_each(|pfn| mm.free_pages_frame(*pfn, 0).unwrap());
    let (before, free) = (before.len(), mm.free_page_count());
    let block = mm.alloc_pages(GFP_KERNEL, 5).unwrap();
    mm.free_pages_frame(block, 5).unwrap();
    for page in [0, 7, 31] {
        plant(mm, Pfn(block.0 + page), 9, 9);
    }
    let all = everything(mm);
    assert_eq!(all.len(), before - 3);
    let bugs = rig.platform.take_bugs();
    assert_eq!(bugs.len(), 3);
    for (bug, page) in bugs.iter().zip([0, 7, 31]) {
        assert!(matches!(bug, Bug::PageDamaged { frame, found: 9, .. } if frame.0 == block.0 + page), "{bug}");
    }
    assert_eq!(withdrawn(mm), 3);
    all.into_iter().for_each(|pfn| mm.free_pages_frame(pfn, 0).unwrap());
    assert_eq!(mm.free_page_count(), free - 3);
    assert_eq!(withdrawn(mm), 3);
}

/// A page of a slab that was given back, too.
#[test]
fn a_write_to_a_slab_that_went_back_is_found() {
    let rig = nommu();
    let mm = &rig.mm;
    let object = mm.kmalloc(64, GFP_KERNEL).unwrap().as_ptr();
    let pfn = mm.pfn_of(object.wrapping_sub(object.addr() % PAGE)).unwrap();
    mm.kfree(object).unwrap();
    mm.drain();
    assert_eq!(rig.platform.take_bugs().len(), 0);
    // SAFETY: RAM of the rig, which the test spoils.
    unsafe { object.write(0) };
    let all = everything(mm);
    assert_eq!(reported(&rig.platform), (pfn, object.addr() % PAGE, 0));
    assert!(!all.contains(&pfn));
}

/// The scrub finds damage nobody came across, a bounded number of frames at a time, without a kernel address too.
#[test]
fn a_scrub_finds_each_damaged_page_within_its_budget() {
    let rig = highmem();
    let mm = &rig.mm;
    let used = everything(mm);
    // Every third is in use, so that free ones are in every kind of word.
    let (kept, freed): (Vec<_>, Vec<_>) = used.iter().partition(|pfn| pfn.0 % 3 == 0);
    freed.iter().for_each(|pfn| mm.free_pages_frame(*pfn, 0).unwrap());
    let free = mm.free_page_count();
    let planted = [freed[0], freed[freed.len() / 2], *freed.last().unwrap()];
    for (i, pfn) in planted.into_iter().enumerate() {
        plant(mm, pfn, i * 1500, POISON ^ 0x40);
    }
    // One that is in use holds what it likes.
    plant(mm, kept[5], 0, 0x77);
    let (mut cursor, mut checked, mut lost) = (ScrubCursor::default(), 0, 0);
    loop {
        let step = mm.scrub(&mut cursor, 17);
        assert!(step.checked <= 17);
        (checked, lost) = (checked + step.checked, lost + step.withdrawn);
        if step.wrapped {
            break;
        }
    }
    assert_eq!((checked, lost), (free, 3));
    let mut frames: Vec<_> = rig
        .platform
        .take_bugs()
        .into_iter()
        .map(|bug| match bug {
            Bug::PageDamaged { frame, at, found: 0xea } => (frame, at as usize & (PAGE - 1)),
            other => panic!("{other}"),
        })
        .collect();
    frames.sort();
    let mut want: Vec<_> = planted.into_iter().zip([0, 1500, 3000]).collect();
    want.sort();
    assert_eq!(frames, want);
    assert_eq!((withdrawn(mm), mm.free_page_count()), (3, free - 3));
    assert!(planted.iter().all(|pfn| !everything(mm).contains(pfn)));
    // The second round finds no more.
    assert_eq!(cursor, ScrubCursor::default());
    let step = mm.scrub(&mut cursor, usize::MAX);
    assert!(step.wrapped && step.withdrawn == 0);
    assert_eq!(withdrawn(mm), 3);
}

/// A page that the scrub withdrew from the middle of a large free block is in no block any more.
#[test]
fn no_block_has_a_page_that_the_scrub_withdrew() {
    let rig = nommu();
    let mm = &rig.mm;
    let order = mm.buddyinfo().largest().unwrap();
    let block = mm.alloc_pages(GFP_KERNEL, order).unwrap();
    mm.free_pages_frame(block, order).unwrap();
    let lost = Pfn(block.0 + (1 << order) / 2 + 1);
    plant(mm, lost, 7, 0);
    let step = mm.scrub(&mut ScrubCursor::default(), usize::MAX);
    assert_eq!((step.withdrawn, reported(&rig.platform)), (1, (lost, 7, 0)));
    mm.check().unwrap();
    for order in (0..=order).rev() {
        while let Ok(block) = mm.alloc_pages(GFP_ATOMIC | Gfp::NOWARN, order) {
            assert!(!(block.0..block.0 + (1 << order)).contains(&lost.0), "{block:?} of order {order}");
        }
    }
    mm.check().unwrap();
    assert_eq!(withdrawn(mm), 1);
}

/// When the only page left is damaged, the request fails as on any shortage.
#[test]
fn damage_of_the_last_page_is_no_memory() {
    let rig = nommu();
    let mm = &rig.mm;
    let all = everything(mm);
    let last = *all.last().unwrap();
    mm.free_pages_frame(last, 0).unwrap();
    plant(mm, last, 0, 0);
    assert_eq!(mm.alloc_pages(GFP_NOWAIT, 0), Err(AllocError::NoMemory));
    assert_eq!(reported(&rig.platform), (last, 0, 0));
    mm.free_pages_frame(all[0], 0).unwrap();
    assert!(mm.alloc_pages(GFP_NOWAIT, 0).is_ok_and(|pfn| pfn != last));
    assert_eq!(mm.alloc_pages(GFP_NOWAIT, 0), Err(AllocError::NoMemory));
    assert_eq!(withdrawn(mm), 1);
}

/// A future that was handed a damaged page waits for the next one.
#[test]
fn who_waits_is_given_a_sound_page() {
    // What is handed over, as a manager like it tells.
    let mut handed = None;
    for damage in [None, Some(4)] {
        let rig = nommu();
        let mm = &rig.mm;
        let all = everything(mm);
        let mut future = pin!(mm.alloc_pages_async(GFP_KERNEL, 0));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(future.as_mut().poll(&mut context), Poll::Pending);
        mm.free_pages_frame(all[3], 0).unwrap();
        let (Some(pfn), Some(byte)) = (handed, damage) else {
            let Poll::Ready(Ok(pfn)) = future.as_mut().poll(&mut context) else { panic!("handed over") };
            handed = Some(pfn);
            continue;
        };
        plant(mm, pfn, 4, byte);
        assert_eq!(future.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(reported(&rig.platform), (pfn, 4, byte));
        mm.free_pages_frame(all[8], 0).unwrap();
        assert!(matches!(future.as_mut().poll(&mut context), Poll::Ready(Ok(other)) if other != pfn));
        assert_eq!(withdrawn(mm), 1);
    }
}

/// It is a choice, made before `init`.
#[test]
fn without_the_choice_nothing_is_filled_or_looked_at() {
    let rig = common::nommu();
    let mm = &rig.mm;
    assert_eq!(mm.page_poisoning_enable(), Err(MmError::AlreadyInit));
    let page = mm.get_zeroed_page(GFP_KERNEL).unwrap().as_ptr();
    mm.free_page(page).unwrap();
    // SAFETY: RAM of the rig.
    assert_eq!(unsafe { page.read() }, 0);
    let step = mm.scrub(&mut ScrubCursor::default(), 1000);
    assert_eq!(step, Scrubbed { checked: 0, withdrawn: 0, wrapped: true });
    assert_eq!(mm.get_free_page(GFP_KERNEL).unwrap().as_ptr(), page);
}
