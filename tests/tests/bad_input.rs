//! Wrong arguments and wrong frees: a clear error each, and nothing changed.
//!
//! Every test runs under the guard that compares the counts before and after and scans the manager's data.
#![no_std]
#![no_main]

rtmm_tests::setup!();

/// An object that is no memory of the manager, though on some boards it lies in RAM.
static STATIC: [u64; 1024] = [0; 1024];

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use super::STATIC;
    use core::ptr;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use rtmm::{
        AllocError, Backend, BootMap, Bug, CacheFlags, Config, FreeError, GFP_ATOMIC, GFP_DMA, GFP_KERNEL, Gfp,
        MmError, PhysAddr, RamMap, VirtRange, ZoneKind,
    };
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{Bytes, HAS_MMU, LARGEST, MAX_ORDER, NothingLost, PAGE};

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    const QUIET: Gfp = GFP_KERNEL.union(Gfp::NOWARN);

    /// Sizes that no manager can serve, where rounding up would wrap.
    const ABSURD: [usize; 6] =
        [usize::MAX, usize::MAX - 1, usize::MAX - PAGE, usize::MAX - PAGE + 1, usize::MAX - PAGE + 2, usize::MAX / 2];

    /// How the free of something outside the manager's reach is refused: an image inside RAM is reserved there, and
    /// elsewhere it is no memory of the manager at all.
    fn outside(pointer: *const u8) -> FreeError {
        let frame = MM.backend().direct_frame(pointer.addr());
        let zones = MM.zoneinfo();
        let in_ram = zones.zones().iter().any(|zone| (zone.span.0 as usize..zone.span.1 as usize).contains(&frame));
        if in_ram { FreeError::Reserved } else { FreeError::Foreign }
    }

    #[test]
    fn a_size_of_zero_is_an_error_everywhere() {
        assert_eq!(MM.kmalloc(0, GFP_KERNEL), Err(AllocError::ZeroSize));
        assert_eq!(MM.kzalloc(0, GFP_KERNEL), Err(AllocError::ZeroSize));
        assert_eq!(MM.kcalloc(0, 8, GFP_KERNEL), Err(AllocError::ZeroSize));
        assert_eq!(MM.kcalloc(8, 0, GFP_KERNEL), Err(AllocError::ZeroSize));
        assert_eq!(MM.vmalloc(0), Err(AllocError::ZeroSize));
        assert_eq!(MM.vzalloc(0), Err(AllocError::ZeroSize));
        assert_eq!(MM.alloc_pages_exact(0, GFP_KERNEL), Err(AllocError::ZeroSize));
        assert!(MM.ioremap(board::mmio().0, 0).is_err());
    }

    #[test]
    fn a_size_near_the_top_of_the_address_space_is_too_big() {
        for size in ABSURD {
            assert_eq!(MM.kmalloc(size, QUIET), Err(AllocError::TooBig), "{size:#x}");
            assert_eq!(MM.kzalloc(size, QUIET), Err(AllocError::TooBig), "{size:#x}");
            assert_eq!(MM.vmalloc(size), Err(AllocError::TooBig), "{size:#x}");
            assert_eq!(MM.vzalloc(size), Err(AllocError::TooBig), "{size:#x}");
            assert_eq!(MM.alloc_pages_exact(size, QUIET), Err(AllocError::TooBig), "{size:#x}");
        }
        assert_eq!(MM.kmalloc(LARGEST + 1, QUIET), Err(AllocError::TooBig));
    }

    #[test]
    fn an_overflowing_array_is_refused() {
        for (count, size) in [(usize::MAX, 2), (2, usize::MAX), (usize::MAX / 2 + 1, 2), (1 << 20, usize::MAX >> 19)] {
            assert_eq!(MM.kcalloc(count, size, QUIET), Err(AllocError::TooBig), "{count:#x} * {size:#x}");
        }
    }

    #[test]
    fn an_area_larger_than_all_memory_is_refused_before_anything_is_taken() {
        let more_than_all = (MM.free_page_count() + 100_000) * PAGE;
        assert_eq!(MM.vmalloc(more_than_all), Err(AllocError::TooBig));
    }

    #[test]
    fn an_order_above_the_largest_is_refused() {
        for order in [MAX_ORDER + 1, 14, 31, 32, 63, 64, usize::MAX - 1, usize::MAX] {
            assert_eq!(MM.get_free_pages(QUIET, order), Err(AllocError::BadOrder), "{order}");
        }
        let page = Bytes::pages(GFP_KERNEL, 0).unwrap();
        for order in [MAX_ORDER + 1, 64, usize::MAX] {
            assert_eq!(MM.free_pages(page.ptr(), order), Err(FreeError::WrongOrder), "{order}");
        }
        page.free().unwrap();
    }

    #[test]
    fn unknown_and_contradicting_flags_are_refused() {
        let known = Gfp::KNOWN.bits();
        for bit in (0..32).map(|bit| 1u32 << bit).filter(|bit| known & bit == 0) {
            let flags = Gfp::from_bits_retain(GFP_KERNEL.bits() | bit);
            assert_eq!(MM.kmalloc(64, flags), Err(AllocError::BadFlags), "{bit:#x}");
            assert_eq!(MM.get_free_page(flags), Err(AllocError::BadFlags), "{bit:#x}");
            assert_eq!(MM.alloc_pages_exact(PAGE, flags), Err(AllocError::BadFlags), "{bit:#x}");
        }
        let both = GFP_DMA | Gfp::HIGHMEM;
        assert_eq!(MM.get_free_page(both), Err(AllocError::BadFlags));
        assert_eq!(MM.kmalloc(64, both), Err(AllocError::BadFlags));
    }

    #[test]
    fn freeing_null_is_nothing() {
        assert_eq!(MM.kfree(ptr::null()), Ok(()));
        assert_eq!(MM.vfree(ptr::null()), Ok(()));
        for order in [0, 3, MAX_ORDER] {
            assert_eq!(MM.free_pages(ptr::null(), order), Ok(()));
        }
    }

    #[test]
    fn a_block_is_not_freed_twice() {
        for order in [0, 1, 4] {
            let block = Bytes::pages(GFP_KERNEL, order).unwrap();
            let start = block.ptr();
            block.free().unwrap();
            assert_eq!(MM.free_pages(start, order), Err(FreeError::DoubleFree), "order {order}");
        }
    }

    #[test]
    fn a_block_that_merged_into_a_larger_one_is_not_freed_again() {
        let block = Bytes::pages(GFP_KERNEL, 3).unwrap();
        let start = block.ptr();
        block.free().unwrap();
        MM.drain();
        for page in 0..8 {
            let inside = start.wrapping_add(page * PAGE);
            assert_eq!(MM.free_page(inside), Err(FreeError::DoubleFree), "page {page}");
        }
    }

    #[test]
    fn a_block_is_not_freed_with_another_order() {
        let block = Bytes::pages(GFP_KERNEL, 3).unwrap();
        for order in (0..=MAX_ORDER).filter(|order| *order != 3) {
            assert_eq!(MM.free_pages(block.ptr(), order), Err(FreeError::WrongOrder), "order {order}");
        }
        block.free().unwrap();
        let exact = Bytes::exact(5 * PAGE, GFP_KERNEL).unwrap();
        for pages in [1, 4, 6, 8] {
            assert_eq!(MM.free_pages_exact(exact.ptr(), pages * PAGE), Err(FreeError::WrongOrder), "{pages} pages");
        }
        exact.free().unwrap();
    }

    #[test]
    fn a_tail_page_is_not_freed() {
        let block = Bytes::pages(GFP_KERNEL, 3).unwrap();
        for page in 1..8 {
            for order in 0..=3 {
                let tail = block.ptr().wrapping_add(page * PAGE);
                assert_eq!(MM.free_pages(tail, order), Err(FreeError::Interior), "page {page}, order {order}");
            }
        }
        block.free().unwrap();
    }

    #[test]
    fn an_unaligned_page_address_is_refused() {
        let block = Bytes::pages(GFP_KERNEL, 1).unwrap();
        for offset in [1, 2, 8, PAGE / 2, PAGE - 1, PAGE + 1] {
            let inside = block.ptr().wrapping_add(offset);
            assert_eq!(MM.free_pages(inside, 1), Err(FreeError::Misaligned), "offset {offset}");
        }
        block.free().unwrap();
    }

    #[test]
    fn memory_that_is_not_the_managers_is_not_freed() {
        let local = [0u64; 4];
        let code = memory_that_is_not_the_managers_is_not_freed as fn() as *const u8;
        let pages = (&raw const STATIC).addr().next_multiple_of(PAGE);
        let page: *const u8 = ptr::without_provenance(pages);
        for order in 0..=2 {
            assert_eq!(MM.free_pages(page, order), Err(outside(page)), "static, order {order}");
        }
        for object in [(&raw const STATIC).cast::<u8>(), (&raw const local).cast(), code] {
            assert_eq!(MM.kfree(object), Err(outside(object)), "kfree of {object:?}");
            assert_eq!(MM.ksize(object), Err(outside(object)), "ksize of {object:?}");
            assert!(MM.vfree(object).is_err(), "vfree of {object:?}");
        }
    }

    #[test]
    fn the_managers_own_tables_are_not_freed() {
        // They are placed at the top of the memory they describe, as far as it has kernel addresses.
        let info = MM.zoneinfo();
        let low = info.zones().iter().filter(|zone| zone.kind != ZoneKind::HighMem);
        let end = low.map(|zone| zone.span.1).max().unwrap();
        let last: *const u8 = MM.backend().direct_ptr((end as usize - 1) * PAGE);
        let pages = MM.meminfo().reserved as usize / PAGE;
        for order in (0..=2).take_while(|order| 1 << order <= pages) {
            assert_eq!(MM.free_pages(last.wrapping_sub((1 << order) * PAGE - PAGE), order), Err(FreeError::Reserved));
        }
        assert_eq!(MM.kfree(last), Err(FreeError::Reserved));
    }

    #[test]
    fn absurd_addresses_are_not_freed() {
        let top = usize::MAX;
        // With 64 bits the last two lie just outside the canonical halves of an x86 with four levels of tables.
        let [above_low, below_high] = [0x0000_8000_0000_0000u64, 0xffff_7fff_ffff_f000].map(|addr| addr as usize);
        for addr in
            [PAGE, 0x1000, top, top - 7, top & !(PAGE - 1), top / 2, top / 2 + 1, 1 << 20, above_low, below_high]
        {
            if addr == 0 {
                continue;
            }
            let pointer: *const u8 = ptr::without_provenance(addr);
            assert!(MM.kfree(pointer).is_err(), "kfree of {addr:#x}");
            assert!(MM.vfree(pointer).is_err(), "vfree of {addr:#x}");
            assert!(MM.iounmap(pointer).is_err(), "iounmap of {addr:#x}");
            assert!(MM.free_page(pointer).is_err(), "free_page of {addr:#x}");
            assert!(MM.free_pages_exact(pointer, PAGE).is_err(), "free_pages_exact of {addr:#x}");
            assert!(MM.ksize(pointer).is_err(), "ksize of {addr:#x}");
            assert_eq!(MM.vmalloc_to_page(pointer), None, "vmalloc_to_page of {addr:#x}");
            assert!(!MM.is_vmalloc_addr(pointer), "is_vmalloc_addr of {addr:#x}");
        }
    }

    #[test]
    fn an_object_is_not_freed_twice() {
        for size in [8, 100, 1000, PAGE, 5 * PAGE] {
            let object = Bytes::kmalloc(size, GFP_KERNEL).unwrap();
            let start = object.ptr();
            object.free().unwrap();
            assert_eq!(MM.kfree(start), Err(FreeError::DoubleFree), "{size} bytes");
        }
    }

    #[test]
    fn an_object_is_not_freed_twice_with_other_frees_between() {
        let [first, second, third] = [(); 3].map(|()| Bytes::kmalloc(64, GFP_KERNEL).unwrap());
        let start = first.ptr();
        first.free().unwrap();
        second.free().unwrap();
        assert_eq!(MM.kfree(start), Err(FreeError::DoubleFree));
        third.free().unwrap();
        assert_eq!(MM.kfree(start), Err(FreeError::DoubleFree));
    }

    #[test]
    fn an_interior_pointer_is_not_freed() {
        for size in [16, 96, 1000, 2048, PAGE, 5 * PAGE] {
            let object = Bytes::kmalloc(size, GFP_KERNEL).unwrap();
            for offset in [1, 8, size / 2, size - 1] {
                let inside = object.ptr().wrapping_add(offset);
                assert_eq!(MM.kfree(inside), Err(FreeError::Interior), "{size} bytes, offset {offset}");
                assert_eq!(MM.ksize(inside), Err(FreeError::Interior), "{size} bytes, offset {offset}");
            }
            object.free().unwrap();
        }
    }

    #[test]
    fn krealloc_of_a_bad_pointer_is_refused() {
        let object = Bytes::kmalloc(100, GFP_KERNEL).unwrap();
        let inside = object.ptr().wrapping_add(8).cast_mut();
        assert_eq!(MM.krealloc(inside, 200, GFP_KERNEL), Err(AllocError::BadPointer));
        let stale = object.ptr().cast_mut();
        object.free().unwrap();
        assert_eq!(MM.krealloc(stale, 200, GFP_KERNEL), Err(AllocError::BadPointer));
    }

    #[test]
    fn memory_is_freed_only_by_the_call_that_fits() {
        let object = Bytes::kmalloc(2 * PAGE, GFP_KERNEL).unwrap();
        assert_eq!(MM.free_pages(object.ptr(), 1), Err(FreeError::WrongAllocator), "pages: kmalloc");
        assert_eq!(MM.free_pages_exact(object.ptr(), 2 * PAGE), Err(FreeError::WrongAllocator), "exact: kmalloc");
        assert_eq!(MM.vfree(object.ptr()), Err(FreeError::WrongAllocator), "vfree: kmalloc");
        object.free().unwrap();

        let block = Bytes::pages(GFP_KERNEL, 1).unwrap();
        assert_eq!(MM.kfree(block.ptr()), Err(FreeError::WrongAllocator), "kfree: pages");
        assert_eq!(MM.vfree(block.ptr()), Err(FreeError::WrongAllocator), "vfree: pages");
        block.free().unwrap();

        let area = Bytes::vmalloc(2 * PAGE).unwrap();
        assert_eq!(MM.kfree(area.ptr()), Err(FreeError::WrongAllocator), "kfree: vmalloc");
        assert_eq!(MM.free_pages(area.ptr(), 1), Err(FreeError::WrongAllocator), "pages: vmalloc");
        assert_eq!(MM.iounmap(area.ptr()), Err(FreeError::WrongAllocator), "iounmap: vmalloc");
        area.free().unwrap();

        let (device, len) = board::mmio();
        let mapping = MM.ioremap(device, len).unwrap();
        assert_eq!(MM.vfree(mapping.as_ptr()), Err(FreeError::WrongAllocator), "vfree: ioremap");
        assert!(MM.kfree(mapping.as_ptr()).is_err(), "kfree: ioremap");
        MM.iounmap(mapping.as_ptr()).unwrap();
    }

    #[test]
    fn an_area_is_not_freed_twice() {
        let area = Bytes::vmalloc(3 * PAGE).unwrap();
        let start = area.ptr();
        area.free().unwrap();
        assert!(matches!(MM.vfree(start), Err(FreeError::DoubleFree | FreeError::Foreign)), "{:?}", MM.vfree(start));
        let (device, len) = board::mmio();
        let mapping = MM.ioremap(device, len).unwrap();
        MM.iounmap(mapping.as_ptr()).unwrap();
        assert!(MM.iounmap(mapping.as_ptr()).is_err());
    }

    #[test]
    fn an_address_inside_or_beside_an_area_is_not_freed() {
        let area = Bytes::vmalloc(3 * PAGE).unwrap();
        assert_eq!(MM.vfree(area.ptr().wrapping_add(PAGE)), Err(FreeError::Interior));
        assert_eq!(MM.vfree(area.ptr().wrapping_add(2 * PAGE)), Err(FreeError::Interior));
        assert_eq!(MM.vfree(area.ptr().wrapping_add(8)), Err(FreeError::Misaligned));
        assert!(MM.vfree(area.ptr().wrapping_add(3 * PAGE)).is_err(), "the guard, or a neighbour");
        assert!(MM.vfree(area.ptr().wrapping_sub(PAGE)).is_err(), "the guard, or a neighbour");
        area.free().unwrap();
    }

    #[test]
    fn ioremap_refuses_ram() {
        let block = Bytes::pages(GFP_KERNEL, 0).unwrap();
        let area = Bytes::vmalloc(PAGE).unwrap();
        let frame = MM.vmalloc_to_page(area.ptr()).unwrap();
        let phys = PhysAddr(u64::from(frame.0) * PAGE as u64);
        assert_eq!(MM.ioremap(phys, PAGE), Err(MmError::IsRam));
        assert_eq!(MM.ioremap(PhysAddr(phys.0 + 1), 1), Err(MmError::IsRam));
        area.free().unwrap();
        block.free().unwrap();
    }

    #[test]
    fn ioremap_refuses_ranges_that_wrap_or_pass_the_address_width() {
        for (phys, size) in [
            (u64::MAX, 1),
            (u64::MAX - 4095, 4096),
            (u64::MAX - 4095, 8192),
            (1 << 60, 4096),
            (board::mmio().0.0, usize::MAX),
            (board::mmio().0.0, usize::MAX - PAGE + 1),
        ] {
            let refused = MM.ioremap(PhysAddr(phys), size);
            assert!(refused.is_err(), "{phys:#x} + {size:#x}");
        }
    }

    #[test]
    fn an_object_is_not_freed_into_another_cache() {
        let own = MM.kmem_cache_create("own", 64, 8, CacheFlags::empty(), None).unwrap();
        let other = MM.kmem_cache_create("other", 64, 8, CacheFlags::empty(), None).unwrap();
        let object = own.alloc(GFP_KERNEL).unwrap();
        assert_eq!(other.free(object.as_ptr()), Err(FreeError::WrongCache));
        let plain = Bytes::kmalloc(64, GFP_KERNEL).unwrap();
        assert_eq!(own.free(plain.ptr()), Err(FreeError::WrongAllocator));
        assert_eq!(MM.kfree(object.as_ptr()), Err(FreeError::WrongAllocator));
        plain.free().unwrap();
        own.free(object.as_ptr()).unwrap();
        assert_eq!(own.free(object.as_ptr()), Err(FreeError::DoubleFree));
        own.destroy().map_err(|(_, error)| error).unwrap();
        other.destroy().map_err(|(_, error)| error).unwrap();
    }

    #[test]
    fn a_cache_of_absurd_shape_is_refused() {
        let refused = |size, align| MM.kmem_cache_create("absurd", size, align, CacheFlags::empty(), None).err();
        assert!(refused(0, 8).is_some(), "size 0");
        assert!(refused(usize::MAX, 8).is_some(), "size usize::MAX");
        assert!(refused(usize::MAX - 6, 8).is_some(), "rounding up wraps");
        for align in [3, 6, 100, usize::MAX, 2 * LARGEST] {
            assert!(refused(64, align).is_some(), "alignment {align}");
        }
    }

    #[test]
    fn a_second_cache_of_one_name_is_refused() {
        let cache = MM.kmem_cache_create("twin", 64, 8, CacheFlags::empty(), None).unwrap();
        assert_eq!(MM.kmem_cache_create("twin", 32, 8, CacheFlags::empty(), None).err(), Some(MmError::Exists));
        cache.destroy().map_err(|(_, error)| error).unwrap();
        let again = MM.kmem_cache_create("twin", 32, 8, CacheFlags::empty(), None).unwrap();
        again.destroy().map_err(|(_, error)| error).unwrap();
    }

    #[test]
    fn a_second_init_is_refused() {
        let mut map: BootMap = BootMap::new();
        map.add_ram(1 << 30, 1 << 24).unwrap();
        let mut ram: RamMap = map.finish(12, 32).unwrap();
        let config = Config::new(&[], VirtRange { start: 0, end: 0 });
        // SAFETY: already initialised: it changes nothing.
        assert_eq!(unsafe { MM.init(&mut ram, &config) }, Err(MmError::AlreadyInit));
    }

    #[test]
    fn a_sleeping_flag_in_an_interrupt_is_reported_once_per_site_and_goes_on(mut lost: NothingLost) {
        static SERVED: AtomicUsize = AtomicUsize::new(0);
        fn one_site() {
            let object = MM.kmalloc(64, GFP_KERNEL).unwrap();
            MM.kfree(object.as_ptr()).unwrap();
            SERVED.fetch_add(1, Ordering::Relaxed);
        }
        let before = board::bugs();
        board::in_interrupt(one_site);
        assert!(matches!(board::last_bug(), Some(Bug::MayWaitInAtomic { .. })), "{:?}", board::last_bug());
        assert_eq!(board::bugs(), before + 1);
        board::in_interrupt(one_site);
        assert_eq!(board::bugs(), before + 1, "one report per call site");
        board::in_interrupt(|| {
            let page = MM.get_free_page(GFP_KERNEL).unwrap();
            MM.free_page(page.as_ptr()).unwrap();
        });
        assert_eq!(board::bugs(), before + 2, "another site is another report");
        board::in_interrupt(|| {
            let object = MM.kmalloc(64, GFP_ATOMIC).unwrap();
            MM.kfree(object.as_ptr()).unwrap();
        });
        assert_eq!(board::bugs(), before + 2);
        assert_eq!(SERVED.load(Ordering::Relaxed), 2);
        lost.expect_bugs(2);
    }

    #[test]
    fn a_board_says_what_it_can_do() {
        assert_eq!(HAS_MMU, board::NAME == "qemu-x86_64" || cfg!(feature = "mmu"));
        assert_eq!(<board::Backend as Backend>::HAS_PROTECT, HAS_MMU);
        assert_eq!(<board::Backend as Backend>::HAS_GUARD, HAS_MMU);
    }
}
