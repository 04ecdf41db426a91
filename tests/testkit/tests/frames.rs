//! Pages by frame number: with a kernel address or without.

#[macro_use]
mod common;

use common::{PAGE, TestMm, frames, highmem, unchanged};
use mm_core::*;
use std::ptr::{null, without_provenance};

both! {
    a_block_by_frame_is_the_one_by_address;
    frame_and_address_are_each_other_s_inverse;
    wrong_frees_by_frame_are_refused;
    requests_by_frame_that_make_no_sense_are_refused;
}

/// The physical address of a frame.
fn phys(pfn: Pfn) -> u64 {
    pfn.phys(12).0
}

/// Every byte of a frame is `byte`.
fn holds<B: Backend>(mm: &TestMm<B>, pfn: Pfn, byte: u8) -> bool {
    let mut found = vec![!byte; PAGE];
    // SAFETY: a frame of the manager's RAM; a page is copied.
    unsafe { mm.backend().with_frame(pfn, |p| p.copy_to_nonoverlapping(found.as_mut_ptr(), PAGE)) };
    found == vec![byte; PAGE]
}

fn fill<B: Backend>(mm: &TestMm<B>, pfn: Pfn, byte: u8) {
    // SAFETY: a frame the test owns.
    unsafe { mm.backend().with_frame(pfn, |p| p.write_bytes(byte, PAGE)) };
}

fn a_block_by_frame_is_the_one_by_address<B: Backend>(mm: &TestMm<B>) {
    for order in 0..=4 {
        let pfn = mm.alloc_pages(GFP_KERNEL, order).unwrap();
        assert_eq!(pfn.0 % (1 << order), 0, "order {order}");
        let at = mm.page_address(pfn).unwrap().as_ptr();
        if order % 2 == 0 { mm.free_pages(at, order) } else { mm.free_pages_frame(pfn, order) }.unwrap();

        let at = mm.get_free_pages(GFP_KERNEL, order).unwrap();
        let pfn = mm.pfn_of(at.as_ptr()).unwrap();
        mm.free_pages_frame(pfn, order).unwrap();
    }
    let pfn = mm.alloc_page(GFP_KERNEL).unwrap();
    fill(mm, pfn, 0xa5);
    mm.free_pages_frame(pfn, 0).unwrap();
    let zeroed = mm.alloc_pages(GFP_KERNEL | Gfp::ZERO, 1).unwrap();
    assert!(holds(mm, zeroed, 0) && holds(mm, Pfn(zeroed.0 + 1), 0));
    mm.free_pages_frame(zeroed, 1).unwrap();
}

fn frame_and_address_are_each_other_s_inverse<B: Backend>(mm: &TestMm<B>) {
    for pfn in frames(mm).into_iter().step_by(if cfg!(miri) { 61 } else { 1 }).map(Pfn) {
        let at = mm.page_address(pfn).unwrap().as_ptr();
        for inside in [0, 1, PAGE - 1] {
            assert_eq!(mm.pfn_of(at.wrapping_add(inside)), Some(pfn));
        }
    }
    let last = *frames(mm).last().unwrap();
    for nothing in [0, last + 1, u32::MAX - 1, u32::MAX] {
        assert_eq!(mm.page_address(Pfn(nothing)), None);
    }
    let here = 0u8;
    for foreign in [null(), &raw const here, without_provenance(usize::MAX), without_provenance(usize::MAX / 2)] {
        assert_eq!(mm.pfn_of(foreign), None);
    }
}

fn wrong_frees_by_frame_are_refused<B: Backend>(mm: &TestMm<B>) {
    let refused = |pfn, order| unchanged(mm, || mm.free_pages_frame(pfn, order)).unwrap_err();
    let block = mm.alloc_pages(GFP_KERNEL, 2).unwrap();
    for order in [0, 1, 3, 11, 32, 64, usize::MAX] {
        assert_eq!(refused(block, order), FreeError::WrongOrder);
    }
    assert_eq!(refused(Pfn(block.0 + 1), 0), FreeError::Interior);
    mm.free_pages_frame(block, 2).unwrap();
    for order in [0, 2, usize::MAX] {
        assert_eq!(refused(block, order), FreeError::DoubleFree);
    }
    let object = mm.kmalloc(64, GFP_KERNEL).unwrap().as_ptr();
    assert_eq!(refused(mm.pfn_of(object).unwrap(), 0), FreeError::WrongAllocator);
    mm.kfree(object).unwrap();
    for nothing in [0, *frames(mm).last().unwrap() + 1, u32::MAX] {
        assert_eq!(refused(Pfn(nothing), 0), FreeError::Foreign);
    }
}

fn requests_by_frame_that_make_no_sense_are_refused<B: Backend>(mm: &TestMm<B>) {
    let refused = |flags, order| unchanged(mm, || mm.alloc_pages(flags, order)).unwrap_err();
    for order in [B::MAX_ORDER + 1, 32, 64, usize::MAX] {
        assert_eq!(refused(GFP_KERNEL, order), AllocError::BadOrder);
    }
    assert_eq!(refused(Gfp(1 << 31), 0), AllocError::BadFlags);
    assert_eq!(refused(GFP_DMA | Gfp::HIGHMEM, 0), AllocError::BadFlags);
}

/// Frames past low memory come only to those who said that they need no address, and can be used all the same.
#[test]
fn highmem_comes_by_frame_only() {
    let rig = highmem();
    let low_end = rig.mm.backend().lowmem_end();
    rig.nothing_lost(|mm| {
        let high = mm.alloc_pages(GFP_HIGHUSER | Gfp::ZERO, 1).unwrap();
        assert!(phys(high) >= low_end);
        assert_eq!(mm.page_address(high), None);
        for frame in [high, Pfn(high.0 + 1)] {
            assert!(holds(mm, frame, 0));
            fill(mm, frame, 0x5a);
            assert!(holds(mm, frame, 0x5a));
        }
        mm.free_pages_frame(high, 1).unwrap();

        // Low memory only for those who need an address, high memory first for the others.
        let mut taken = Vec::new();
        while let Ok(pfn) = mm.alloc_page(GFP_ATOMIC) {
            assert!(phys(pfn) < low_end);
            taken.push(pfn);
        }
        assert!(mm.get_free_page(GFP_ATOMIC).is_err());
        let low = taken.len();
        while let Ok(pfn) = mm.alloc_page(GFP_ATOMIC | Gfp::HIGHMEM) {
            assert!(phys(pfn) >= low_end);
            taken.push(pfn);
        }
        assert!(taken.len() > low);
        for pfn in taken {
            mm.free_pages_frame(pfn, 0).unwrap();
        }
    });
}
