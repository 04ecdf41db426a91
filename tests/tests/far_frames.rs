//! Frames wherever the machine has them: each request gets memory of its kind, near or far.
//!
//! The runner boots this suite a second time where a board takes more than 4 GiB of RAM, and says so by the word
//! `past-4g`: then there are frames that 32 address bits do not reach, and the tests use them.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 120)]
mod tests {
    use rtmm::{
        AllocError, Backend, FreeError, GFP_ATOMIC, GFP_DMA, GFP_DMA32, GFP_HIGHUSER, GFP_KERNEL, Gfp, KMap, Pfn,
        ZoneInfo, ZoneKind,
    };
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{Bytes, HAS_MMU, Hoard, MAX_ORDER, NothingLost, PAGE};

    const FOUR_GIB: u64 = 1 << 32;

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    fn phys(pfn: Pfn) -> u64 {
        pfn.phys(<board::Backend as Backend>::PAGE_SHIFT).0
    }

    /// True when the runner gave the machine RAM past 4 GiB.
    fn must_pass_four_gib() -> bool {
        board::args().split_ascii_whitespace().any(|word| word == "past-4g")
    }

    /// The zone a frame lies in.
    fn zone_of(pfn: Pfn) -> ZoneInfo {
        let info = MM.zoneinfo();
        *info.zones().iter().find(|zone| (zone.span.0..zone.span.1).contains(&pfn.0)).expect("a frame of a zone")
    }

    /// All blocks below 4 GiB that need no kernel address, so that what comes next lies past it.
    fn all_below() -> Hoard {
        let end = Pfn((FOUR_GIB >> <board::Backend as Backend>::PAGE_SHIFT) as u32);
        Hoard::of_blocks_below(end, GFP_HIGHUSER | Gfp::NOWARN, MAX_ORDER)
    }

    #[test]
    fn the_last_frame_lies_where_the_runner_says() {
        let end = MM.zoneinfo().zones().iter().map(|zone| zone.span.1).max().unwrap();
        // Where the runner says nothing, RAM may lie anywhere: a process has it where the system put it.
        assert!(!must_pass_four_gib() || phys(Pfn(end)) > FOUR_GIB, "RAM ends at {:#x}", phys(Pfn(end)));
    }

    #[test]
    fn each_request_gets_frames_of_the_highest_zone_it_may_use() {
        let of_flags = [
            (GFP_ATOMIC | GFP_DMA, ZoneKind::Dma),
            (GFP_ATOMIC | GFP_DMA32, ZoneKind::Dma32),
            (GFP_KERNEL, ZoneKind::Normal),
            (GFP_HIGHUSER, ZoneKind::HighMem),
        ];
        for (flags, kind) in of_flags {
            let info = MM.zoneinfo();
            let zones = info.zones().iter().filter(|zone| zone.kind <= kind && zone.spare(flags) > 0);
            let best = zones.map(|zone| zone.kind).max();
            match MM.alloc_page(flags | Gfp::NOWARN) {
                Ok(pfn) => {
                    assert_eq!(Some(zone_of(pfn).kind), best, "{flags:?} got frame {pfn}");
                    MM.free_pages_frame(pfn, 0).unwrap();
                }
                Err(error) => assert_eq!((error, best), (AllocError::NoMemory, None), "{flags:?}"),
            }
        }
    }

    #[test]
    fn what_has_an_address_lies_where_addresses_are() {
        let low_end = MM.backend().lowmem_end();
        for flags in [GFP_KERNEL, GFP_HIGHUSER] {
            let page = MM.get_free_page(flags).unwrap();
            let object = MM.kmalloc(100, flags).unwrap();
            let large = MM.kmalloc(5 * PAGE, flags).unwrap();
            for at in [page, object, large] {
                let pfn = MM.pfn_of(at.as_ptr()).unwrap();
                assert!(phys(pfn) < low_end && zone_of(pfn).kind != ZoneKind::HighMem, "{pfn}");
            }
            MM.free_page(page.as_ptr()).unwrap();
            MM.kfree(object.as_ptr()).unwrap();
            MM.kfree(large.as_ptr()).unwrap();
        }
    }

    #[test]
    fn frames_past_four_gib_keep_what_is_written() {
        if !must_pass_four_gib() {
            return;
        }
        let below = all_below();
        let block = MM.alloc_pages(GFP_HIGHUSER | Gfp::ZERO, 3).unwrap();
        assert!(phys(block) >= FOUR_GIB, "{block}");
        let frame = |page: u32| Pfn(block.0 + page);
        for page in 0..8 {
            let mapped = KMap::new_in(frame(page), &MM).unwrap();
            // SAFETY: a page of the test's, mapped.
            let bytes = unsafe { core::slice::from_raw_parts_mut(mapped.as_ptr(), PAGE) };
            assert!(bytes.iter().all(|byte| *byte == 0), "page {page} is not zeroed");
            bytes.fill(page as u8 + 1);
        }
        for page in 0..8 {
            // SAFETY: a frame of the test's; a page is read.
            let same = unsafe {
                MM.backend().with_frame(frame(page), |at| {
                    core::slice::from_raw_parts(at, PAGE).iter().all(|byte| *byte == page as u8 + 1)
                })
            };
            assert!(same, "page {page} holds something else");
        }
        assert_eq!(MM.free_pages_frame(frame(1), 0), Err(FreeError::Interior));
        assert_eq!(MM.free_pages_frame(block, 2), Err(FreeError::WrongOrder));
        MM.free_pages_frame(block, 3).unwrap();
        assert_eq!(MM.free_pages_frame(block, 3), Err(FreeError::DoubleFree));
        below.free();
    }

    #[test]
    fn areas_are_made_of_frames_past_four_gib() {
        if !must_pass_four_gib() || !HAS_MMU {
            return;
        }
        let below = all_below();
        // Dirty memory, so that a zeroed area shows who zeroed it.
        let block = MM.alloc_pages(GFP_HIGHUSER, 8).unwrap();
        for page in 0..256 {
            // SAFETY: a frame of the test's; a page is written.
            unsafe { MM.backend().with_frame(Pfn(block.0 + page), |at| at.write_bytes(0xee, PAGE)) };
        }
        MM.free_pages_frame(block, 8).unwrap();
        let mut area = Bytes::vzalloc(256 * PAGE).unwrap();
        // SAFETY: the area is the test's and as long.
        let zeroed = unsafe { core::slice::from_raw_parts(area.ptr(), 256 * PAGE).iter().all(|byte| *byte == 0) };
        assert!(zeroed);
        area.fill(0x17);
        for page in 0..256 {
            let at = area.ptr().wrapping_add(page * PAGE);
            let pfn = MM.vmalloc_to_page(at).unwrap();
            assert!(phys(pfn) >= FOUR_GIB, "page {page} is frame {pfn}");
            let mapped = KMap::new_in(pfn, &MM).unwrap();
            // SAFETY: both are live pages of the test's.
            let same = unsafe {
                core::slice::from_raw_parts(at, PAGE) == core::slice::from_raw_parts(mapped.as_ptr().cast_const(), PAGE)
            };
            assert!(same, "page {page} reads differently by another address");
        }
        area.free().unwrap();
        below.free();
    }

    #[test]
    fn ordinary_memory_past_four_gib_has_an_address_where_all_memory_has() {
        if !must_pass_four_gib() || MM.backend().lowmem_end() <= FOUR_GIB {
            return;
        }
        let below = all_below();
        let page = MM.get_free_page(GFP_KERNEL).unwrap();
        let pfn = MM.pfn_of(page.as_ptr()).unwrap();
        assert!(phys(pfn) >= FOUR_GIB && zone_of(pfn).kind == ZoneKind::Normal, "{pfn}");
        let object = Bytes::kmalloc(3 * PAGE, GFP_KERNEL).unwrap();
        assert!(phys(MM.pfn_of(object.ptr()).unwrap()) >= FOUR_GIB);
        object.free().unwrap();
        MM.free_page(page.as_ptr()).unwrap();
        below.free();
    }
}
