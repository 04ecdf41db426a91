//! The manager on the host, both kinds: the promises of each call, and that nothing is lost.
//!
//! Contents are compared as a whole: byte by byte Miri would take hours.

use mm_core::*;
use rtmm_testkit::rig::Rig;

const MIB: u64 = 1 << 20;

fn nommu() -> Rig<backend_nommu::Arena> {
    Rig::nommu(0x2000_0000, if cfg!(miri) { MIB } else { 8 * MIB })
}

fn mmu() -> Rig<backend_mmu_x86::X86<rtmm_testkit::SimMachine>> {
    Rig::mmu(&[(0x1000, 0x8_0000), (0x10_0000, 0x10_0000 + if cfg!(miri) { MIB } else { 8 * MIB })])
}

/// Runs a generic test body on both kinds.
macro_rules! both {
    ($($name:ident => $body:ident;)*) => {$(
        mod $name {
            #[test]
            fn nommu() {
                super::nommu().nothing_lost(super::$body);
            }
            #[test]
            fn mmu() {
                super::mmu().nothing_lost(super::$body);
            }
        }
    )*};
}

type TestMm<B> = Mm<rtmm_testkit::TestPlatform, B>;

both! {
    every_size_of_kmalloc_is_aligned_and_distinct => kmalloc_sizes;
    pages_of_every_order_come_and_go => page_orders;
    exact_pages_leave_their_tail_free => exact_pages;
    vmalloc_of_many_sizes => vmalloc_sizes;
    bad_frees_change_nothing => bad_frees;
    caches_come_and_go => caches;
    exhaustion_is_an_error_and_all_comes_back => exhaustion;
    krealloc_keeps_the_contents => krealloc;
    device_ranges_may_repeat_and_overlap => ioremaps;
    krealloc_with_zero_reads_zero_after_a_shrink => krealloc_zero;
    a_box_goes_back_when_its_drop_unwinds => unwinding_box;
}

fn kmalloc_sizes<B: Backend>(mm: &TestMm<B>) {
    let mut live = Vec::new();
    let step = if cfg!(miri) { 97 } else { 3 };
    for size in (1..=4096).step_by(step).chain([4097, 8192, 10000, 65536, 100_000]) {
        let p = mm.kmalloc(size, GFP_KERNEL).unwrap();
        let align = (size & size.wrapping_neg()).max(8);
        assert_eq!(p.as_ptr().addr() % align.min(4096), 0, "size {size}");
        assert!(mm.ksize(p.as_ptr()).unwrap() >= size);
        // SAFETY: ours, that long.
        unsafe { p.write_bytes(size as u8, size) };
        live.push((p, size));
    }
    mm.check().unwrap();
    for (p, size) in &live {
        // SAFETY: live.
        let bytes = unsafe { std::slice::from_raw_parts(p.as_ptr(), *size) };
        assert!(bytes == vec![*size as u8; *size], "size {size} was overwritten");
    }
    for (i, (p, _)) in live.iter().enumerate() {
        if i % 2 == 0 {
            mm.kfree(p.as_ptr()).unwrap();
        }
    }
    for (i, (p, _)) in live.iter().enumerate() {
        if i % 2 == 1 {
            mm.kfree(p.as_ptr()).unwrap();
        }
    }
}

fn page_orders<B: Backend>(mm: &TestMm<B>) {
    for order in 0..=6 {
        let p = mm.get_free_pages(GFP_KERNEL, order).unwrap();
        // Under Miri the rig's RAM shares less with physical addresses.
        let align = if cfg!(miri) { (4096usize << order).min(1 << 16) } else { 4096 << order };
        assert!(p.as_ptr().addr().is_multiple_of(align));
        assert_eq!(mm.free_pages(p.as_ptr(), order + 1), Err(FreeError::WrongOrder));
        mm.free_pages(p.as_ptr(), order).unwrap();
        assert_eq!(mm.free_pages(p.as_ptr(), order), Err(FreeError::DoubleFree));
    }
    assert_eq!(mm.get_free_pages(GFP_KERNEL, 11), Err(AllocError::BadOrder));
    assert_eq!(mm.get_free_pages(GFP_KERNEL, usize::MAX), Err(AllocError::BadOrder));
    let p = mm.get_zeroed_page(GFP_KERNEL).unwrap();
    // SAFETY: a page of ours.
    assert!(unsafe { std::slice::from_raw_parts(p.as_ptr(), 4096) } == [0; 4096]);
    mm.free_page(p.as_ptr()).unwrap();
}

fn exact_pages<B: Backend>(mm: &TestMm<B>) {
    for pages in [1usize, 3, 5, 63, 64, 65, 100] {
        let before = mm.free_page_count();
        let p = mm.alloc_pages_exact(pages * 4096 - 100, GFP_KERNEL).unwrap();
        assert_eq!(before - mm.free_page_count(), pages);
        mm.check().unwrap();
        assert_eq!(mm.free_pages_exact(p.as_ptr(), (pages + 1) * 4096), Err(FreeError::WrongOrder));
        mm.free_pages_exact(p.as_ptr(), pages * 4096).unwrap();
    }
}

fn vmalloc_sizes<B: Backend>(mm: &TestMm<B>) {
    let mut live = Vec::new();
    for size in [1, 4096, 4097, 15 * 4096, 16 * 4096, 17 * 4096, 100_000, if cfg!(miri) { 150_000 } else { 300_000 }] {
        let p = mm.vmalloc(size).unwrap();
        assert_eq!(p.as_ptr().addr() % 4096, 0);
        assert!(mm.is_vmalloc_addr(p.as_ptr()));
        let pages = size.div_ceil(4096);
        for page in 0..pages {
            assert!(mm.vmalloc_to_page(p.as_ptr().wrapping_add(page * 4096)).is_some());
        }
        if B::HAS_MMU {
            assert_eq!(mm.vmalloc_to_page(p.as_ptr().wrapping_add(pages * 4096)), None);
            let hit = mm.find_area(p.as_ptr().addr() - 1).unwrap();
            assert_eq!((hit.place, hit.area.addr), (Place::GuardBefore, p.as_ptr().addr()));
        }
        live.push((p, size));
        mm.check().unwrap();
    }
    assert_eq!(mm.vmallocinfo().count(), live.len());
    let text = mm.vmallocinfo().to_string();
    assert_eq!(text.lines().count(), live.len());
    assert!(text.contains("manager.rs"), "{text}");
    while !live.is_empty() {
        let (p, _) = live.swap_remove(live.len() / 2);
        mm.vfree(p.as_ptr()).unwrap();
        mm.check().unwrap();
        assert!(mm.vfree(p.as_ptr()).is_err());
    }
}

fn bad_frees<B: Backend>(mm: &TestMm<B>) {
    let stack = 0u8;
    let small = mm.kmalloc(100, GFP_KERNEL).unwrap().as_ptr();
    let large = mm.kmalloc(20_000, GFP_KERNEL).unwrap().as_ptr();
    let page = mm.get_free_pages(GFP_KERNEL, 2).unwrap().as_ptr();
    let area = mm.vmalloc(50_000).unwrap().as_ptr();
    let report = mm.check().unwrap();
    let free = mm.free_page_count();
    assert_eq!(mm.kfree(&stack), Err(FreeError::Foreign));
    assert_eq!(mm.kfree(small.wrapping_add(1)), Err(FreeError::Interior));
    assert_eq!(mm.kfree(small.wrapping_add(8)), Err(FreeError::Interior));
    assert_eq!(mm.kfree(large.wrapping_add(8)), Err(FreeError::Interior));
    assert_eq!(mm.kfree(large.wrapping_add(4096)), Err(FreeError::Interior));
    assert_eq!(mm.kfree(page), Err(FreeError::WrongAllocator));
    assert_eq!(mm.kfree(area), Err(FreeError::WrongAllocator));
    assert!(mm.free_pages(small, 0).is_err());
    assert_eq!(mm.free_pages(large, 0), Err(FreeError::WrongAllocator));
    assert_eq!(mm.free_pages(page, 1), Err(FreeError::WrongOrder));
    assert_eq!(mm.free_pages(page, usize::MAX), Err(FreeError::WrongOrder));
    assert_eq!(mm.free_pages(page.wrapping_add(4096), 0), Err(FreeError::Interior));
    assert_eq!(mm.free_pages(page.wrapping_add(1), 2), Err(FreeError::Misaligned));
    assert_eq!(mm.free_pages(area, 0), Err(FreeError::WrongAllocator));
    assert_eq!(mm.vfree(small.wrapping_sub(small.addr() % 4096)), Err(FreeError::WrongAllocator));
    assert_eq!(mm.vfree(page), Err(FreeError::WrongAllocator));
    assert_eq!(mm.vfree(area.wrapping_add(4096)), Err(FreeError::Interior));
    assert_eq!(mm.vfree(area.wrapping_add(8)), Err(FreeError::Misaligned));
    assert_eq!(mm.vfree(&stack), Err(FreeError::Foreign));
    assert_eq!(mm.iounmap(area), Err(FreeError::WrongAllocator));
    if B::HAS_MMU {
        assert_eq!(mm.vfree(area.wrapping_sub(4096)), Err(FreeError::Interior));
    }
    for null in [mm.kfree(std::ptr::null()), mm.vfree(std::ptr::null()), mm.free_page(std::ptr::null())] {
        assert_eq!(null, Ok(()));
    }
    assert_eq!((mm.check().unwrap(), mm.free_page_count()), (report, free));
    mm.kfree(small).unwrap();
    assert_eq!(mm.kfree(small), Err(FreeError::DoubleFree));
    mm.kfree(large).unwrap();
    assert_eq!(mm.kfree(large), Err(FreeError::DoubleFree));
    mm.free_pages(page, 2).unwrap();
    mm.vfree(area).unwrap();
    assert!(mm.vfree(area).is_err());
}

fn caches<B: Backend>(mm: &TestMm<B>) {
    let a = mm.kmem_cache_create("a", 100, 0, CacheFlags::empty(), None).unwrap();
    let b = mm.kmem_cache_create("b", 4000, 64, CacheFlags::empty(), None).unwrap();
    let c = mm.kmem_cache_create("c", 20_000, 4096, CacheFlags::HWCACHE_ALIGN, None).unwrap();
    assert_eq!(mm.kmem_cache_create("b", 8, 0, CacheFlags::empty(), None).err(), Some(MmError::Exists));
    assert_eq!(mm.kmem_cache_create("d", 0, 0, CacheFlags::empty(), None).err(), Some(MmError::Inval));
    assert!(mm.kmem_cache_create("d", 8, 3, CacheFlags::empty(), None).is_err());
    let mut live = Vec::new();
    for i in 0..30 {
        for cache in [&a, &b, &c] {
            let Ok(p) = cache.alloc(GFP_KERNEL) else { continue };
            // SAFETY: ours, that long.
            unsafe { p.write_bytes(i, cache.object_size()) };
            live.push((p, cache));
        }
    }
    mm.check().unwrap();
    assert_eq!(b.free(live[0].0.as_ptr()), Err(FreeError::WrongCache));
    assert_eq!(mm.kfree(live[0].0.as_ptr()), Err(FreeError::WrongAllocator));
    assert_eq!(c.free(live[2].0.as_ptr().wrapping_add(4096)).err(), Some(FreeError::Interior));
    for (p, cache) in live.drain(..) {
        cache.free(p.as_ptr()).unwrap();
        assert_eq!(cache.free(p.as_ptr()), Err(FreeError::DoubleFree));
    }
    let p = a.alloc(GFP_KERNEL).unwrap();
    let (a, error) = a.destroy().err().unwrap();
    assert_eq!(error, MmError::Busy(1));
    a.free(p.as_ptr()).unwrap();
    a.destroy().map_err(|(_, e)| e).unwrap();
    b.destroy().map_err(|(_, e)| e).unwrap();
    drop(c);
    assert!(mm.slabinfo().cache(0).is_none());
}

fn exhaustion<B: Backend>(mm: &TestMm<B>) {
    let mut pages = Vec::new();
    loop {
        match mm.get_free_page(GFP_ATOMIC) {
            Ok(p) => pages.push(p),
            Err(error) => break assert_eq!(error, AllocError::NoMemory),
        }
    }
    assert_eq!(mm.zoneinfo().spare(GFP_ATOMIC), 0);
    assert_eq!(mm.kmalloc(5000, GFP_ATOMIC), Err(AllocError::NoMemory));
    assert!(mm.vmalloc(4096).is_err());
    mm.check().unwrap();
    for (i, p) in pages.iter().enumerate() {
        if i % 2 == 0 {
            mm.free_page(p.as_ptr()).unwrap();
        }
    }
    // What the marks kept back lies together, and is less than this.
    assert_eq!(mm.get_free_pages(GFP_KERNEL, 5), Err(AllocError::NoContig));
    let area = mm.vmalloc(64 * 1024);
    assert_eq!(area.is_ok(), B::HAS_MMU, "{area:?}");
    if let Ok(area) = area {
        mm.check().unwrap();
        mm.vfree(area.as_ptr()).unwrap();
    } else {
        assert_eq!(area, Err(AllocError::NoContig));
    }
    for (i, p) in pages.iter().enumerate() {
        if i % 2 == 1 {
            mm.free_page(p.as_ptr()).unwrap();
        }
    }
}

fn krealloc<B: Backend>(mm: &TestMm<B>) {
    let mut p = mm.krealloc(std::ptr::null_mut(), 10, GFP_KERNEL).unwrap().unwrap();
    // SAFETY: ours.
    unsafe { p.write_bytes(7, 10) };
    for size in [16, 100, 5000, 50_000, 3] {
        p = mm.krealloc(p.as_ptr(), size, GFP_KERNEL).unwrap().unwrap();
        // SAFETY: ours, and at least three bytes were kept.
        assert!(unsafe { std::slice::from_raw_parts(p.as_ptr(), 3) }.iter().all(|b| *b == 7));
    }
    assert_eq!(mm.krealloc(p.as_ptr(), usize::MAX, GFP_KERNEL), Err(AllocError::TooBig));
    assert_eq!(mm.krealloc(p.as_ptr(), 0, GFP_KERNEL), Ok(None));
    assert_eq!(mm.krealloc(p.as_ptr().wrapping_add(1), 5, GFP_KERNEL), Err(AllocError::BadPointer));
}

fn ioremaps<B: Backend>(mm: &TestMm<B>) {
    let device = PhysAddr(0xfed0_0000);
    let maps: Vec<_> = [(0, 4096), (0, 4096), (0x100, 16), (0x100, 8192)]
        .map(|(at, len)| mm.ioremap(PhysAddr(device.0 + at), len))
        .into();
    let maps: Vec<_> = maps.into_iter().map(Result::unwrap).collect();
    assert_eq!(mm.vmallocinfo().count(), 4);
    assert_eq!(mm.vmallocinfo().areas().filter(|area| area.phys == device.0 + 0x100).count(), 2);
    mm.check().unwrap();
    assert_eq!(mm.vfree(maps[0].as_ptr()), Err(FreeError::WrongAllocator));
    for map in &maps {
        assert_eq!(map.as_ptr().addr() % 4096, map.as_ptr().addr() & 0x100);
        mm.iounmap(map.as_ptr()).unwrap();
        mm.check().unwrap();
    }
    assert_eq!(mm.iounmap(maps[3].as_ptr()), Err(FreeError::DoubleFree));
    for (phys, size, error) in
        [(device.0, 0, MmError::Inval), (u64::MAX, 2, MmError::BadRange), (1 << 60, 4096, MmError::BadRange)]
    {
        assert_eq!(mm.ioremap(PhysAddr(phys), size), Err(error));
    }
    // With 32 bits the bus may reach as far, and only the addresses are too few.
    let most = mm.ioremap(device, usize::MAX);
    let too_few = usize::BITS == 32 && most == Err(MmError::Alloc(AllocError::NoAddressSpace));
    assert!(most == Err(MmError::BadRange) || too_few, "{most:?}");
}

fn krealloc_zero<B: Backend>(mm: &TestMm<B>) {
    let zero = GFP_KERNEL | Gfp::ZERO;
    for sizes in [[64, 16, 64], [64, 16, 128], [8192, 100, 8192]] {
        let mut p = mm.kmalloc(sizes[0], zero).unwrap();
        // SAFETY: ours, that long.
        unsafe { p.write_bytes(0xaa, sizes[0]) };
        for size in &sizes[1..] {
            p = mm.krealloc(p.as_ptr(), *size, zero).unwrap().unwrap();
        }
        // SAFETY: ours, that long.
        let bytes = unsafe { std::slice::from_raw_parts(p.as_ptr(), sizes[2]) };
        assert!(bytes[..sizes[1]].iter().all(|byte| *byte == 0xaa), "{sizes:?}");
        assert!(bytes[sizes[1]..].iter().all(|byte| *byte == 0), "{sizes:?}");
        mm.kfree(p.as_ptr()).unwrap();
    }
}

fn unwinding_box<B: Backend>(mm: &TestMm<B>) {
    struct Boom;
    impl Drop for Boom {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new(()));
        }
    }
    let value = KBox::new_in((Boom, [0u8; 100]), GFP_KERNEL, mm).unwrap();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(value))).unwrap_err();
    assert_eq!(mm.slabinfo().active(), (0, 0));
}
