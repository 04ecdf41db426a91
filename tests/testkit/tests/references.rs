//! References on pages, splitting, and many pages at a time.

#[macro_use]
mod common;

use common::{PAGE, TestMm, frames, highmem, unchanged};
use mm_core::*;
use proptest::prelude::*;

both! {
    a_referenced_page_outlives_its_owner_s_free;
    the_tail_of_a_freed_block_returns_at_once;
    a_compound_page_outlives_it_as_a_whole;
    references_are_counted_up_to_the_last;
    a_reference_nobody_took_is_refused;
    a_page_that_is_no_page_of_pages_is_refused;
    a_split_block_is_freed_page_by_page;
    splits_of_what_is_no_such_block_are_refused;
    owned_forms_give_back_what_they_took;
    bulk_fills_what_is_empty;
    bulk_returns_what_there_was;
    a_bulk_free_stops_at_the_first_wrong_page;
}

fn page<B: Backend>(mm: &TestMm<B>) -> Pfn {
    mm.alloc_page(GFP_KERNEL).unwrap()
}

fn a_referenced_page_outlives_its_owner_s_free<B: Backend>(mm: &TestMm<B>) {
    let free = mm.free_page_count();
    let p = page(mm);
    assert_eq!(mm.page_count(p), 1);
    mm.get_page(p).unwrap();
    mm.get_page(p).unwrap();
    assert_eq!(mm.page_count(p), 3);
    mm.free_pages_frame(p, 0).unwrap();
    assert_eq!((mm.page_count(p), mm.free_page_count()), (2, free - 1));
    // It belongs to nobody who could free it again, and to nobody else.
    assert_eq!(unchanged(mm, || mm.free_pages_frame(p, 0)), Err(FreeError::DoubleFree));
    assert_eq!(unchanged(mm, || mm.split_page(p, 0)), Err(FreeError::DoubleFree.into()));
    let others: Vec<_> = std::iter::from_fn(|| mm.alloc_page(GFP_ATOMIC | Gfp::NOWARN).ok()).collect();
    assert!(!others.is_empty() && !others.contains(&p));
    others.into_iter().for_each(|other| mm.free_pages_frame(other, 0).unwrap());
    mm.get_page(p).unwrap();
    for left in [2, 1, 0] {
        mm.put_page(p).unwrap();
        assert_eq!((mm.page_count(p), mm.free_page_count() == free), (left, left == 0));
        mm.check().unwrap();
    }
    assert_eq!(unchanged(mm, || mm.put_page(p)), Err(RefError::Free));
    assert_eq!(unchanged(mm, || mm.get_page(p)), Err(RefError::Free));
}

fn the_tail_of_a_freed_block_returns_at_once<B: Backend>(mm: &TestMm<B>) {
    for bytes in [2 * PAGE, 3 * PAGE, 16 * PAGE] {
        let free = mm.free_page_count();
        let first = mm.alloc_pages_exact_frame(bytes, GFP_KERNEL).unwrap();
        mm.get_page(first).unwrap();
        assert_eq!(unchanged(mm, || mm.get_page(Pfn(first.0 + 1))), Err(RefError::Interior));
        assert_eq!(unchanged(mm, || mm.put_page(Pfn(first.0 + 1))), Err(RefError::Interior));
        mm.free_pages_exact_frame(first, bytes).unwrap();
        mm.check().unwrap();
        assert_eq!((mm.free_page_count(), mm.page_count(first)), (free - 1, 1));
        assert_eq!(unchanged(mm, || mm.get_page(Pfn(first.0 + 1))), Err(RefError::Free));
        assert_eq!(unchanged(mm, || mm.free_pages_exact_frame(first, bytes)), Err(FreeError::DoubleFree));
        mm.put_page(first).unwrap();
        assert_eq!(mm.free_page_count(), free);
    }
}

fn a_compound_page_outlives_it_as_a_whole<B: Backend>(mm: &TestMm<B>) {
    for order in [0, 1, 4] {
        let free = mm.free_page_count();
        let first = mm.alloc_pages(GFP_KERNEL | Gfp::COMP, order).unwrap();
        let last = Pfn(first.0 + (1 << order) - 1);
        mm.get_page(last).unwrap();
        assert_eq!((mm.page_count(first), mm.page_count(last)), (2, 2));
        assert_eq!(unchanged(mm, || mm.split_page(first, order)), Err(MmError::Busy(1)));
        mm.free_pages_frame(first, order).unwrap();
        mm.check().unwrap();
        assert_eq!((mm.free_page_count(), mm.page_count(last)), (free - (1 << order), 1));
        mm.put_page(first).unwrap();
        assert_eq!(mm.free_page_count(), free);
    }
}

fn references_are_counted_up_to_the_last<B: Backend>(mm: &TestMm<B>) {
    let p = page(mm);
    for n in 1..=255 {
        mm.get_page(p).unwrap();
        assert_eq!(mm.page_count(p), 1 + n);
    }
    assert_eq!(unchanged(mm, || mm.get_page(p)), Err(RefError::TooMany));
    mm.free_pages_frame(p, 0).unwrap();
    assert_eq!(unchanged(mm, || mm.get_page(p)), Err(RefError::TooMany));
    (0..255).for_each(|_| mm.put_page(p).unwrap());
    assert_eq!(mm.page_count(p), 0);
}

fn a_reference_nobody_took_is_refused<B: Backend>(mm: &TestMm<B>) {
    let p = page(mm);
    assert_eq!(unchanged(mm, || mm.put_page(p)), Err(RefError::NotHeld));
    mm.get_page(p).unwrap();
    mm.put_page(p).unwrap();
    assert_eq!(unchanged(mm, || mm.put_page(p)), Err(RefError::NotHeld));
    mm.free_pages_frame(p, 0).unwrap();
}

fn a_page_that_is_no_page_of_pages_is_refused<B: Backend>(mm: &TestMm<B>) {
    let (small, large) = (mm.kmalloc(64, GFP_KERNEL).unwrap(), mm.kmalloc(3 * PAGE, GFP_KERNEL).unwrap());
    let at = |p: std::ptr::NonNull<u8>| mm.pfn_of(p.as_ptr()).unwrap();
    let all = frames(mm);
    let cases = [
        (at(small), RefError::WrongAllocator),
        (at(large), RefError::WrongAllocator),
        (Pfn(0), RefError::Foreign),
        (Pfn(all[all.len() - 1] + 1), RefError::Foreign),
        (Pfn(u32::MAX), RefError::Foreign),
        // The tables of the manager.
        (Pfn(all[all.len() - 1]), RefError::Reserved),
    ];
    for (pfn, error) in cases {
        assert_eq!(unchanged(mm, || mm.get_page(pfn)), Err(error));
        assert_eq!(unchanged(mm, || mm.put_page(pfn)), Err(error));
        assert_eq!(mm.page_count(pfn), 0);
    }
    // Not one frame of the machine gives a reference that was not taken.
    for pfn in all.into_iter().step_by(if cfg!(miri) { 31 } else { 1 }) {
        assert!(mm.put_page(Pfn(pfn)).is_err());
    }
    mm.kfree(small.as_ptr()).unwrap();
    mm.kfree(large.as_ptr()).unwrap();
}

fn a_split_block_is_freed_page_by_page<B: Backend>(mm: &TestMm<B>) {
    for order in [0, 1, 4, 5, 6, if cfg!(miri) { 2 } else { 9 }] {
        let first = mm.alloc_pages(GFP_KERNEL, order).unwrap();
        mm.get_page(first).unwrap();
        mm.split_page(first, order).unwrap();
        mm.check().unwrap();
        assert_eq!(mm.page_count(first), 2);
        if order != 0 {
            assert_eq!(unchanged(mm, || mm.free_pages_frame(first, order)), Err(FreeError::WrongOrder));
            assert_eq!(unchanged(mm, || mm.split_page(first, order)), Err(FreeError::WrongOrder.into()));
        }
        mm.put_page(first).unwrap();
        // Every second one first.
        for start in [1, 0] {
            (start..1 << order).step_by(2).for_each(|i| mm.free_pages_frame(Pfn(first.0 + i), 0).unwrap());
            mm.check().unwrap();
        }
    }
    // A compound page that nobody refers to is one no more.
    let first = mm.alloc_pages(GFP_KERNEL | Gfp::COMP, 1).unwrap();
    mm.split_page(first, 1).unwrap();
    mm.get_page(first).unwrap();
    assert_eq!(mm.page_count(Pfn(first.0 + 1)), 1);
    mm.put_page(first).unwrap();
    (0..2).for_each(|i| mm.free_pages_frame(Pfn(first.0 + i), 0).unwrap());
}

fn splits_of_what_is_no_such_block_are_refused<B: Backend>(mm: &TestMm<B>) {
    let refused = |pfn, order| unchanged(mm, || mm.split_page(pfn, order)).unwrap_err();
    let first = mm.alloc_pages(GFP_KERNEL, 3).unwrap();
    for order in [0, 2, 4, B::MAX_ORDER + 1, 32, 64, usize::MAX] {
        assert_eq!(refused(first, order), FreeError::WrongOrder.into());
    }
    assert_eq!(refused(Pfn(first.0 + 4), 2), FreeError::Interior.into());
    mm.free_pages_frame(first, 3).unwrap();
    assert_eq!(refused(first, 3), FreeError::DoubleFree.into());
    let large = mm.kmalloc(8 * PAGE, GFP_KERNEL).unwrap().as_ptr();
    assert_eq!(refused(mm.pfn_of(large).unwrap(), 3), FreeError::WrongAllocator.into());
    mm.kfree(large).unwrap();
    assert_eq!(refused(Pfn(u32::MAX), 3), FreeError::Foreign.into());
}

fn owned_forms_give_back_what_they_took<B: Backend>(mm: &TestMm<B>) {
    let free = mm.free_page_count();
    let taken = || free - mm.free_page_count();
    let pages = Pages::exact_in(5 * PAGE - 1, GFP_KERNEL, mm).unwrap();
    assert_eq!((pages.len(), pages.order(), taken()), (5 * PAGE, 3, 5));
    assert_eq!(mm.page_address(pages.frame()).unwrap().as_ptr(), pages.as_ptr());
    drop(pages);
    let pages = Pages::new_in(GFP_KERNEL, 2, mm).unwrap();
    assert_eq!((pages.len(), pages.order(), taken()), (4 * PAGE, 2, 4));
    let (start, order) = (pages.frame(), pages.order());
    mm.free_pages(pages.into_raw().as_ptr(), order).unwrap();
    let frames = Frames::new_in(GFP_KERNEL | Gfp::ZERO, 1, mm).unwrap();
    assert_eq!((frames.range().count, taken()), (2, 2));
    // SAFETY: one byte of a page.
    let read = |page: *mut u8| unsafe { page.add(PAGE - 1).read() };
    assert_eq!([0, 1, 2, u32::MAX].map(|i| frames.with_frame(i, read)), [Some(0), Some(0), None, None]);
    assert_eq!(mm.pfn_of(frames.address().unwrap().as_ptr()), Some(frames.range().start));
    drop(frames);
    let range = Frames::exact_in(3 * PAGE, GFP_KERNEL, mm).unwrap().into_raw();
    assert_eq!((range.count, taken()), (3, 3));
    mm.free_pages_exact_frame(range.start, 3 * PAGE).unwrap();
    assert_eq!(mm.page_count(start), 0);
}

fn bulk_fills_what_is_empty<B: Backend>(mm: &TestMm<B>) {
    for count in [0, 1, 31, 32, 33, 100] {
        let mut pages = vec![None; count];
        let kept = page(mm);
        if let Some(entry) = pages.get_mut(count / 2) {
            *entry = Some(kept);
        }
        let free = mm.free_page_count();
        assert_eq!(mm.alloc_pages_bulk(GFP_KERNEL | Gfp::ZERO, &mut pages), Ok(count));
        assert_eq!(free - mm.free_page_count(), count.saturating_sub(1));
        let mut seen: Vec<_> = pages.iter().map(|entry| entry.unwrap()).collect();
        assert!(count == 0 || seen[count / 2] == kept);
        for pfn in seen.iter().filter(|pfn| **pfn != kept) {
            let at = mm.page_address(*pfn).unwrap().as_ptr();
            // SAFETY: a page of ours.
            assert!(unsafe { std::slice::from_raw_parts(at, PAGE) } == vec![0; PAGE]);
            // SAFETY: as above.
            unsafe { at.write_bytes(0xff, PAGE) };
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
        if let Some(entry) = pages.get_mut(count / 2) {
            *entry = None;
        }
        mm.free_pages_bulk(&mut pages).unwrap();
        assert!(pages.iter().all(Option::is_none));
        mm.free_pages_frame(kept, 0).unwrap();
        mm.check().unwrap();
    }
    assert_eq!(unchanged(mm, || mm.alloc_pages_bulk(Gfp(1 << 31), &mut [None])), Err(AllocError::BadFlags));
}

fn bulk_returns_what_there_was<B: Backend>(mm: &TestMm<B>) {
    let mut pages = vec![None; mm.meminfo().total as usize / PAGE + 1];
    let filled = mm.alloc_pages_bulk(GFP_ATOMIC, &mut pages).unwrap();
    assert!(filled > 0 && filled < pages.len());
    assert!(pages[..filled].iter().all(Option::is_some) && pages[filled..].iter().all(Option::is_none));
    assert!(mm.get_free_page(GFP_ATOMIC).is_err(), "all was taken");
    mm.free_pages_bulk(&mut pages).unwrap();
    // A step that fails ends it early, and what came stays.
    mm.faults().fail_nth(FaultClass::Page, 2);
    let filled = mm.alloc_pages_bulk(GFP_KERNEL, &mut pages[..100]).unwrap();
    mm.faults().disarm();
    assert!((1..100).contains(&filled) && pages[filled..].iter().all(Option::is_none));
    mm.free_pages_bulk(&mut pages).unwrap();
}

fn a_bulk_free_stops_at_the_first_wrong_page<B: Backend>(mm: &TestMm<B>) {
    let mut pages = [None; 40];
    mm.alloc_pages_bulk(GFP_KERNEL, &mut pages).unwrap();
    let all = pages;
    let block = mm.alloc_pages(GFP_KERNEL, 1).unwrap();
    let cases = [
        (pages[0].unwrap(), FreeError::DoubleFree),
        (block, FreeError::WrongOrder),
        (Pfn(block.0 + 1), FreeError::Interior),
        (Pfn(u32::MAX), FreeError::Foreign),
    ];
    for (wrong, error) in cases {
        let right = pages[35].replace(wrong);
        assert_eq!(mm.free_pages_bulk(&mut pages), Err(error));
        assert!(pages[..35].iter().all(Option::is_none) && pages[36..] == all[36..] && pages[35] == Some(wrong));
        mm.check().unwrap();
        pages[35] = right;
        assert_eq!(mm.alloc_pages_bulk(GFP_KERNEL, &mut pages), Ok(40));
    }
    // One that others hold is deferred in its turn.
    let held = pages[3].unwrap();
    mm.get_page(held).unwrap();
    mm.free_pages_bulk(&mut pages).unwrap();
    assert_eq!(mm.page_count(held), 1);
    mm.put_page(held).unwrap();
    mm.free_pages_frame(block, 1).unwrap();
}

#[test]
fn bulk_reaches_high_memory_first_and_low_memory_after_it() {
    let rig = highmem();
    let low_end = rig.mm.backend().lowmem_end();
    rig.nothing_lost(|mm| {
        let zones = mm.zoneinfo();
        let high = zones.zones().iter().find(|zone| zone.kind == ZoneKind::HighMem).unwrap();
        let mut pages = vec![None; mm.free_page_count()];
        let filled = mm.alloc_pages_bulk(GFP_HIGHUSER, &mut pages).unwrap();
        let is_high = |pfn: &Option<Pfn>| pfn.unwrap().phys(12).0 >= low_end;
        // All that is high above the low mark, then what is low; at last, from either, what is above the minima.
        let first = pages[..filled].iter().take_while(|pfn| is_high(pfn)).count();
        assert_eq!(first, high.free - high.marks.low);
        assert_eq!(pages[..filled].iter().filter(|pfn| is_high(pfn)).count(), high.free - high.marks.min);
        assert_eq!((filled > first, mm.zoneinfo().spare(GFP_HIGHUSER)), (true, 0));
        // High and low ones mixed, in batches that meet both zones.
        pages[..filled].reverse();
        pages[..filled].chunks_mut(7).for_each(|chunk| chunk.reverse());
        mm.free_pages_bulk(&mut pages).unwrap();
    });
}

/// A step of a random life; the numbers choose among what is live.
#[derive(Clone, Copy, Debug)]
enum Step {
    Alloc(usize, bool),
    Get(usize, u32),
    Put(usize, u32),
    Free(usize, usize),
    Split(usize),
}

#[derive(Clone, Copy, Debug)]
struct Block {
    first: u32,
    pages: usize,
    owned: bool,
    refs: usize,
    compound: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0usize..64;
    let step = prop_oneof![
        3 => (1usize..10, any::<bool>()).prop_map(|(pages, compound)| Step::Alloc(pages, compound)),
        3 => (which.clone(), 0u32..10).prop_map(|(i, page)| Step::Get(i, page)),
        3 => (which.clone(), 0u32..10).prop_map(|(i, page)| Step::Put(i, page)),
        2 => (which.clone(), 1usize..10).prop_map(|(i, pages)| Step::Free(i, pages)),
        1 => which.prop_map(Step::Split),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 10 } else { 120 })
}

/// Does a step on both, and says what the model thinks of it.
fn step<B: Backend>(mm: &TestMm<B>, live: &mut Vec<Block>, step: Step) {
    let chosen = |i: usize| if live.is_empty() { None } else { Some(i % live.len()) };
    match step {
        Step::Alloc(pages, compound) => {
            let flags = if compound { GFP_KERNEL | Gfp::COMP } else { GFP_KERNEL };
            let first = mm.alloc_pages_exact_frame(pages * PAGE, flags).unwrap().0;
            live.push(Block { first, pages, owned: true, refs: 0, compound });
        }
        Step::Get(i, page) | Step::Put(i, page) => {
            let Some(i) = chosen(i) else { return };
            let block = &mut live[i];
            let page = page % block.pages as u32;
            let get = matches!(step, Step::Get(..));
            let did = if get { mm.get_page(Pfn(block.first + page)) } else { mm.put_page(Pfn(block.first + page)) };
            if page != 0 && !block.compound {
                assert_eq!(did, Err(RefError::Interior));
            } else if get {
                assert_eq!(did, Ok(()));
                block.refs += 1;
            } else if block.refs == 0 {
                assert_eq!(did, Err(RefError::NotHeld));
            } else {
                assert_eq!(did, Ok(()));
                block.refs -= 1;
            }
        }
        Step::Free(i, pages) => {
            let Some(i) = chosen(i) else { return };
            let block = &mut live[i];
            let did = mm.free_pages_exact_frame(Pfn(block.first), pages * PAGE);
            if !block.owned {
                assert_eq!(did, Err(FreeError::DoubleFree));
            } else if pages != block.pages {
                assert_eq!(did, Err(FreeError::WrongOrder));
            } else {
                assert_eq!(did, Ok(()));
                block.owned = false;
                block.pages = if block.compound { pages } else { 1 };
            }
        }
        Step::Split(i) => {
            let Some(i) = chosen(i) else { return };
            let block = live[i];
            let did = mm.split_page(Pfn(block.first), block.pages.ilog2() as usize);
            if !block.owned {
                assert_eq!(did, Err(FreeError::DoubleFree.into()));
            } else if !block.pages.is_power_of_two() {
                assert_eq!(did, Err(FreeError::WrongOrder.into()));
            } else if block.compound && block.refs != 0 {
                assert_eq!(did, Err(MmError::Busy(block.refs)));
            } else {
                assert_eq!(did, Ok(()));
                live[i] = Block { pages: 1, compound: false, ..block };
                let single = |k| Block { first: block.first + k, pages: 1, owned: true, refs: 0, compound: false };
                live.extend((1..block.pages as u32).map(single));
            }
        }
    }
    live.retain(|block| block.owned || block.refs != 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 200 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_page_is_there_as_long_as_anybody_holds_it(steps in steps()) {
        common::nommu().nothing_lost(|mm| {
            let (mut live, free) = (Vec::new(), mm.free_page_count());
            for one in steps {
                step(mm, &mut live, one);
                mm.check().unwrap_or_else(|damage| panic!("{damage} after {one:?}"));
                assert_eq!(free - mm.free_page_count(), live.iter().map(|block| block.pages).sum::<usize>());
                for block in &live {
                    assert_eq!(mm.page_count(Pfn(block.first)), block.refs + usize::from(block.owned));
                }
            }
            for block in live {
                if block.owned {
                    mm.free_pages_exact_frame(Pfn(block.first), block.pages * PAGE).unwrap();
                }
                (0..block.refs).for_each(|_| mm.put_page(Pfn(block.first)).unwrap());
            }
        });
    }
}
