//! Which end of memory an area is taken from without an MMU.

mod common;

use common::{PAGE, drained};
use mm_core::*;
use rtmm_testkit::rig::Rig;

const LONG: AreaOptions = AreaOptions::new().life(AreaLife::Long);
const START: u64 = 1 << 30;
const LEN: u64 = 16 << 20;

#[test]
fn areas_that_stay_lie_above_all_that_comes_and_goes() {
    Rig::nommu(START, LEN).nothing_lost(|mm| {
        let (mut long, mut small, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..40 {
            small.extend((0..30).map(|j| mm.kmalloc(8 + 61 * ((i + j) % 50), GFP_KERNEL).unwrap()));
            blocks.push((mm.get_free_pages(GFP_KERNEL, i % 3).unwrap(), i % 3));
            long.push(mm.vmalloc_with((2 + i) * PAGE, &LONG).unwrap());
        }
        let lowest = long.iter().min().unwrap();
        assert!(small.iter().chain(blocks.iter().map(|(block, _)| block)).all(|other| other < lowest));
        mm.check().unwrap();
        // Without them the rest is one piece again, but for the areas' records.
        small.into_iter().for_each(|object| mm.kfree(object.as_ptr()).unwrap());
        blocks.into_iter().for_each(|(block, order)| mm.free_pages(block.as_ptr(), order).unwrap());
        drained(mm);
        let blocks = [(); 3].map(|()| mm.get_free_pages(GFP_KERNEL, 8).unwrap());
        blocks.into_iter().for_each(|block| mm.free_pages(block.as_ptr(), 8).unwrap());
        long.into_iter().for_each(|area| mm.vfree(area.as_ptr()).unwrap());
    });
}

#[test]
fn a_mebibyte_and_a_page_takes_exactly_257_pages() {
    Rig::nommu(START, LEN).nothing_lost(|mm| {
        let first = mm.vmalloc(PAGE).unwrap();
        for options in [AreaOptions::new(), LONG] {
            let before = mm.free_page_count();
            let area = mm.vmalloc_with((1 << 20) + PAGE, &options).unwrap();
            assert_eq!(before - mm.free_page_count(), 257);
            mm.vfree(area.as_ptr()).unwrap();
            assert_eq!(mm.free_page_count(), before);
        }
        mm.vfree(first.as_ptr()).unwrap();
    });
}

#[test]
fn alignment_is_honoured_at_the_high_end() {
    Rig::nommu(START, LEN).nothing_lost(|mm| {
        let first = mm.vmalloc(PAGE).unwrap();
        for pages in [1, 2, 3, 5, 64, 65, 100, 257] {
            for shift in [0, 1, 3, 7] {
                let before = mm.free_page_count();
                let area = mm.vmalloc_with(pages * PAGE, &LONG.align(PAGE << shift)).unwrap();
                assert!(area.addr().get().is_multiple_of(PAGE << shift), "{pages} pages at {area:?}");
                assert_eq!(before - mm.free_page_count(), pages);
                mm.check().unwrap();
                mm.vfree(area.as_ptr()).unwrap();
            }
        }
        mm.vfree(first.as_ptr()).unwrap();
    });
}

#[test]
fn the_high_end_goes_on_below_when_it_is_full() {
    Rig::nommu(START, LEN).nothing_lost(|mm| {
        let mut areas = Vec::new();
        while let Ok(area) = mm.vmalloc_with(5 * PAGE, &LONG.flags(GFP_ATOMIC)) {
            areas.push(area);
        }
        // All but what no five pages fit into: each word of free bits may keep runs without an aligned block of eight.
        let words = LEN as usize / PAGE / usize::BITS as usize;
        assert!(mm.free_page_count() < 8 * words, "{} pages are left", mm.free_page_count());
        mm.check().unwrap();
        areas.into_iter().for_each(|area| mm.vfree(area.as_ptr()).unwrap());
    });
}

#[test]
fn a_long_life_means_nothing_to_page_tables() {
    common::mmu().nothing_lost(|mm| {
        let area = mm.vmalloc_with(5 * PAGE, &LONG).unwrap();
        mm.vfree(area.as_ptr()).unwrap();
    });
}
