//! Memory for devices: below the limit, and in no cache line with anything else.

mod common;

use common::{PAGE, RAM, TestMm, mmu, nommu, unchanged};
use mm_core::*;
use rtmm_testkit::{SimMachine, TestPlatform};
use std::collections::BTreeMap;

type Mmu = Mm<TestPlatform, backend_mmu_x86::X86<SimMachine>>;

const LINE: usize = 64;
const DMA: Gfp = GFP_KERNEL.union(GFP_DMA);
const LIMIT: u64 = 1 << 20;

fn phys<B: Backend>(mm: &TestMm<B>, at: *const u8) -> u64 {
    mm.pfn_of(at).unwrap().phys(12).0 + (at.addr() % PAGE) as u64
}

#[test]
fn small_objects_share_slabs_and_no_cache_line() {
    // Not with feature `debug`: red zones make small objects so large that few share a page.
    if cfg!(feature = "debug") {
        return;
    }
    mmu().nothing_lost(|mm: &Mmu| {
        let free = mm.free_page_count();
        let mut lines = BTreeMap::new();
        let mut objects = Vec::new();
        for size in [1, 8, 60, 64, 65, 100, 500, 1000, 2048, 4000, 4096].into_iter().cycle().take(55) {
            let at = mm.kmalloc(size, DMA).unwrap().as_ptr();
            let usable = mm.ksize(at).unwrap();
            assert!(usable >= size && usable.is_multiple_of(LINE) && at.addr().is_multiple_of(LINE));
            let align = (size & size.wrapping_neg()).max(LINE);
            assert_eq!(at.addr() % align, 0, "an object of {size}");
            assert!(phys(mm, at) + usable as u64 <= LIMIT);
            for line in (at.addr()..at.addr() + usable).step_by(LINE) {
                assert_eq!(lines.insert(line, size), None, "two objects in a cache line");
            }
            // SAFETY: ours, that long.
            unsafe { at.write_bytes(0xff, usable) };
            objects.push(at);
        }
        assert_eq!(mm.slabinfo().active().0, 55);
        assert!(mm.slabinfo().to_string().contains("dma-kmalloc-64"));
        assert!(free - mm.free_page_count() < 55, "not a page each");
        mm.check().unwrap();
        objects.into_iter().for_each(|at| mm.kfree(at).unwrap());
        let zeroed = mm.kzalloc(100, DMA).unwrap().as_ptr();
        // SAFETY: ours, that long.
        assert_eq!(unsafe { std::slice::from_raw_parts(zeroed, 128) }, [0; 128]);
        mm.kfree(zeroed).unwrap();
    });
}

#[test]
fn a_request_for_a_device_never_reaches_up() {
    mmu().nothing_lost(|mm: &Mmu| {
        let flags = DMA | Gfp::NOWARN;
        let mut objects = Vec::new();
        while let Ok(at) = mm.kmalloc(3000, flags) {
            assert!(phys(mm, at.as_ptr()) < LIMIT);
            objects.push(at.as_ptr());
        }
        assert!(!objects.is_empty() && mm.kmalloc(64, GFP_KERNEL).map(|at| mm.kfree(at.as_ptr())).is_ok());
        objects.into_iter().for_each(|at| mm.kfree(at).unwrap());
        // The rig lists no zone below 4 GiB but that one, so a request for either is served from it.
        let at = mm.kmalloc(64, GFP_KERNEL | GFP_DMA32).unwrap().as_ptr();
        assert!(phys(mm, at) < LIMIT);
        mm.kfree(at).unwrap();
    });
    // A machine without such memory says so.
    nommu().nothing_lost(|mm| {
        for size in [8, 64, 5000] {
            assert_eq!(unchanged(mm, || mm.kmalloc(size, DMA)), Err(AllocError::NoMemory));
        }
        assert!(DmaPages::new_in(100, DMA, mm).is_err());
    });
}

#[test]
fn wrong_frees_of_objects_for_devices_are_refused() {
    mmu().nothing_lost(|mm: &Mmu| {
        let (kept, at) = (mm.kmalloc(200, DMA).unwrap().as_ptr(), mm.kmalloc(200, DMA).unwrap().as_ptr());
        for inside in [1, 8, LINE, 200] {
            assert_eq!(unchanged(mm, || mm.kfree(at.wrapping_add(inside))), Err(FreeError::Interior));
            assert_eq!(unchanged(mm, || mm.ksize(at.wrapping_add(inside))), Err(FreeError::Interior));
        }
        let page = at.map_addr(|addr| addr & !(PAGE - 1));
        assert!(unchanged(mm, || mm.free_page(page)).is_err());
        assert!(unchanged(mm, || mm.vfree(page)).is_err());
        assert_eq!(unchanged(mm, || mm.get_page(mm.pfn_of(at).unwrap())), Err(RefError::WrongAllocator));
        let cache = mm.kmem_cache_create("other", 256, 0, CacheFlags::CACHE_DMA, None).unwrap();
        assert_eq!(unchanged(mm, || cache.free(at)), Err(FreeError::WrongAllocator));
        mm.kfree(at).unwrap();
        assert_eq!(unchanged(mm, || mm.kfree(at)), Err(FreeError::DoubleFree));
        assert_eq!(unchanged(mm, || mm.krealloc(at, 10, GFP_KERNEL)), Err(AllocError::BadPointer));
        // SAFETY: nobody uses it.
        assert_eq!(unchanged(mm, || unsafe { mm.kfree_sensitive(at) }), Err(FreeError::DoubleFree));
        // Moved to where the flags say, its bytes with it.
        // SAFETY: ours, that long.
        unsafe { kept.write_bytes(0x3c, 200) };
        let moved = mm.krealloc(kept, 5000, DMA).unwrap().unwrap();
        assert!(phys(mm, moved.as_ptr()) < LIMIT);
        // SAFETY: as above.
        assert_eq!(unsafe { std::slice::from_raw_parts(moved.as_ptr(), 200) }, [0x3c; 200]);
        assert_eq!(unchanged(mm, || mm.kfree(kept)), Err(FreeError::DoubleFree));
        mm.kfree(moved.as_ptr()).unwrap();
    });
}

#[test]
fn pages_for_a_device_are_zeroed_and_told_where_they_are() {
    mmu().nothing_lost(|mm: &Mmu| {
        for (size, flags) in [(1, DMA), (100, GFP_KERNEL), (3 * PAGE - 1, DMA), (PAGE, GFP_ATOMIC | GFP_DMA32)] {
            let free = mm.free_page_count();
            let pages = DmaPages::new_in(size, flags, mm).unwrap();
            assert_eq!((pages.len(), free - mm.free_page_count()), (size, size.div_ceil(PAGE)));
            assert_eq!(pages.phys().0, phys(mm, pages.as_ptr()));
            assert!(flags == GFP_KERNEL || pages.phys().0 < LIMIT);
            let lines = pages.lines();
            assert!(lines.start.is_multiple_of(LINE as u64) && lines.end.is_multiple_of(LINE as u64));
            assert!(lines.len() >= size as u64 && lines.len() < (size + LINE) as u64);
            // SAFETY: as many whole pages of ours.
            unsafe {
                let bytes = std::slice::from_raw_parts_mut(pages.as_ptr(), size);
                assert!(bytes.iter().all(|byte| *byte == 0));
                bytes.fill(0xff);
            }
        }
        assert!(matches!(DmaPages::new_in(0, DMA, mm), Err(AllocError::ZeroSize)));
        assert!(matches!(DmaPages::new_in(usize::MAX, DMA, mm), Err(AllocError::TooBig)));
        assert!(DmaPages::new_in(RAM as usize * 2, DMA, mm).is_err());
    });
}
