//! What `get_free_pages` and its relatives promise.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};
    use heapless::Vec;
    use oorandom::Rand32;
    use rtmm::{
        AllocError, Backend, Depth, FreeError, GFP_ATOMIC, GFP_DMA, GFP_KERNEL, GFP_NOWAIT, Gfp, Pages, Pfn, RefError,
        ZoneKind,
    };
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{Bytes, Hoard, LARGEST, MANY, MAX_ORDER, NothingLost, PAGE, fragment};

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    #[test]
    fn a_block_is_aligned_to_its_size() {
        for order in 0..=MAX_ORDER {
            // A small board may be unable to give the largest orders beside its own tables.
            let Ok(block) = Bytes::pages(GFP_KERNEL | Gfp::NOWARN, order) else {
                assert!(order > MAX_ORDER - 2, "order {order} of fresh memory");
                continue;
            };
            let frame = MM.backend().direct_frame(block.addr());
            assert_eq!(frame % (1 << order), 0, "order {order}");
            block.free().unwrap();
        }
    }

    #[test]
    fn a_block_takes_exactly_its_pages_and_gives_them_back() {
        for order in 0..=MAX_ORDER - 2 {
            let before = MM.free_page_count();
            let block = Bytes::pages(GFP_KERNEL, order).unwrap();
            MM.drain();
            assert_eq!(MM.free_page_count(), before - (1 << order), "order {order}");
            block.free().unwrap();
            MM.drain();
            assert_eq!(MM.free_page_count(), before, "order {order}");
        }
    }

    #[test]
    fn live_blocks_do_not_overlap() {
        let mut blocks: Vec<Bytes, MANY> = Vec::new();
        for seed in 0..MANY as u8 {
            let mut block = Bytes::pages(GFP_KERNEL, usize::from(seed) % 4).unwrap();
            block.fill(seed);
            blocks.push(block).unwrap();
        }
        for (seed, block) in (0..MANY as u8).zip(&blocks) {
            assert!(block.holds(seed), "block {seed} was overwritten");
        }
        for block in blocks {
            block.free().unwrap();
        }
    }

    #[test]
    fn a_zeroed_page_is_zero_even_where_dirt_was() {
        let mut dirty = Bytes::pages(GFP_KERNEL, 0).unwrap();
        dirty.fill(0xa5);
        let addr = dirty.addr();
        dirty.free().unwrap();
        // Out of what a CPU keeps, where there are several.
        MM.drain();
        let mut reused = false;
        let mut pages: Vec<Bytes, 64> = Vec::new();
        while !reused && !pages.is_full() {
            let page = Bytes::pages(GFP_KERNEL | Gfp::ZERO, 0).unwrap();
            assert!(page.holds(0));
            reused = page.addr() == addr;
            pages.push(page).unwrap();
        }
        assert!(reused, "64 pages and none is the one just freed");
        for page in pages {
            page.free().unwrap();
        }
        let page = MM.get_zeroed_page(GFP_KERNEL).unwrap();
        MM.free_page(page.as_ptr()).unwrap();
    }

    #[test]
    fn a_zeroed_block_is_zero_in_every_page() {
        let mut dirty = Bytes::pages(GFP_KERNEL, 3).unwrap();
        dirty.fill(0x5a);
        dirty.free().unwrap();
        let block = Bytes::pages(GFP_KERNEL | Gfp::ZERO, 3).unwrap();
        assert!(block.holds(0));
        block.free().unwrap();
    }

    #[test]
    fn the_exact_form_keeps_no_page_of_the_tail() {
        for pages in [1, 2, 3, 5, 17, 33, 100].into_iter().filter(|pages| pages * PAGE <= LARGEST) {
            let before = MM.free_page_count();
            let mut block = Bytes::exact(pages * PAGE - 1, GFP_KERNEL).unwrap();
            MM.drain();
            assert_eq!(MM.free_page_count(), before - pages, "{pages} pages");
            block.fill(0x11);
            assert!(block.holds(0x11));
            block.free().unwrap();
        }
    }

    #[test]
    fn all_memory_can_be_taken_and_comes_back_whole() {
        let largest = (0..=MAX_ORDER)
            .rev()
            .find(|order| Bytes::pages(GFP_KERNEL | Gfp::NOWARN, *order).map(|block| block.free().unwrap()).is_ok());
        let hoard = Hoard::of_everything();
        assert_eq!(MM.get_free_page(GFP_ATOMIC | Gfp::NOWARN), Err(AllocError::NoMemory));
        MM.check().unwrap();
        hoard.free();
        MM.drain();
        let block = Bytes::pages(GFP_KERNEL, largest.unwrap()).unwrap();
        block.free().unwrap();
    }

    #[test]
    fn an_exhausted_manager_serves_again_after_one_free() {
        let hoard = Hoard::of_everything();
        assert!(MM.get_free_page(GFP_ATOMIC | Gfp::NOWARN).is_err());
        let hoard = hoard.free_every_second();
        let page = Bytes::pages(GFP_KERNEL, 0).unwrap();
        page.free().unwrap();
        hoard.free();
    }

    #[test]
    fn scattered_pages_serve_single_pages_but_no_pair() {
        let hoard = fragment();
        assert!(MM.free_page_count() > (LARGEST / PAGE).min(500));
        let pair = MM.get_free_pages(GFP_KERNEL | Gfp::NOWARN, 1);
        assert!(matches!(pair, Err(AllocError::NoContig | AllocError::NoMemory)), "{pair:?}");
        let page = Bytes::pages(GFP_KERNEL, 0).unwrap();
        page.free().unwrap();
        hoard.free();
    }

    #[test]
    fn random_blocks_keep_their_bytes_and_free_in_any_order() {
        let mut random = Rand32::new(1);
        let mut live: Vec<(Bytes, u8), 128> = Vec::new();
        for round in 0..2000u32 {
            if live.is_full() || (!live.is_empty() && random.rand_range(0..2) == 0) {
                let (block, seed) = live.swap_remove(random.rand_range(0..live.len() as u32) as usize);
                assert!(block.holds(seed), "round {round}");
                block.free().unwrap();
            } else {
                let order = random.rand_range(0..4) as usize;
                let seed = round as u8;
                if let Ok(mut block) = Bytes::pages(GFP_NOWAIT | Gfp::NOWARN, order) {
                    block.fill(seed);
                    live.push((block, seed)).unwrap();
                }
            }
            if round % 256 == 0 {
                MM.check().unwrap();
            }
        }
        for (block, seed) in live {
            assert!(block.holds(seed));
            block.free().unwrap();
        }
    }

    #[test]
    fn an_owner_gives_its_block_back_when_dropped() {
        let before = MM.free_page_count();
        let pages = Pages::new_in(GFP_KERNEL, 2, &MM).unwrap();
        MM.drain();
        assert_eq!(MM.free_page_count(), before - 4);
        drop(pages);
        MM.drain();
        assert_eq!(MM.free_page_count(), before);
    }

    #[test]
    fn a_dma_request_is_never_served_from_a_higher_zone() {
        let zones = MM.zoneinfo();
        let dma = zones.zones().iter().find(|zone| zone.kind == ZoneKind::Dma);
        let Some(dma) = dma else {
            assert_eq!(MM.get_free_page(GFP_ATOMIC | GFP_DMA | Gfp::NOWARN), Err(AllocError::NoMemory));
            return;
        };
        let hoard = Hoard::of(GFP_ATOMIC | GFP_DMA | Gfp::NOWARN);
        assert!(hoard.count() > 0);
        assert!(hoard.all(|frame| (dma.span.0 as usize..dma.span.1 as usize).contains(&frame)));
        // The zone is empty, and the others are not.
        let page = Bytes::pages(GFP_KERNEL, 0).unwrap();
        page.free().unwrap();
        hoard.free();
    }

    /// The frame behind an address of the image, or of the stack.
    fn image_frame(addr: usize) -> usize {
        #[cfg(feature = "board-qemu-x86_64")]
        {
            use rtmm::{PageTable, VirtAddr, Walk};
            match MM.backend().walk_kernel(VirtAddr(addr)) {
                Walk::Mapped(mapping) => mapping.pfn.0 as usize,
                other => panic!("{addr:#x} is {other:?}"),
            }
        }
        #[cfg(not(feature = "board-qemu-x86_64"))]
        MM.backend().direct_frame(addr)
    }

    /// The image, the stack, the device tree, boot tables, the firmware's memory: all that the board knows to be in use.
    #[test]
    fn what_the_board_reserved_is_never_handed_out() {
        static STATIC: AtomicUsize = AtomicUsize::new(0);
        let local = AtomicUsize::new(0);
        let code = init as fn() -> NothingLost as usize;
        let image = [STATIC.as_ptr().addr(), local.as_ptr().addr(), code, board::NAME.as_ptr().addr()].map(image_frame);
        // First and last frame of each.
        let mut reserved: Vec<(usize, usize), 32> = Vec::new();
        board::reserved(|range| {
            if !range.is_empty() {
                let frame = |byte: u64| (byte / PAGE as u64) as usize;
                reserved.push((frame(range.start), frame(range.end - 1))).expect("room for every range");
            }
        });
        let is_reserved = |frame: usize| reserved.iter().any(|&(first, last)| (first..=last).contains(&frame));
        // A process has these elsewhere than in the machine's memory.
        assert!(board::NAME == "host" || image.iter().all(|&frame| is_reserved(frame)), "{image:?} in {reserved:?}");
        assert!(!reserved.is_empty());
        let hoard = Hoard::of_everything();
        assert!(hoard.all(|frame| !image.contains(&frame)));
        assert!(hoard.all(|frame| !is_reserved(frame)), "a page of {reserved:?}");
        hoard.free();
    }

    #[test]
    fn an_ordinary_request_falls_back_to_lower_zones() {
        let hoard = Hoard::of_everything();
        for zone in MM.zoneinfo().zones() {
            // Each zone is taken, but for what it keeps from requests for its own kind.
            let kept = zone.marks.limit(zone.kind, Depth::Atomic);
            assert!(zone.free <= kept, "{:?}: {} free, {kept} kept", zone.kind, zone.free);
        }
        hoard.free();
    }

    #[test]
    fn a_referenced_page_outlives_its_owner_s_free() {
        let page = MM.alloc_page(GFP_KERNEL).unwrap();
        let free = MM.free_page_count();
        MM.get_page(page).unwrap();
        MM.free_pages_frame(page, 0).unwrap();
        assert_eq!((MM.page_count(page), MM.free_page_count()), (1, free));
        assert_eq!(MM.free_pages_frame(page, 0), Err(FreeError::DoubleFree));
        MM.put_page(page).unwrap();
        assert_eq!((MM.page_count(page), MM.free_page_count()), (0, free + 1));
        assert_eq!(MM.get_page(page), Err(RefError::Free));
    }

    #[test]
    fn a_split_block_is_as_many_pages_of_their_own() {
        let block = MM.alloc_pages(GFP_KERNEL, 3).unwrap();
        MM.split_page(block, 3).unwrap();
        for page in (0..8).rev() {
            MM.free_pages_frame(Pfn(block.0 + page), 0).unwrap();
        }
    }

    #[test]
    fn many_pages_come_and_go_at_a_time() {
        let mut pages = [None; 40];
        assert_eq!(MM.alloc_pages_bulk(GFP_KERNEL | Gfp::ZERO, &mut pages), Ok(40));
        for (i, pfn) in pages.iter().flatten().enumerate() {
            let at = MM.page_address(*pfn).unwrap();
            assert!(!pages[..i].contains(&Some(*pfn)));
            // SAFETY: a page of ours.
            unsafe {
                assert_eq!(at.add(PAGE - 1).read(), 0);
                at.write_bytes(i as u8, PAGE);
            }
        }
        MM.free_pages_bulk(&mut pages).unwrap();
        assert_eq!(pages, [None; 40]);
    }

    #[test]
    fn an_interrupt_may_take_and_give_back_pages() {
        static DONE: AtomicUsize = AtomicUsize::new(0);
        board::in_interrupt(|| {
            let mut block = Bytes::pages(GFP_ATOMIC, 1).unwrap();
            block.fill(7);
            assert!(block.holds(7));
            block.free().unwrap();
            DONE.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(DONE.load(Ordering::Relaxed), 1);
    }
}
