//! Requests that make no sense, or cannot be met: each is refused with a clear error, and changes nothing.

#[macro_use]
mod common;

use common::{PAGE, TestMm, drained, state, unchanged};
use mm_core::*;
use std::alloc::Layout;
use std::ptr::{NonNull, null_mut};

both! {
    size_zero;
    sizes_over_the_limit;
    products_that_overflow;
    orders_over_the_limit;
    unknown_and_contradicting_flags;
    dma_requests_are_never_served_from_a_higher_zone;
    alignments_of_rust_s_allocator;
    layouts_that_grow_and_shrink;
    more_than_there_is;
}

const LARGEST: usize = PAGE << 10;

/// Sizes that overflow when they are rounded up to anything.
fn absurd() -> impl Iterator<Item = usize> {
    let near = |top: usize| [0, 1, 6, 7, 8, 9, 63, 4094, 4095, 4096, 4097, 65_535, 65_536].map(|below| top - below);
    [near(usize::MAX), near(isize::MAX as usize), near(usize::MAX / 2 + 65_537)].into_iter().flatten()
}

fn size_zero<B: Backend>(mm: &TestMm<B>) {
    let zero = Err(AllocError::ZeroSize);
    unchanged(mm, || {
        for flags in [GFP_KERNEL, GFP_ATOMIC, GFP_KERNEL | GFP_DMA, GFP_KERNEL | Gfp::ZERO] {
            assert_eq!([mm.kmalloc(0, flags), mm.kzalloc(0, flags), mm.alloc_pages_exact(0, flags)], [zero; 3]);
            assert_eq!([mm.kcalloc(0, 8, flags), mm.kcalloc(8, 0, flags), mm.kcalloc(0, 0, flags)], [zero; 3]);
            assert_eq!(mm.kcalloc(usize::MAX, 0, flags), zero);
            assert_eq!(mm.krealloc(null_mut(), 0, flags), Ok(None));
        }
        assert_eq!([mm.vmalloc(0), mm.vzalloc(0)], [zero; 2]);
        assert_eq!(VmArea::new_in(0, mm).err(), Some(AllocError::ZeroSize));
        assert_eq!(mm.ioremap(PhysAddr(0xf000_0000), 0), Err(MmError::Inval));
        assert!(mm.alloc_layout(Layout::new::<()>(), ALLOCATOR_FLAGS).is_null());
    });
    // A value without a size takes no memory, and can be made when there is none.
    unchanged(mm, || {
        let made = KBox::new_in((), GFP_KERNEL, mm).unwrap();
        made.into_inner();
    });
}

fn sizes_over_the_limit<B: Backend>(mm: &TestMm<B>) {
    let old = mm.kmalloc(50, GFP_KERNEL).unwrap();
    // SAFETY: ours, that long.
    unsafe { old.write_bytes(0xee, 50) };
    let big = Err(AllocError::TooBig);
    let before = state(mm);
    for size in absurd().chain([LARGEST + 1, LARGEST + PAGE, 2 * LARGEST, 1 << 30]) {
        for flags in [GFP_KERNEL, GFP_ATOMIC | Gfp::ZERO] {
            assert_eq!([mm.kmalloc(size, flags), mm.kzalloc(size, flags), mm.kcalloc(1, size, flags)], [big; 3]);
            assert_eq!(mm.alloc_pages_exact(size, flags), big, "{size:#x}");
            assert_eq!(mm.krealloc(old.as_ptr(), size, flags), Err(AllocError::TooBig), "{size:#x}");
            assert_eq!(mm.krealloc(null_mut(), size, flags), Err(AllocError::TooBig), "{size:#x}");
        }
    }
    for size in absurd() {
        assert_eq!([mm.vmalloc(size), mm.vzalloc(size)], [big; 2], "{size:#x}");
        assert!(mm.ioremap(PhysAddr(0xf000_0000), size).is_err(), "{size:#x}");
    }
    assert_eq!(state(mm), before);
    // SAFETY: live.
    assert_eq!(unsafe { std::slice::from_raw_parts(old.as_ptr(), 50) }, [0xee; 50]);
    mm.kfree(old.as_ptr()).unwrap();
}

fn products_that_overflow<B: Backend>(mm: &TestMm<B>) {
    let half = 1usize << (usize::BITS / 2);
    let before = state(mm);
    for (n, size) in [
        (usize::MAX, 2),
        (2, usize::MAX),
        (usize::MAX, usize::MAX),
        // The product wraps to 0, and to 16.
        (half, half),
        (usize::MAX / 16 + 2, 16),
        (3, usize::MAX / 3 + 2),
    ] {
        assert_eq!(mm.kcalloc(n, size, GFP_KERNEL), Err(AllocError::TooBig), "{n:#x} of {size:#x}");
    }
    assert_eq!(state(mm), before);
}

fn orders_over_the_limit<B: Backend>(mm: &TestMm<B>) {
    unchanged(mm, || {
        for order in (11..80).chain([255, 1 << 16, isize::MAX as usize, usize::MAX - 1, usize::MAX]) {
            assert_eq!(mm.get_free_pages(GFP_KERNEL, order), Err(AllocError::BadOrder), "{order}");
            assert_eq!(Pages::new_in(GFP_KERNEL, order, mm).err(), Some(AllocError::BadOrder));
        }
    });
}

fn unknown_and_contradicting_flags<B: Backend>(mm: &TestMm<B>) {
    let cache = mm.kmem_cache_create("flags", 64, 0, CacheFlags::empty(), None).unwrap();
    let object = mm.kmalloc(100, GFP_KERNEL).unwrap();
    let unknown = (0..32).map(|bit| Gfp(1 << bit)).filter(|flag| flag.bits() & Gfp::all().bits() == 0);
    let contradicting = [Gfp::DMA | Gfp::HIGHMEM, Gfp::DMA | Gfp::HIGHMEM | GFP_KERNEL];
    let bad: Vec<_> = unknown.chain(contradicting).chain([Gfp(u32::MAX)]).collect();
    assert!(bad.len() > 20);
    let before = state(mm);
    for flags in bad.iter().flat_map(|bad| [*bad, *bad | GFP_KERNEL, *bad | GFP_ATOMIC]) {
        let want = Err(AllocError::BadFlags);
        for size in [1, 100, 4096, 4097, 100_000] {
            assert_eq!([mm.kmalloc(size, flags), mm.kzalloc(size, flags), mm.kcalloc(1, size, flags)], [want; 3]);
            assert_eq!(mm.alloc_pages_exact(size, flags), want);
            assert_eq!(mm.krealloc(null_mut(), size, flags), Err(AllocError::BadFlags));
            assert_eq!(mm.krealloc(object.as_ptr(), size, flags), Err(AllocError::BadFlags));
        }
        assert_eq!([mm.get_free_page(flags), mm.get_zeroed_page(flags), cache.alloc(flags)], [want; 3]);
        assert_eq!(KBox::new_in(1u64, flags, mm).err(), Some(AllocError::BadFlags));
        assert_eq!(Pages::new_in(flags, 1, mm).err(), Some(AllocError::BadFlags));
        assert!(mm.alloc_layout(Layout::new::<u64>(), flags).is_null());
    }
    assert_eq!(state(mm), before);
    mm.kfree(object.as_ptr()).unwrap();
}

fn dma_requests_are_never_served_from_a_higher_zone<B: Backend>(mm: &TestMm<B>) {
    // Not with feature `debug`: with red zones the objects that use the zone up are of a larger class, and leave some
    // of the small.
    if cfg!(feature = "debug") {
        return;
    }
    let zones = mm.zoneinfo();
    let limit = zones.zones().iter().find(|zone| zone.kind == ZoneKind::Dma).map_or(0, |zone| zone.span.1);
    let is_low = |p: NonNull<u8>| mm.backend().direct_frame(p.as_ptr().addr()) < limit as usize;
    let cache = mm.kmem_cache_create("dma", 300, 0, CacheFlags::CACHE_DMA, None).unwrap();
    // What each kind of request gets while the zone lasts.
    let (mut pages, mut large, mut objects) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let page = mm.get_free_page(GFP_KERNEL | GFP_DMA);
        let block = mm.kmalloc(100, GFP_ATOMIC | GFP_DMA);
        let object = cache.alloc(GFP_KERNEL);
        pages.extend(page);
        large.extend(block);
        objects.extend(object);
        if page.is_err() && block.is_err() && object.is_err() {
            break;
        }
    }
    assert!(pages.iter().chain(&large).chain(&objects).all(|p| is_low(*p)));
    assert_eq!(pages.is_empty(), limit == 0);
    // The zone is empty and the other is not.
    unchanged(mm, || {
        let empty = Err(AllocError::NoMemory);
        for flags in [GFP_DMA, GFP_KERNEL | GFP_DMA, GFP_ATOMIC | GFP_DMA, GFP_KERNEL | GFP_DMA | Gfp::ZERO] {
            assert_eq!([mm.get_free_page(flags), mm.get_free_pages(flags, 2), mm.kmalloc(5000, flags)], [empty; 3]);
            assert_eq!([mm.kzalloc(10, flags), mm.alloc_pages_exact(9000, flags)], [empty; 2]);
        }
        // No zone is named DMA32: the ones below it are asked, and no other.
        assert_eq!(mm.get_free_page(GFP_KERNEL | GFP_DMA32), empty);
        assert_eq!(cache.alloc(GFP_ATOMIC), empty);
    });
    // Ordinary requests go on above, and take the low zone when that is all there is.
    let mut ordinary = vec![mm.get_free_page(GFP_KERNEL).unwrap()];
    assert!(!is_low(ordinary[0]));
    if B::HAS_MMU {
        pages.drain(..).for_each(|page| mm.free_page(page.as_ptr()).unwrap());
        while let Ok(page) = mm.get_free_page(GFP_KERNEL) {
            ordinary.push(page);
        }
        assert!(ordinary.iter().any(|page| is_low(*page)));
        // But for what the zone keeps from them.
        let dma = mm.zoneinfo().zones()[0];
        assert_eq!(dma.free, dma.marks.limit(ZoneKind::Normal, Depth::Min));
        assert!(dma.spare(GFP_DMA) >= dma.marks.reserve[ZoneKind::Normal as usize]);
    }
    ordinary.iter().chain(&pages).for_each(|p| mm.free_page(p.as_ptr()).unwrap());
    large.iter().for_each(|p| mm.kfree(p.as_ptr()).unwrap());
    objects.iter().for_each(|p| cache.free(p.as_ptr()).unwrap());
}

fn alignments_of_rust_s_allocator<B: Backend>(mm: &TestMm<B>) {
    // What the rig's RAM shares with physical addresses.
    let host = if cfg!(miri) { 1 << 16 } else { LARGEST };
    for shift in (0..usize::BITS - 1).step_by(if cfg!(miri) { 6 } else { 1 }) {
        let align = 1usize << shift;
        let sizes = [align, 100, 1, align / 2 + 1, 3 * align / 2 + 1];
        for &size in &sizes[..if cfg!(miri) { 2 } else { sizes.len() }] {
            let Ok(layout) = Layout::from_size_align(size, align) else { continue };
            for flags in [ALLOCATOR_FLAGS, ALLOCATOR_FLAGS | Gfp::ZERO] {
                let p = mm.alloc_layout(layout, flags);
                if p.is_null() {
                    assert!(align > 1 << 14 || size > 1 << 16, "{layout:?} can be met");
                    assert!(unchanged(mm, || mm.alloc_layout(layout, flags)).is_null());
                    continue;
                }
                assert!(size <= LARGEST && align <= LARGEST);
                assert_eq!(p.addr() % align.min(host), 0, "{layout:?}");
                if flags.contains(Gfp::ZERO) {
                    // SAFETY: ours, that long.
                    assert!(unsafe { std::slice::from_raw_parts(p, size) } == vec![0; size]);
                }
                // SAFETY: as above.
                unsafe { p.write_bytes(0xff, size) };
                mm.dealloc_layout(p);
            }
        }
    }
}

fn layouts_that_grow_and_shrink<B: Backend>(mm: &TestMm<B>) {
    let check = |p: *mut u8, len: usize| {
        // SAFETY: ours, at least that long.
        assert!(unsafe { std::slice::from_raw_parts(p, len) } == vec![0x77; len]);
    };
    for align in [1, 8, 64, 4096] {
        let mut layout = Layout::from_size_align(40, align).unwrap();
        let mut p = mm.alloc_layout(layout, ALLOCATOR_FLAGS);
        // SAFETY: 40 bytes of ours.
        unsafe { p.write_bytes(0x77, 40) };
        for size in [41, 100, 5000, 60_000, 59_000, 300, 299, 40] {
            // SAFETY: from `alloc_layout` or `realloc_layout` with this layout.
            p = unsafe { mm.realloc_layout(p, layout, size) };
            assert!(!p.is_null() && p.addr().is_multiple_of(align), "{size} aligned to {align}");
            layout = Layout::from_size_align(size, align).unwrap();
            check(p, 40);
        }
        // Too large, or past what a layout can say: the old object stays.
        for size in [LARGEST + 1, isize::MAX as usize, isize::MAX as usize + 1, usize::MAX] {
            // SAFETY: as above.
            assert!(unchanged(mm, || unsafe { mm.realloc_layout(p, layout, size) }).is_null());
            check(p, 40);
        }
        mm.dealloc_layout(p);
    }
    // Shrinking needs no memory: it works when there is none.
    let layout = Layout::from_size_align(3000, 8).unwrap();
    let p = mm.alloc_layout(layout, ALLOCATOR_FLAGS);
    // SAFETY: 3000 bytes of ours.
    unsafe { p.write_bytes(0x77, 3000) };
    mm.faults().fail_from(FaultClass::Any, 1);
    // SAFETY: as above.
    let small = unsafe { mm.realloc_layout(p, layout, 16) };
    mm.faults().disarm();
    assert!(!small.is_null());
    check(small, 16);
    mm.dealloc_layout(small);
}

fn more_than_there_is<B: Backend>(mm: &TestMm<B>) {
    let managed: usize = mm.zoneinfo().zones().iter().map(|zone| zone.managed).sum();
    // There are as many pages, but not in one block.
    let largest = mm.buddyinfo().largest().unwrap();
    let block = mm.get_free_pages(GFP_KERNEL, largest).unwrap();
    assert!(mm.buddyinfo().largest().is_some_and(|left| left <= largest));
    mm.free_pages(block.as_ptr(), largest).unwrap();
    for order in largest + 1..=10 {
        let want = if 1 << order <= managed { AllocError::NoContig } else { AllocError::NoMemory };
        assert_eq!(unchanged(mm, || mm.get_free_pages(GFP_KERNEL, order)), Err(want));
        assert_eq!(unchanged(mm, || mm.kmalloc(PAGE << order, GFP_KERNEL)), Err(want));
    }
    // More than all memory, and more than is free of it.
    assert_eq!(mm.vmalloc((managed + 1) * PAGE), Err(AllocError::TooBig));
    let kept = mm.get_free_page(GFP_KERNEL).unwrap();
    let before = drained(mm);
    let want = if B::HAS_MMU || managed <= 1 << 10 { AllocError::NoMemory } else { AllocError::TooBig };
    assert_eq!(mm.vmalloc(managed * PAGE), Err(want));
    assert_eq!(drained(mm), before);
    mm.free_page(kept.as_ptr()).unwrap();
}

/// A flag that may sleep, where nothing can: told once for each place, and the call goes on.
mod sleeping_flag {
    use super::*;
    use rtmm_testkit::rig::Rig;

    fn reports<B: Backend>(rig: &Rig<B>) -> Vec<(u32, u32)> {
        let place = |bug: Bug| match bug {
            Bug::MayWaitInAtomic { caller } => {
                assert_eq!(caller.file(), file!());
                (caller.line(), caller.column())
            }
            other => panic!("{other}"),
        };
        rig.platform.take_bugs().into_iter().map(place).collect()
    }

    fn body<B: Backend>(rig: Rig<B>) {
        let mm = &*rig.mm;
        let cache = mm.kmem_cache_create("atomic", 64, 0, CacheFlags::empty(), None).unwrap();
        let kernel = |mm: &TestMm<B>| mm.kmalloc(10, GFP_KERNEL).map(|p| mm.kfree(p.as_ptr()).unwrap());
        for context in [Context::Boot, Context::Task] {
            rig.platform.set_context(context);
            kernel(mm).unwrap();
            assert_eq!(reports(&rig), []);
        }
        rig.platform.set_context(Context::Atomic);
        for _ in 0..5 {
            let p = mm.kmalloc(10, GFP_ATOMIC).unwrap();
            mm.kfree(p.as_ptr()).unwrap();
            mm.get_free_page(GFP_NOWAIT).map(|p| mm.free_page(p.as_ptr()).unwrap()).unwrap();
        }
        assert_eq!(reports(&rig), [], "flags that do not sleep");
        // Each place once, in the line that called; all of them work.
        let mut lines = Vec::new();
        for round in 0..3 {
            let line = line!();
            let a = mm.kmalloc(10, GFP_KERNEL).unwrap();
            let b = mm.kzalloc(20_000, GFP_KERNEL).unwrap();
            let c = mm.get_free_page(GFP_KERNEL).unwrap();
            let d = mm.alloc_pages_exact(9000, GFP_USER).unwrap();
            let e = cache.alloc(GFP_KERNEL).unwrap();
            let f = mm.vmalloc(9000).unwrap();
            let g = mm.ioremap(PhysAddr(0xf000_0000), 16).unwrap();
            let h = KBox::new_in(3u32, GFP_KERNEL, mm).unwrap();
            let i = Pages::new_in(GFP_KERNEL, 1, mm).unwrap();
            let j = VmArea::zeroed_in(100, mm).unwrap();
            let k = IoMapping::new_in(PhysAddr(0xf001_0000), 16, mm).unwrap();
            let l = mm.krealloc(null_mut(), 30, GFP_KERNEL).unwrap().unwrap();
            drop((h, i, j, k));
            [a, b, l].iter().for_each(|p| mm.kfree(p.as_ptr()).unwrap());
            mm.free_page(c.as_ptr()).unwrap();
            mm.free_pages_exact(d.as_ptr(), 9000).unwrap();
            cache.free(e.as_ptr()).unwrap();
            mm.vfree(f.as_ptr()).unwrap();
            mm.iounmap(g.as_ptr()).unwrap();
            lines.extend(reports(&rig).into_iter().map(|(at, _)| at - line));
            assert_eq!(lines, Vec::from_iter(1..=12), "round {round}");
        }
        // An error comes before the report, and changes nothing either.
        assert_eq!(mm.kmalloc(10, GFP_KERNEL | Gfp(1 << 31)), Err(AllocError::BadFlags));
        assert_eq!(mm.kmalloc(0, GFP_ATOMIC), Err(AllocError::ZeroSize));
        assert_eq!(reports(&rig), []);
        // A flood of places ends in silence, not in a flood of reports.
        type Place<B> = fn(&TestMm<B>) -> Result<NonNull<u8>, AllocError>;
        #[rustfmt::skip]
        let places: [Place<B>; 8] = [
            |mm| mm.get_free_page(GFP_KERNEL),
            |mm| mm.get_free_page(GFP_KERNEL),
            |mm| mm.get_free_page(GFP_KERNEL),
            |mm| mm.get_free_page(GFP_KERNEL),
            |mm| mm.get_free_page(GFP_KERNEL),
            |mm| mm.get_free_page(GFP_KERNEL),
            |mm| mm.get_free_page(GFP_KERNEL),
            |mm| mm.get_free_page(GFP_KERNEL),
        ];
        for place in places.into_iter().chain(places) {
            let p = place(mm).unwrap();
            mm.free_page(p.as_ptr()).unwrap();
        }
        let told = reports(&rig).len();
        assert!((1..places.len()).contains(&told), "{told} of 8 further places");
        rig.platform.set_context(Context::Task);
        assert!(cache.destroy().is_ok());
    }

    #[test]
    fn nommu() {
        body(common::nommu());
    }

    #[test]
    fn mmu() {
        body(common::mmu());
    }
}
