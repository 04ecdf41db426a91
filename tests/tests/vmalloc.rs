//! What the `vmalloc` family promises, with page tables and without.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 120)]
mod tests {
    use core::fmt::Write;
    use heapless::{String, Vec};
    use oorandom::Rand32;
    use rtmm::{AllocError, Backend, GFP_KERNEL, Gfp, IoMapping, MmError, PhysAddr, Place, Prot, VmArea};
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{BIG, Bytes, HAS_MMU, LARGEST, MANY, NothingLost, PAGE, fragment};

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    #[test]
    fn an_area_is_page_aligned_and_writable_to_its_last_byte() {
        for size in [1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE, BIG / 16, BIG / 16 + 1, BIG] {
            let mut area = Bytes::vmalloc(size).unwrap();
            assert_eq!(area.addr() % PAGE, 0);
            area.fill(0x77);
            assert!(area.holds(0x77), "{size} bytes");
            area.free().unwrap();
        }
    }

    #[test]
    fn an_area_takes_no_more_pages_than_its_size_needs() {
        // Warm: tables and records of the neighbourhood exist, so that only the area's own pages are counted.
        let keep = Bytes::vmalloc(PAGE).unwrap();
        for size in [PAGE, 3 * PAGE, 5 * PAGE + 1, (17 * PAGE).min(LARGEST - PAGE)] {
            MM.drain();
            let before = MM.free_page_count();
            let area = Bytes::vmalloc(size).unwrap();
            MM.drain();
            let taken = before - MM.free_page_count();
            assert_eq!(taken, size.div_ceil(PAGE), "{size} bytes");
            area.free().unwrap();
        }
        keep.free().unwrap();
    }

    #[test]
    fn vfree_gives_every_page_and_table_back() {
        MM.drain();
        let before = MM.free_page_count();
        let mut areas: Vec<Bytes, 16> = Vec::new();
        for pages in 1..=MANY.min(32) / 2 {
            areas.push(Bytes::vmalloc(pages * PAGE).unwrap()).unwrap();
        }
        for area in areas {
            area.free().unwrap();
        }
        MM.drain();
        assert_eq!(MM.free_page_count(), before);
    }

    #[test]
    fn vzalloc_is_zero_even_where_dirt_was() {
        for size in [PAGE, 7 * PAGE + 3] {
            let mut dirty = Bytes::vmalloc(size).unwrap();
            dirty.fill(0xee);
            dirty.free().unwrap();
            let area = Bytes::vzalloc(size).unwrap();
            assert!(area.holds(0));
            area.free().unwrap();
        }
    }

    #[test]
    fn live_areas_do_not_overlap() {
        let mut areas: Vec<Bytes, MANY> = Vec::new();
        for seed in 0..MANY as u8 {
            let mut area = Bytes::vmalloc(usize::from(seed) * (PAGE / 6) + 1).unwrap();
            area.fill(seed);
            areas.push(area).unwrap();
        }
        areas.sort_unstable_by_key(Bytes::addr);
        for pair in areas.windows(2) {
            assert!(pair[0].addr() + pair[0].len() <= pair[1].addr());
            if HAS_MMU {
                let gap = pair[1].addr() - (pair[0].addr() + pair[0].len().next_multiple_of(PAGE));
                assert!(gap >= PAGE, "no guard between two areas");
            }
        }
        for area in areas {
            let seed = area.as_ref()[0];
            assert!(area.holds(seed), "the area of seed {seed} was overwritten");
            area.free().unwrap();
        }
    }

    /// The promise that vmalloc exists for.
    #[test]
    fn scattered_pages_serve_a_large_area_only_with_an_mmu() {
        let hoard = fragment();
        assert!(MM.free_page_count() > BIG / PAGE * 5 / 4, "enough pages are free, one by one");
        let block = MM.get_free_pages(GFP_KERNEL | Gfp::NOWARN, (BIG / PAGE).ilog2() as usize);
        assert!(matches!(block, Err(AllocError::NoContig | AllocError::NoMemory)), "{block:?}");
        let area = Bytes::vmalloc(BIG);
        if HAS_MMU {
            let mut area = area.unwrap();
            area.fill(0x42);
            assert!(area.holds(0x42));
            let scattered = (0..BIG / PAGE - 1).all(|page| {
                let frame = |page: usize| MM.vmalloc_to_page(area.ptr().wrapping_add(page * PAGE)).unwrap().0;
                frame(page).abs_diff(frame(page + 1)) > 1
            });
            assert!(scattered, "the frames are neighbours: memory was not fragmented");
            area.free().unwrap();
        } else {
            assert_eq!(area.map(|_| ()), Err(AllocError::NoContig));
        }
        MM.check().unwrap();
        hoard.free();
    }

    #[test]
    fn each_page_of_an_area_has_a_frame_of_its_own() {
        let area = Bytes::vmalloc(9 * PAGE + 5).unwrap();
        let mut frames: Vec<u32, 10> = Vec::new();
        for page in 0..10 {
            let frame = MM.vmalloc_to_page(area.ptr().wrapping_add(page * PAGE + page)).unwrap();
            assert!(!frames.contains(&frame.0));
            frames.push(frame.0).unwrap();
        }
        area.free().unwrap();
    }

    #[test]
    fn the_frame_of_an_area_holds_what_was_written_through_it() {
        let mut area = Bytes::vmalloc(4 * PAGE).unwrap();
        for page in 0..4 {
            area.as_mut()[page * PAGE..][..PAGE].fill(page as u8 + 1);
        }
        for page in 0..4 {
            let frame = MM.vmalloc_to_page(area.ptr().wrapping_add(page * PAGE)).unwrap();
            // SAFETY: the frame backs a live area, so it is RAM of this manager.
            let seen = unsafe { MM.backend().with_frame(frame, |start| start.add(PAGE - 1).read()) };
            assert_eq!(seen, page as u8 + 1);
        }
        area.free().unwrap();
    }

    #[test]
    fn only_addresses_inside_an_area_are_vmalloc_addresses() {
        let area = Bytes::vmalloc(3 * PAGE).unwrap();
        assert!(MM.is_vmalloc_addr(area.ptr()));
        assert!(MM.is_vmalloc_addr(area.ptr().wrapping_add(3 * PAGE - 1)));
        let object = Bytes::kmalloc(100, GFP_KERNEL).unwrap();
        let page = Bytes::pages(GFP_KERNEL, 0).unwrap();
        let local = 0u8;
        for other in [object.ptr(), page.ptr(), &raw const local, core::ptr::null()] {
            assert!(!MM.is_vmalloc_addr(other), "{other:?}");
            assert_eq!(MM.vmalloc_to_page(other), None, "{other:?}");
        }
        object.free().unwrap();
        page.free().unwrap();
        area.free().unwrap();
    }

    #[test]
    fn ioremap_reaches_the_device_and_keeps_the_offset() {
        let (device, len) = board::mmio();
        let free = MM.free_page_count();
        let start = MM.ioremap(device, len).unwrap();
        if !HAS_MMU {
            assert_eq!(start.addr().get() as u64, device.0);
            MM.drain();
            assert!(free - MM.free_page_count() <= 1, "a mapping takes no memory but its record");
        }
        // SAFETY: the board says that the range is a device's registers; reading the first has no effect.
        unsafe { start.cast::<u32>().read_volatile() };
        MM.iounmap(start.as_ptr()).unwrap();

        let inside = MM.ioremap(PhysAddr(device.0 + 0x24), 8).unwrap();
        assert_eq!(inside.addr().get() % PAGE, 0x24 + (device.0 % PAGE as u64) as usize);
        MM.iounmap(inside.as_ptr()).unwrap();
    }

    #[test]
    fn owners_unmap_when_dropped() {
        let area = VmArea::new_in(10 * PAGE, &MM).unwrap();
        drop(area);
        let (device, len) = board::mmio();
        let mapping = IoMapping::new_in(device, len, &MM).unwrap();
        drop(mapping);
    }

    #[test]
    fn a_report_names_the_area_and_its_owner() {
        let area = Bytes::vmalloc(16 * PAGE).unwrap();
        let hit = MM.find_area(area.addr() + PAGE + 5).expect("the address lies in an area");
        let mut text: String<256> = String::new();
        write!(text, "{hit}").unwrap();
        assert!(text.contains("vmalloc"), "{text}");
        assert!(text.contains("tests/vmalloc.rs"), "{text}");
        assert_eq!(hit.place, Place::Inside);
        assert_eq!((hit.area.addr, hit.area.size), (area.addr(), 16 * PAGE));
        let addr = area.addr();
        area.free().unwrap();
        let place = MM.find_area(addr).map(|hit| hit.place);
        assert_eq!(place, HAS_MMU.then_some(Place::Freed));
    }

    #[test]
    fn random_areas_keep_their_bytes_and_free_in_any_order() {
        let mut random = Rand32::new(3);
        let mut live: Vec<(Bytes, u8), MANY> = Vec::new();
        for round in 0..1000u32 {
            if live.is_full() || (!live.is_empty() && random.rand_range(0..2) == 0) {
                let (area, seed) = live.swap_remove(random.rand_range(0..live.len() as u32) as usize);
                assert!(area.holds(seed), "round {round}");
                area.free().unwrap();
            } else {
                let most = 1 << random.rand_range(8..BIG.ilog2().min(16) + 1);
                let size = 1 + random.rand_range(0..most) as usize;
                let mut area = Bytes::vmalloc(size).unwrap();
                area.fill(round as u8);
                live.push((area, round as u8)).unwrap();
            }
            if round % 256 == 0 {
                MM.check().unwrap();
            }
        }
        for (area, seed) in live {
            assert!(area.holds(seed));
            area.free().unwrap();
        }
    }

    #[test]
    fn an_area_larger_than_any_block_needs_an_mmu() {
        let size = LARGEST + PAGE;
        if MM.free_page_count() < 2 * size / PAGE {
            return;
        }
        let area = Bytes::vmalloc(size);
        if HAS_MMU {
            let mut area = area.unwrap();
            area.as_mut()[size - 1] = 1;
            area.free().unwrap();
        } else {
            assert_eq!(area.map(|_| ()), Err(AllocError::TooBig));
        }
    }

    #[test]
    fn protection_is_changed_or_refused_and_never_pretended() {
        let mut area = VmArea::new_in(3 * PAGE, &MM).unwrap();
        let changed = if HAS_MMU { Ok(()) } else { Err(MmError::Unsupported) };
        assert_eq!(area.protect(Prot::ReadExecute), changed);
        assert_eq!(area.protect(Prot::Read), changed);
        assert_eq!(area.protect(Prot::ReadWrite), changed);
        // SAFETY: the area is live, writable, and longer than a byte.
        unsafe { area.as_ptr().write_volatile(1) };
    }

    #[test]
    fn a_large_area_is_whole_from_end_to_end() {
        let size = 2 * BIG;
        let mut area = Bytes::vmalloc(size).unwrap();
        for (page, bytes) in area.as_mut().chunks_mut(PAGE).enumerate() {
            bytes[..4].copy_from_slice(&(page as u32).to_le_bytes());
            bytes[PAGE - 1] = page as u8;
        }
        for (page, bytes) in area.as_ref().chunks(PAGE).enumerate() {
            assert_eq!(bytes[..4], (page as u32).to_le_bytes());
            assert_eq!(bytes[PAGE - 1], page as u8);
        }
        area.free().unwrap();
    }
}
