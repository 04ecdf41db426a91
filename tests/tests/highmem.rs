//! Frames without a kernel address, and `kmap`. Where every frame has one, `kmap` gives that.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use core::ptr;
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use rtmm::{AllocError, Backend, FreeError, GFP_ATOMIC, GFP_HIGHUSER, GFP_KERNEL, Gfp, KMap, Pfn};
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{Bytes, NothingLost, PAGE};

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    fn phys(pfn: Pfn) -> u64 {
        pfn.phys(<board::Backend as Backend>::PAGE_SHIFT).0
    }

    /// True on a machine with memory past the direct map.
    fn has_highmem() -> bool {
        let end = MM.zoneinfo().zones().iter().map(|zone| zone.span.1).max().unwrap();
        phys(Pfn(end)) > MM.backend().lowmem_end()
    }

    /// A frame for a user: without a kernel address where there are such.
    fn frame(flags: Gfp) -> Pfn {
        let pfn = MM.alloc_page(flags | Gfp::HIGHMEM).unwrap();
        assert_eq!(phys(pfn) >= MM.backend().lowmem_end(), has_highmem(), "{pfn}");
        assert_eq!(MM.page_address(pfn).is_none(), has_highmem());
        pfn
    }

    #[test]
    fn a_mapped_frame_holds_what_is_written_by_any_of_its_addresses() {
        let pfn = frame(GFP_KERNEL | Gfp::ZERO);
        let (one, two) = (KMap::new_in(pfn, &MM).unwrap(), KMap::new_in(pfn, &MM).unwrap());
        assert_eq!(one.as_ptr() != two.as_ptr(), has_highmem());
        // SAFETY: a page of the test's, mapped twice.
        unsafe {
            for at in [0, 1, PAGE / 2, PAGE - 1] {
                assert_eq!(two.as_ptr().add(at).read_volatile(), 0);
                one.as_ptr().add(at).write_volatile(0x5e);
                assert_eq!(two.as_ptr().add(at).read_volatile(), 0x5e);
            }
        }
        // In the order in which they were made.
        drop(one);
        // SAFETY: as above.
        assert_eq!(unsafe { two.as_ptr().add(PAGE - 1).read_volatile() }, 0x5e);
        drop(two);
        MM.free_pages_frame(pfn, 0).unwrap();
    }

    #[test]
    fn a_slot_leads_to_the_frame_mapped_last() {
        let frames = [frame(GFP_KERNEL), frame(GFP_KERNEL)];
        for (round, pfn) in frames.into_iter().cycle().take(8).enumerate() {
            let mapped = KMap::new_in(pfn, &MM).unwrap();
            // SAFETY: a page of the test's, mapped. What each frame holds was written two rounds ago.
            unsafe {
                let first = mapped.as_ptr().cast::<u32>();
                if round >= 2 {
                    assert_eq!(first.read_volatile(), round as u32 - 2);
                }
                first.write_volatile(round as u32);
            }
        }
        frames.into_iter().for_each(|pfn| MM.free_pages_frame(pfn, 0).unwrap());
    }

    #[test]
    fn slots_run_out_with_an_error_and_come_back() {
        let pfn = frame(GFP_KERNEL);
        // One more than a window can have; in memory of its own, since stacks are small.
        const MOST: usize = 513;
        let table = Bytes::kzalloc(MOST * size_of::<usize>(), GFP_KERNEL).unwrap();
        // SAFETY: as many words of the test's, all zero.
        let slots = unsafe { core::slice::from_raw_parts_mut(table.ptr().cast_mut().cast::<usize>(), MOST) };
        let mut count = 0;
        let error = loop {
            match MM.kmap(pfn) {
                Ok(at) if count < MOST => slots[count] = at.addr().get(),
                Ok(at) => break MM.kunmap(at.as_ptr()).map(|()| None).unwrap(),
                Err(error) => break Some(error),
            }
            count += 1;
        };
        assert_eq!(error, has_highmem().then_some(AllocError::NoAddressSpace));
        assert!(count >= 500);
        // The way to zero a frame is another.
        let zeroed = frame(GFP_KERNEL | Gfp::ZERO);
        MM.free_pages_frame(zeroed, 0).unwrap();
        let area = Bytes::vzalloc(4 * PAGE).unwrap();
        area.free().unwrap();
        slots[..count].iter().for_each(|&at| MM.kunmap(ptr::without_provenance(at)).unwrap());
        table.free().unwrap();
        MM.kunmap(MM.kmap(pfn).unwrap().as_ptr()).unwrap();
        MM.free_pages_frame(pfn, 0).unwrap();
    }

    #[test]
    fn wrong_maps_and_unmaps_are_refused() {
        let end = MM.zoneinfo().zones().iter().map(|zone| zone.span.1).max().unwrap();
        for nothing in [end, u32::MAX - 1, u32::MAX] {
            assert_eq!(MM.kmap(Pfn(nothing)), Err(AllocError::BadFrame));
        }
        let pfn = frame(GFP_KERNEL);
        let at = MM.kmap(pfn).unwrap().as_ptr();
        assert_eq!(MM.kunmap(at.wrapping_add(1)), Err(FreeError::Misaligned));
        assert_eq!(MM.kunmap(ptr::null()), Ok(()));
        assert_eq!(MM.kunmap(ptr::without_provenance(usize::MAX & !(PAGE - 1))), Err(FreeError::Foreign));
        MM.kunmap(at).unwrap();
        if has_highmem() {
            assert_eq!(MM.kunmap(at), Err(FreeError::DoubleFree));
            assert_eq!(MM.kunmap(at.wrapping_add(PAGE)), Err(FreeError::DoubleFree));
        }
        MM.free_pages_frame(pfn, 0).unwrap();
    }

    #[test]
    fn an_interrupt_maps_and_zeroes_frames() {
        static FRAME: AtomicU32 = AtomicU32::new(0);
        static SEEN: AtomicU32 = AtomicU32::new(0);
        let outer = frame(GFP_KERNEL);
        let mapped = KMap::new_in(outer, &MM).unwrap();
        board::in_interrupt(|| {
            let pfn = MM.alloc_page(GFP_ATOMIC | Gfp::HIGHMEM | Gfp::ZERO).unwrap();
            let inner = KMap::new_in(pfn, &MM).unwrap();
            // SAFETY: a page of the handler's, mapped.
            unsafe {
                let word = inner.as_ptr().cast::<u32>();
                SEEN.store(word.read_volatile(), Relaxed);
                word.write_volatile(77);
            }
            FRAME.store(pfn.0, Relaxed);
        });
        // SAFETY: a page of the test's, mapped.
        unsafe { mapped.as_ptr().write_volatile(1) };
        drop(mapped);
        let inner = Pfn(FRAME.load(Relaxed));
        assert_eq!(SEEN.load(Relaxed), 0);
        // SAFETY: the frame the handler left.
        assert_eq!(unsafe { MM.backend().with_frame(inner, |at| at.cast::<u32>().read()) }, 77);
        MM.free_pages_frame(inner, 0).unwrap();
        MM.free_pages_frame(outer, 0).unwrap();
    }

    #[test]
    fn one_frame_is_copied_to_another() {
        let (from, to) = (frame(GFP_KERNEL), frame(GFP_KERNEL));
        // SAFETY: frames of the test's; a page of each is used while both closures run.
        unsafe {
            MM.backend().with_frame(from, |from| {
                from.write_bytes(0x2b, PAGE);
                MM.backend().with_frame(to, |to| to.copy_from_nonoverlapping(from, PAGE));
            });
        }
        let copied = KMap::new_in(to, &MM).unwrap();
        // SAFETY: a page of the test's, mapped.
        assert!(unsafe { core::slice::from_raw_parts(copied.as_ptr(), PAGE) }.iter().all(|byte| *byte == 0x2b));
        drop(copied);
        MM.free_pages_frame(from, 0).unwrap();
        MM.free_pages_frame(to, 0).unwrap();
    }

    #[test]
    fn an_area_prefers_frames_without_an_address() {
        let area = Bytes::vmalloc(20 * PAGE).unwrap();
        if has_highmem() {
            for page in 0..20 {
                let pfn = MM.vmalloc_to_page(area.ptr().wrapping_add(page * PAGE)).unwrap();
                assert!(phys(pfn) >= MM.backend().lowmem_end(), "page {page} is frame {pfn}");
            }
        }
        area.free().unwrap();
        assert!(MM.get_free_page(GFP_HIGHUSER).is_ok_and(|page| MM.free_page(page.as_ptr()).is_ok()));
    }

    /// What the report of a fault in a window says.
    fn expect(what: &str) {
        board::expect_fault(what);
    }

    #[test]
    fn fault_read_after_kunmap() {
        let pfn = frame(GFP_KERNEL);
        let at = MM.kmap(pfn).unwrap().as_ptr();
        // SAFETY: a page of the test's, mapped. The translation is in the TLB now.
        unsafe { at.write_volatile(1) };
        MM.kunmap(at).unwrap();
        if has_highmem() {
            expect("(read, not present) in a window for high memory");
            // SAFETY: none: the access must fault, which does not return.
            unsafe { at.read_volatile() };
            panic!("nothing stopped the access");
        }
        MM.free_pages_frame(pfn, 0).unwrap();
    }

    #[test]
    fn fault_execution_of_a_mapped_frame() {
        let pfn = frame(GFP_KERNEL);
        let at = MM.kmap(pfn).unwrap().as_ptr();
        if has_highmem() {
            // SAFETY: a page of the test's, mapped: the instruction `ret`, then a call that must fault.
            unsafe {
                at.write_volatile(0xc3);
                expect("(execute, present) in a window for high memory");
                core::mem::transmute::<*mut u8, extern "C" fn()>(at)();
            }
            panic!("nothing stopped the call");
        }
        MM.kunmap(at).unwrap();
        MM.free_pages_frame(pfn, 0).unwrap();
    }
}
