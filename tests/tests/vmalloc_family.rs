//! What the rest of the `vmalloc` family promises, with page tables and without.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 120)]
mod tests {
    use core::ptr::{self, NonNull};
    use core::sync::atomic::{AtomicPtr, Ordering::SeqCst};
    use heapless::Vec;
    use rtmm::{
        AllocError, AreaKind, AreaOptions, Backend, Entries, FreeError, GFP_ATOMIC, GFP_KERNEL, Gfp, MmError, Pfn,
        PhysAddr, Prot, VmArea,
    };
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{HAS_MMU, LARGEST, NothingLost, PAGE};

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    fn bytes(area: NonNull<u8>, len: usize) -> &'static mut [u8] {
        // SAFETY: the tests hand in live memory of that length, which is theirs.
        unsafe { core::slice::from_raw_parts_mut(area.as_ptr(), len) }
    }

    /// Frames of a block of `1 << order` pages.
    fn frames<const N: usize>(first: Pfn) -> Vec<Pfn, N> {
        (0..N as u32).map(|i| Pfn(first.0 + i)).collect()
    }

    #[test]
    fn an_area_is_aligned_as_asked_or_refused() {
        for shift in 0..=PAGE.ilog2() + 6 {
            let align = 1usize << shift;
            if align > LARGEST {
                continue;
            }
            let area = MM.vmalloc_with(3 * PAGE, &AreaOptions::new().align(align));
            if align > LARGEST / 4 && area.is_err() {
                // Not on a board this small.
                continue;
            }
            let area = area.unwrap();
            assert_eq!(area.addr().get() % align.max(PAGE), 0, "align {align}");
            bytes(area, 3 * PAGE).fill(7);
            MM.vfree(area.as_ptr()).unwrap();
        }
        for align in [0, 3, PAGE + 1, 2 * LARGEST, usize::MAX] {
            let refused = MM.vmalloc_with(PAGE, &AreaOptions::new().align(align));
            assert_eq!(refused, Err(AllocError::BadAlign), "align {align:#x}");
        }
    }

    #[test]
    fn alignment_takes_no_page_more() {
        let keep = MM.vmalloc(PAGE).unwrap();
        MM.drain();
        let before = MM.free_page_count();
        let area = MM.vmalloc_with(PAGE, &AreaOptions::new().align(8 * PAGE)).unwrap();
        MM.drain();
        // With an MMU the area may be the first in its part of the address space.
        let most = if HAS_MMU { 2 } else { 1 };
        assert!((1..=most).contains(&(before - MM.free_page_count())));
        MM.vfree(area.as_ptr()).unwrap();
        MM.vfree(keep.as_ptr()).unwrap();
    }

    #[test]
    fn small_entries_and_large_ones_hold_the_same() {
        let size = (4 << 20) + PAGE;
        if MM.free_page_count() < 3 * size / PAGE {
            return;
        }
        for entries in [Entries::Largest, Entries::Small] {
            let options = AreaOptions::new().entries(entries);
            let Ok(area) = MM.vmalloc_with(size, &options) else {
                if HAS_MMU {
                    panic!("with an MMU there is enough");
                }
                return;
            };
            let all = bytes(area, size);
            all.chunks_mut(PAGE).enumerate().for_each(|(i, page)| page[..4].copy_from_slice(&(i as u32).to_le_bytes()));
            assert!(all.chunks(PAGE).enumerate().all(|(i, page)| page[..4] == (i as u32).to_le_bytes()));
            MM.vfree(area.as_ptr()).unwrap();
        }
    }

    #[test]
    fn memory_for_users_is_zero_and_its_frames_are_handed_out() {
        let area = MM.vmalloc_user(3 * PAGE + 1).unwrap();
        assert!(bytes(area, 4 * PAGE).iter().all(|byte| *byte == 0));
        let mut seen: Vec<Pfn, 4> = Vec::new();
        MM.remap_vmalloc_range(area.as_ptr(), 1, 2 * PAGE + 1, |page, pfn| {
            assert_eq!(page, seen.len());
            seen.push(pfn).map_err(|_| MmError::Inval)
        })
        .unwrap();
        let frame = |page: usize| MM.vmalloc_to_page(area.as_ptr().wrapping_add(page * PAGE)).unwrap();
        assert_eq!(seen[..], [frame(1), frame(2), frame(3)]);
        let none = |_, _| panic!("a refused range");
        assert_eq!(MM.remap_vmalloc_range(area.as_ptr(), 2, 3 * PAGE, none), Err(MmError::BadRange));
        assert_eq!(MM.remap_vmalloc_range(area.as_ptr(), 0, 0, none), Err(MmError::Inval));
        assert_eq!(MM.remap_vmalloc_range(area.as_ptr(), usize::MAX, PAGE, none), Err(MmError::BadRange));
        let plain = MM.vmalloc(PAGE).unwrap();
        assert_eq!(MM.remap_vmalloc_range(plain.as_ptr(), 0, PAGE, none), Err(MmError::Inval));
        MM.vfree(plain.as_ptr()).unwrap();
        MM.vfree(area.as_ptr()).unwrap();
    }

    #[test]
    fn nodes_and_low_memory_are_served_or_refused() {
        let near = MM.vmalloc_node(PAGE, Some(0)).unwrap();
        assert_eq!(MM.vmalloc_node(PAGE, Some(1)), Err(AllocError::Unsupported));
        MM.vfree(near.as_ptr()).unwrap();
        // Where all memory lies above 4 GiB, as an arena of a process does, its board calls it Normal.
        let is_low = |pfn: Pfn| !HAS_MMU || (u64::from(pfn.0) + 1) * PAGE as u64 <= 1 << 32;
        let low = MM.vmalloc_32(2 * PAGE).unwrap();
        assert!(is_low(MM.vmalloc_to_page(low.as_ptr()).unwrap()));
        MM.vfree(low.as_ptr()).unwrap();

        // The same for users: zeroed, and its frames are handed out.
        let low = MM.vmalloc_32_user(2 * PAGE).unwrap();
        assert!(bytes(low, 2 * PAGE).iter().all(|byte| *byte == 0));
        let check = |_, pfn| if is_low(pfn) { Ok(()) } else { Err(MmError::IsRam) };
        assert_eq!(MM.remap_vmalloc_range(low.as_ptr(), 0, 2 * PAGE, check), Ok(()));
        MM.vfree(low.as_ptr()).unwrap();
    }

    #[test]
    fn vrealloc_keeps_the_smaller_of_both_sizes() {
        let old = MM.vmalloc(2 * PAGE).unwrap();
        bytes(old, 2 * PAGE).iter_mut().enumerate().for_each(|(i, byte)| *byte = i as u8);
        let mut area = old;
        // SAFETY: nobody else has the area.
        unsafe {
            for size in [2 * PAGE - 5, 5 * PAGE, 3 * PAGE + 1, PAGE + 9, 2 * PAGE, 7] {
                area = MM.vrealloc(area.as_ptr(), size, GFP_KERNEL).unwrap().unwrap();
                let kept = size.min(7);
                assert!(bytes(area, kept).iter().enumerate().all(|(i, byte)| *byte == i as u8), "{size}");
            }
            assert_eq!(MM.vrealloc(area.as_ptr(), usize::MAX, GFP_KERNEL), Err(AllocError::TooBig));
            assert_eq!(MM.vrealloc(area.as_ptr().wrapping_add(1), PAGE, GFP_KERNEL), Err(AllocError::BadPointer));
            assert_eq!(bytes(area, 7), [0, 1, 2, 3, 4, 5, 6]);
            assert_eq!(MM.vrealloc(area.as_ptr(), 0, GFP_KERNEL), Ok(None));
            assert_eq!(MM.vrealloc(core::ptr::null_mut(), 0, GFP_KERNEL), Ok(None));
            let new = MM.vrealloc(core::ptr::null_mut(), 100, GFP_KERNEL).unwrap().unwrap();
            MM.vfree(new.as_ptr()).unwrap();
        }
    }

    #[test]
    fn kvmalloc_falls_back_for_large_sizes_of_tasks_only() {
        let small = MM.kvmalloc(100, GFP_KERNEL).unwrap();
        assert!(!MM.is_vmalloc_addr(small.as_ptr()));
        MM.kvfree(small.as_ptr()).unwrap();
        MM.kvfree(core::ptr::null()).unwrap();
        assert_eq!(MM.kvmalloc(0, GFP_KERNEL), Err(AllocError::ZeroSize));
        assert_eq!(MM.kvcalloc(usize::MAX, 2, GFP_KERNEL), Err(AllocError::TooBig));
        assert_eq!(MM.kvmalloc(LARGEST + 1, GFP_ATOMIC | Gfp::NOWARN), Err(AllocError::TooBig));
        let size = LARGEST + PAGE;
        if MM.free_page_count() > 2 * size / PAGE {
            match MM.kvzalloc(size, GFP_KERNEL) {
                Ok(area) => {
                    assert!(HAS_MMU && MM.is_vmalloc_addr(area.as_ptr()));
                    assert!(bytes(area, size).iter().all(|byte| *byte == 0));
                    MM.kvfree(area.as_ptr()).unwrap();
                }
                Err(error) => assert_eq!((HAS_MMU, error), (false, AllocError::TooBig)),
            }
        }
    }

    #[test]
    fn vmap_shows_the_callers_pages_or_says_unsupported() {
        let pages = MM.alloc_pages(GFP_KERNEL, 2).unwrap();
        let own = frames::<4>(pages);
        let area = MM.vmap(&own, Prot::ReadWrite).unwrap();
        bytes(area, 4 * PAGE).iter_mut().enumerate().for_each(|(i, byte)| *byte = (i / PAGE) as u8 + 1);
        let info = MM.vmallocinfo().areas().find(|info| info.addr == area.addr().get()).unwrap();
        assert_eq!((info.kind, info.pages, info.size), (AreaKind::Map, 4, 4 * PAGE));
        MM.vunmap(area.as_ptr()).unwrap();
        assert!(MM.vunmap(area.as_ptr()).is_err());

        // The other way round: only an MMU can.
        let backwards: Vec<Pfn, 4> = own.iter().rev().copied().collect();
        match MM.vmap(&backwards, Prot::Read) {
            Ok(area) => {
                if !HAS_MMU {
                    panic!("without an MMU there is no such mapping");
                }
                assert!((0..4).all(|page| bytes(area, 4 * PAGE)[page * PAGE] == 4 - page as u8));
                assert_eq!(MM.vfree(area.as_ptr()), Err(FreeError::WrongAllocator));
                MM.vunmap(area.as_ptr()).unwrap();
            }
            Err(error) => assert_eq!((HAS_MMU, error), (false, MmError::Unsupported)),
        }
        MM.vunmap(core::ptr::null()).unwrap();
        MM.free_pages_frame(pages, 2).unwrap();
    }

    #[test]
    fn vmap_of_none_of_twice_the_same_and_of_foreign_pages_is_refused() {
        let page = MM.alloc_page(GFP_KERNEL).unwrap();
        let other = MM.alloc_page(GFP_KERNEL).unwrap();
        assert_eq!(MM.vmap(&[], Prot::ReadWrite), Err(AllocError::ZeroSize.into()));
        for bad in [[page, page], [page, Pfn(u32::MAX)], [Pfn(u32::MAX - 1), page]] {
            assert_eq!(MM.vmap(&bad, Prot::ReadWrite), Err(MmError::Inval), "{bad:?}");
        }
        assert_eq!(MM.vmap(&[other, page, other], Prot::ReadWrite), Err(MmError::Inval));
        assert_eq!(MM.vmap(&[page], Prot::ReadExecute), Err(MmError::Unsupported));
        MM.free_pages_frame(page, 0).unwrap();
        MM.free_pages_frame(other, 0).unwrap();
    }

    #[test]
    fn vm_unmap_ram_wants_the_same_count() {
        let pages = MM.alloc_pages(GFP_KERNEL, 2).unwrap();
        let own = frames::<4>(pages);
        let area = MM.vm_map_ram(&own).unwrap();
        for count in [0, 1, 3, 5, usize::MAX] {
            assert_eq!(MM.vm_unmap_ram(area.as_ptr(), count), Err(FreeError::WrongOrder), "{count}");
        }
        assert_eq!(MM.vunmap(area.as_ptr()), Err(FreeError::WrongAllocator));
        MM.vm_unmap_ram(area.as_ptr(), 4).unwrap();
        assert!(MM.vm_unmap_ram(area.as_ptr(), 4).is_err());
        let area = MM.vmap(&own, Prot::ReadWrite).unwrap();
        assert_eq!(MM.vm_unmap_ram(area.as_ptr(), 4), Err(FreeError::WrongAllocator));
        MM.vunmap(area.as_ptr()).unwrap();
        MM.free_pages_frame(pages, 2).unwrap();
    }

    #[test]
    fn a_range_never_has_two_cache_modes() {
        let (device, len) = board::mmio();
        let first = MM.ioremap(device, len).unwrap();
        let again = MM.ioremap(device, len).unwrap();
        assert_eq!(MM.ioremap_wc(device, len), Err(MmError::AliasConflict));
        assert_eq!(MM.ioremap_wt(device, 1), Err(MmError::AliasConflict));
        // The same page, though not the same bytes.
        assert_eq!(MM.ioremap_cache(PhysAddr(device.0 | (PAGE as u64 - 1)), 1), Err(MmError::AliasConflict));
        MM.iounmap(first.as_ptr()).unwrap();
        assert_eq!(MM.ioremap_wc(device, len), Err(MmError::AliasConflict));
        MM.iounmap(again.as_ptr()).unwrap();
        let combined = MM.ioremap_wc(device, len).unwrap();
        assert_eq!(MM.ioremap(device, len), Err(MmError::AliasConflict));
        MM.iounmap(combined.as_ptr()).unwrap();
        let mapping = rtmm::IoMapping::with_cache_in(device, len, rtmm::CacheMode::WriteThrough, &MM).unwrap();
        drop(mapping);
    }

    /// What is written into the tables, which the CPU takes by the numbers of [`board::pat`].
    #[cfg(feature = "mmu")]
    #[test]
    fn the_tables_say_which_cache_mode_was_asked_for() {
        use rtmm::{CacheMode, PageTable, VirtAddr, Walk};
        let (device, len) = board::mmio();
        type Map = fn(PhysAddr, usize) -> Result<NonNull<u8>, MmError>;
        let modes: [(Map, CacheMode); 4] = [
            (|phys, len| MM.ioremap(phys, len), CacheMode::Uncached),
            (|phys, len| MM.ioremap_wc(phys, len), CacheMode::WriteCombining),
            (|phys, len| MM.ioremap_wt(phys, len), CacheMode::WriteThrough),
            (|phys, len| MM.ioremap_cache(phys, len), CacheMode::WriteBack),
        ];
        let walk = |at: NonNull<u8>| match MM.backend().walk_kernel(VirtAddr(at.addr().get())) {
            Walk::Mapped(mapping) => (u64::from(mapping.pfn.0) * PAGE as u64, mapping.cache),
            other => panic!("{other:?}"),
        };
        for (map, cache) in modes {
            let at = map(device, len).unwrap();
            assert_eq!(walk(at), (device.0 & !(PAGE as u64 - 1), cache));
            MM.iounmap(at.as_ptr()).unwrap();
        }
        // As memory is.
        let area = MM.vmalloc(PAGE).unwrap();
        assert_eq!(walk(area).1, CacheMode::WriteBack);
        MM.vfree(area.as_ptr()).unwrap();
    }

    #[cfg(all(feature = "mmu", not(feature = "board-host")))]
    #[test]
    fn the_cpu_takes_the_tables_cache_modes_as_they_are_meant() {
        rtmm_tests::check_pat(board::pat());
    }

    /// An area, a mapping and a device, which the next interrupt frees.
    static FREED: [AtomicPtr<u8>; 3] = [const { AtomicPtr::new(ptr::null_mut()) }; 3];

    /// Their pages.
    fn make_three(page: Pfn) -> usize {
        let (device, len) = board::mmio();
        FREED[0].store(MM.vmalloc(2 * PAGE).unwrap().as_ptr(), SeqCst);
        FREED[1].store(MM.vmap(&[page], Prot::ReadWrite).unwrap().as_ptr(), SeqCst);
        FREED[2].store(MM.ioremap(device, len).unwrap().as_ptr(), SeqCst);
        3 + len.div_ceil(PAGE)
    }

    /// What was freed is not to be freed again, whether it is put off or not.
    fn free_three() {
        let [area, map, device] = FREED.each_ref().map(|at| at.load(SeqCst));
        MM.vfree(area).unwrap();
        MM.vunmap(map).unwrap();
        MM.iounmap(device).unwrap();
        assert_eq!(MM.vfree(area), Err(FreeError::DoubleFree));
        assert!(MM.vunmap(map).is_err());
        assert!(MM.iounmap(device).is_err());
    }

    #[test]
    fn what_an_interrupt_frees_is_put_off_where_it_is_flushed_and_comes_back_where_it_says(all: NothingLost) {
        let page = MM.alloc_page(GFP_KERNEL).unwrap();
        let areas = MM.vmallocinfo().count();
        let points: [fn(); 2] = [|| assert_eq!(MM.flush_deferred(), if HAS_MMU { 3 } else { 0 }), || MM.drain()];
        for point in points {
            let pages = make_three(page);
            board::in_interrupt(free_three);
            assert_eq!(MM.deferred_areas(), if HAS_MMU { (3, pages) } else { (0, 0) });
            assert_eq!(MM.vmallocinfo().count(), areas);
            MM.check().unwrap();
            point();
            assert_eq!(MM.deferred_areas(), (0, 0));
            MM.check().unwrap();
        }
        // As many as a batch holds back, and no task asks for them.
        for interrupt in 1..=11 {
            make_three(page);
            board::in_interrupt(free_three);
            assert_eq!(MM.deferred_areas().0, if HAS_MMU { 3 * interrupt } else { 0 });
        }
        // A call that finds enough, and that frees nothing.
        let area = MM.vmalloc(PAGE).unwrap();
        assert_eq!(MM.deferred_areas(), (0, 0));
        MM.vfree(area.as_ptr()).unwrap();
        MM.free_pages_frame(page, 0).unwrap();
        all.check();
    }

    #[test]
    fn vread_reads_areas_and_zeros_between_them() {
        let first = MM.vmalloc(PAGE + 10).unwrap();
        bytes(first, PAGE + 10).fill(0x11);
        let mut out = [0xee; 64];
        // SAFETY: nobody writes to the areas.
        unsafe {
            assert_eq!(MM.vread(&mut out, first.as_ptr().wrapping_add(PAGE - 20)), 30);
            assert!(out[..30].iter().all(|byte| *byte == 0x11));
            // Clamped to what was asked for.
            assert!(out[30..].iter().all(|byte| *byte == 0));
            assert_eq!(MM.vread(&mut [], first.as_ptr()), 0);
            assert_eq!(MM.vwrite(&[0x22; 40], first.as_ptr().wrapping_add(PAGE - 20)), 30);
        }
        assert!(bytes(first, PAGE + 10)[PAGE - 20..].iter().all(|byte| *byte == 0x22));
        assert_eq!(bytes(first, PAGE + 10)[PAGE - 21], 0x11);
        MM.vfree(first.as_ptr()).unwrap();
        // A device is not touched.
        let (device, len) = board::mmio();
        let mapping = MM.ioremap(device, len).unwrap();
        let mut out = [0xee; 16];
        // SAFETY: as above.
        let reached = unsafe { MM.vread(&mut out, mapping.as_ptr()) };
        if HAS_MMU {
            assert_eq!(reached, 16.min(len));
        }
        assert!(out.iter().all(|byte| *byte == 0));
        MM.iounmap(mapping.as_ptr()).unwrap();
    }

    #[test]
    fn frees_of_a_batch_come_back_together() {
        let keep = MM.vmalloc(PAGE).unwrap();
        MM.drain();
        let before = MM.free_page_count();
        let mut batch = MM.free_batch();
        for pages in 1..=5 {
            let area = MM.vmalloc(pages * PAGE).unwrap();
            batch.vfree(area.as_ptr()).unwrap();
            assert_eq!(batch.vfree(area.as_ptr()), Err(FreeError::DoubleFree));
            assert_eq!(MM.vfree(area.as_ptr()), Err(FreeError::DoubleFree));
        }
        assert_eq!(batch.held(), (5, 15));
        assert!(before - MM.free_page_count() >= 15);
        batch.flush();
        MM.drain();
        assert_eq!(MM.free_page_count(), before);
        MM.vfree(keep.as_ptr()).unwrap();
    }

    #[test]
    fn reserved_tables_are_kept_and_given_back() {
        MM.drain();
        let before = MM.free_page_count();
        MM.reserve_tables(6).unwrap();
        // And at most a page for the records that go with them.
        assert!((before - MM.free_page_count()).wrapping_sub(if HAS_MMU { 6 } else { 0 }) <= HAS_MMU.into());
        MM.check().unwrap();
        MM.reserve_tables(2).unwrap();
        let area = MM.vmalloc(PAGE).unwrap();
        MM.vfree(area.as_ptr()).unwrap();
        MM.reserve_tables(0).unwrap();
        MM.drain();
        assert_eq!(MM.free_page_count(), before);
    }

    #[test]
    fn parts_of_an_area_change_their_protection() {
        let size = 4 * PAGE;
        let area = MM.vmalloc(size).unwrap();
        let at = |page: usize| area.as_ptr().wrapping_add(page * PAGE).cast_const();
        let outcome = if HAS_MMU { Ok(()) } else { Err(MmError::Unsupported) };
        assert_eq!(MM.set_memory(at(1), 2, Prot::Read), outcome);
        assert_eq!(MM.set_memory(at(1), 2, Prot::ReadExecute), outcome);
        // A whole area can be changed where there are regions for it.
        let whole = if <board::Backend as Backend>::HAS_REGIONS { Ok(()) } else { outcome };
        assert_eq!(MM.set_memory(at(0), 4, Prot::ReadWrite), whole);
        bytes(area, size).fill(3);
        if HAS_MMU {
            assert_eq!(MM.set_memory(at(0), 5, Prot::Read), Err(MmError::NotMapped));
            assert_eq!(MM.set_memory(at(4), 1, Prot::Read), Err(MmError::NotMapped));
            assert_eq!(MM.set_memory(at(0).wrapping_sub(PAGE), 2, Prot::Read), Err(MmError::NotMapped));
            assert_eq!(MM.set_memory(at(0), 0, Prot::Read), Err(MmError::Inval));
            assert_eq!(MM.set_memory(at(0).wrapping_add(1), 1, Prot::Read), Err(MmError::Inval));
            assert_eq!(MM.set_memory(at(0), usize::MAX, Prot::Read), Err(MmError::NotMapped));
            assert_eq!(MM.set_memory(core::ptr::null(), 1, Prot::Read), Err(MmError::NotMapped));
        }
        MM.vfree(area.as_ptr()).unwrap();
    }

    #[test]
    fn code_is_written_then_executed_and_its_frames_are_writable_again() {
        if !HAS_MMU {
            return;
        }
        let mut area = VmArea::new_in(2 * PAGE, &MM).unwrap();
        // SAFETY: the area is ours.
        unsafe { area.as_ptr().write_bytes(0xc3, 2 * PAGE) };
        area.protect(Prot::ReadExecute).unwrap();
        // A frame of it is not mapped writable a second time.
        let frame = area.frame(0).unwrap();
        assert_eq!(MM.vmap(&[frame], Prot::ReadWrite), Err(MmError::Unsupported));
        #[cfg(all(target_arch = "x86_64", target_os = "none"))]
        {
            // SAFETY: 0xc3 is `ret`, in executable memory.
            let code: extern "C" fn() = unsafe { core::mem::transmute(area.as_ptr()) };
            code();
        }
        drop(area);
        // Every frame there is can be written through the direct map again.
        let mut pages: Vec<NonNull<u8>, 64> = Vec::new();
        while let Ok(page) = MM.get_free_page(GFP_KERNEL) {
            bytes(page, PAGE).fill(1);
            if pages.push(page).is_err() {
                MM.free_page(page.as_ptr()).unwrap();
                break;
            }
        }
        for page in pages {
            MM.free_page(page.as_ptr()).unwrap();
        }
    }
}
