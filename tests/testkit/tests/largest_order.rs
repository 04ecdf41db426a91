//! The largest order a backend can have: blocks of 32 MiB.

#[macro_use]
mod common;

use backend_nommu::Arena;
use common::steps::{exact, fail_each};
use common::{PAGE, TestMm, state, unchanged};
use mm_core::*;
use proptest::prelude::*;
use rtmm_testkit::rig::Rig;

type Large = Arena<13>;
const LARGEST: usize = PAGE << 13;

/// Three of the largest blocks, as far as the tables leave them whole.
fn rig() -> Rig<Large> {
    Rig::arena(0x4000_0000, 4 * LARGEST as u64)
}

#[test]
fn kmalloc_serves_32_mib_and_not_a_byte_more() {
    rig().nothing_lost(|mm| {
        assert_eq!(LARGEST, 32 << 20);
        let at = mm.kmalloc(LARGEST, GFP_KERNEL).unwrap().as_ptr();
        assert_eq!((mm.ksize(at), at.addr() % LARGEST), (Ok(LARGEST), 0));
        // SAFETY: 32 MiB of ours; the first and the last byte are touched.
        unsafe {
            at.write(1);
            at.add(LARGEST - 1).write(2);
        }
        assert_eq!(unchanged(mm, || mm.kmalloc(LARGEST + 1, GFP_KERNEL)), Err(AllocError::TooBig));
        assert_eq!(unchanged(mm, || mm.get_free_pages(GFP_KERNEL, 14)), Err(AllocError::BadOrder));
        assert_eq!(unchanged(mm, || mm.alloc_pages_exact(LARGEST + 1, GFP_KERNEL)), Err(AllocError::TooBig));
        // An exact size: the rest of the block is free.
        let free = mm.free_page_count();
        let odd = mm.kmalloc(LARGEST - 3 * PAGE, GFP_KERNEL).unwrap().as_ptr();
        assert_eq!(free - mm.free_page_count(), (1 << 13) - 3);
        mm.kfree(odd).unwrap();
        mm.kfree(at).unwrap();
        let area = mm.vmalloc(LARGEST).unwrap().as_ptr();
        mm.vfree(area).unwrap();
    });
}

#[test]
fn blocks_of_every_order_come_aligned_and_go_back_whole() {
    rig().nothing_lost(|mm| {
        let whole = mm.buddyinfo().largest();
        assert_eq!(whole, Some(13));
        for order in 0..=13 {
            let block = mm.alloc_pages(GFP_KERNEL, order).unwrap();
            assert_eq!(block.0 % (1 << order), 0);
            mm.check().unwrap();
            mm.free_pages_frame(block, order).unwrap();
        }
        let mut pages = Vec::new();
        while let Ok(page) = mm.get_free_page(GFP_ATOMIC | Gfp::NOWARN) {
            pages.push(page);
        }
        assert!(mm.alloc_pages(GFP_ATOMIC | Gfp::NOWARN, 13).is_err());
        for start in [1, 0] {
            pages.iter().skip(start).step_by(2).for_each(|page| mm.free_page(page.as_ptr()).unwrap());
        }
        assert_eq!(mm.buddyinfo().largest(), whole);
        let block = mm.alloc_pages(GFP_KERNEL, 13).unwrap();
        mm.split_page(block, 13).unwrap();
        (0..1 << 13).rev().for_each(|page| mm.free_pages_frame(Pfn(block.0 + page), 0).unwrap());
        assert_eq!(mm.buddyinfo().largest(), whole);
    });
}

#[test]
fn wrong_frees_of_the_largest_blocks_are_refused() {
    rig().nothing_lost(|mm| {
        let block = mm.get_free_pages(GFP_KERNEL, 13).unwrap().as_ptr();
        let object = mm.kmalloc(LARGEST, GFP_KERNEL).unwrap().as_ptr();
        let before = state(mm);
        for order in (0..13).chain([14, 15, 16, 32, 64, usize::MAX]) {
            assert_eq!(mm.free_pages(block, order), Err(FreeError::WrongOrder), "order {order}");
        }
        // A count that 16 bits would cut down to the block's, and to none.
        for pages in [0, (1 << 13) - 1, (1 << 13) + 1, (1 << 13) + (1 << 16), 1 << 16] {
            assert_eq!(mm.free_pages_exact(block, pages * PAGE), Err(FreeError::WrongOrder), "{pages} pages");
        }
        for page in (0..13).map(|order| 1 << order) {
            for order in [0, 12, 13] {
                assert_eq!(mm.free_pages(block.wrapping_add(page * PAGE), order), Err(FreeError::Interior));
            }
            assert_eq!(mm.kfree(object.wrapping_add(page * PAGE)), Err(FreeError::Interior));
            assert_eq!(mm.kfree(object.wrapping_add(page * PAGE + 8)), Err(FreeError::Interior));
        }
        assert_eq!(mm.kfree(block), Err(FreeError::WrongAllocator));
        assert_eq!(mm.free_pages(object, 13), Err(FreeError::WrongAllocator));
        assert_eq!(state(mm), before);
        mm.kfree(object).unwrap();
        mm.free_pages(block, 13).unwrap();
        assert_eq!(unchanged(mm, || mm.free_pages(block, 13)), Err(FreeError::DoubleFree));
        assert_eq!(unchanged(mm, || mm.kfree(object)), Err(FreeError::DoubleFree));
        // References count there too.
        let block = mm.alloc_pages(GFP_KERNEL | Gfp::COMP, 13).unwrap();
        mm.get_page(Pfn(block.0 + (1 << 13) - 1)).unwrap();
        mm.free_pages_frame(block, 13).unwrap();
        assert_eq!(mm.page_count(Pfn(block.0 + 5)), 1);
        mm.put_page(Pfn(block.0 + 4096)).unwrap();
    });
}

#[test]
fn each_step_of_the_largest_requests_can_fail() {
    rig().nothing_lost(|mm: &TestMm<Large>| {
        let object = fail_each(mm, "kmalloc of 32 MiB", |plan| {
            let p = exact(plan, || plan.mm.kmalloc(LARGEST, GFP_KERNEL))?;
            Ok(plan.mm.kfree(p.as_ptr())?)
        });
        assert_eq!(object, 1);
        fail_each(mm, "pages of order 13", |plan| {
            let p = exact(plan, || plan.mm.get_free_pages(GFP_KERNEL, 13))?;
            Ok(plan.mm.free_pages(p.as_ptr(), 13)?)
        });
        fail_each(mm, "vmalloc of 32 MiB", |plan| {
            let p = plan.during(|| plan.mm.vmalloc(LARGEST))?;
            Ok(plan.mm.vfree(p.as_ptr())?)
        });
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 20 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Sizes near every power of two, in any order.
    #[test]
    fn blocks_of_any_length_do_not_overlap(
        steps in prop::collection::vec((0u32..14, -2i64..3, any::<bool>()), 1..if cfg!(miri) { 4 } else { 60 }),
    ) {
        rig().nothing_lost(|mm| {
            let mut live: Vec<(u32, u32)> = Vec::new();
            for (order, more, free) in steps {
                if free && !live.is_empty() {
                    let (start, pages) = live.swap_remove(order as usize % live.len());
                    mm.free_pages_exact_frame(Pfn(start), pages as usize * PAGE).unwrap();
                    continue;
                }
                let pages = ((1i64 << order) + more).clamp(1, 1 << 13) as u32;
                if let Ok(block) = mm.alloc_pages_exact_frame(pages as usize * PAGE, GFP_KERNEL | Gfp::NOWARN) {
                    prop_assert_eq!(block.0 % pages.next_power_of_two(), 0);
                    let apart = |&(start, length): &(u32, u32)| start + length <= block.0 || block.0 + pages <= start;
                    prop_assert!(live.iter().all(apart));
                    live.push((block.0, pages));
                }
            }
            mm.check().unwrap();
            for (start, pages) in live {
                mm.free_pages_exact_frame(Pfn(start), pages as usize * PAGE).unwrap();
            }
            Ok(())
        })?;
    }
}
