//! Starting up: before `init`, twice, with maps and configurations that make no sense, and with any that does.

use backend_nommu::Arena;
use mm_core::*;
use proptest::prelude::*;
use rtmm_testkit::rig::{Rig, WINDOW};
use rtmm_testkit::{Ram, SimConfig, SimMachine, TestPlatform};
use std::alloc::Layout;
use std::collections::BTreeSet;
use std::ptr::{null, null_mut};

const PAGE: u64 = 4096;
const NONE: VirtRange = VirtRange { start: 0, end: 0 };
const NORMAL: ZoneSpec = ZoneSpec { kind: ZoneKind::Normal, end: 1 << 32 };

/// Every call on a manager that is not ready is refused, and nothing panics.
fn nothing_works<B: Backend>(mm: &Mm<TestPlatform, B>) {
    let not_ready = Err(AllocError::NotReady);
    for size in [1, 8, 100, 4096, 4097, 100_000, 1 << 22] {
        for flags in [GFP_KERNEL, GFP_ATOMIC, GFP_KERNEL | GFP_DMA, GFP_KERNEL | Gfp::ZERO] {
            assert_eq!([mm.kmalloc(size, flags), mm.kzalloc(size, flags), mm.kcalloc(1, size, flags)], [not_ready; 3]);
            assert_eq!(mm.alloc_pages_exact(size, flags), not_ready);
            assert_eq!(mm.krealloc(null_mut(), size, flags), Err(AllocError::NotReady));
        }
        assert_eq!([mm.vmalloc(size), mm.vzalloc(size)], [not_ready; 2]);
        assert_eq!(mm.ioremap(PhysAddr(0xf000_0000), size), Err(AllocError::NotReady.into()));
    }
    for order in 0..=10 {
        assert_eq!(mm.get_free_pages(GFP_KERNEL, order), not_ready);
    }
    assert_eq!(mm.get_zeroed_page(GFP_KERNEL), not_ready);
    assert!(mm.alloc_layout(Layout::new::<u64>(), ALLOCATOR_FLAGS).is_null());
    assert_eq!(KBox::new_in(3, GFP_KERNEL, mm).err(), Some(AllocError::NotReady));
    assert_eq!(Pages::new_in(GFP_KERNEL, 3, mm).err(), Some(AllocError::NotReady));
    let cache = mm.kmem_cache_create("early", 100, 0, CacheFlags::empty(), None);
    assert_eq!(cache.err(), Some(AllocError::NotReady.into()));
    let stack = 0u64;
    let stack = (&raw const stack).cast::<u8>();
    let free = [mm.kfree(stack), mm.free_page(stack.map_addr(|addr| addr & !4095)), mm.vfree(stack), mm.iounmap(stack)];
    assert_eq!(free, [Err(FreeError::NotReady); 4]);
    assert_eq!(mm.free_pages_exact(stack, 5), Err(FreeError::NotReady));
    assert_eq!(mm.krealloc(stack.cast_mut(), 9, GFP_KERNEL), Err(AllocError::BadPointer));
    assert_eq!([mm.kfree(null()), mm.free_page(null()), mm.vfree(null()), mm.iounmap(null())], [Ok(()); 4]);
    assert_eq!((mm.find_area(0x1000).map(|hit| hit.addr), mm.is_vmalloc_addr(stack)), (None, false));
    assert_eq!(mm.vmalloc_to_page(stack), None);
    mm.drain();
    assert_eq!((mm.free_page_count(), mm.slabinfo().active(), mm.vmallocinfo().count()), (0, (0, 0), 0));
    mm.check().unwrap();
    assert!(mm.buddyinfo().largest().is_none() && mm.meminfo().free == 0);
    let text = format!("{}{}{}", mm.meminfo(), mm.slabinfo(), mm.vmallocinfo());
    assert!(text.contains("MemFree:"), "{text}");
}

fn new_arena() -> (Mm<TestPlatform, Arena>, TestPlatform) {
    let platform = TestPlatform::new();
    (Mm::new(platform.clone(), Arena::new()), platform)
}

/// A manager on `pages` of RAM, initialised with `config`.
fn start(pages: u64, config: &Config<'_>) -> (Mm<TestPlatform, Arena>, Ram, Result<(), MmError>) {
    let ram = Ram::new(&[PhysRange { start: 0x10_0000, end: 0x10_0000 + pages * PAGE }]);
    let (mm, _) = new_arena();
    // SAFETY: the RAM is returned beside the manager.
    unsafe { mm.backend().place(ram.ptr(0x10_0000).unwrap(), 0x10_0000) };
    let mut map: BootMap = BootMap::new();
    map.add_ram(0x10_0000, pages * PAGE).unwrap();
    // SAFETY: the memory is this manager's alone, and is there.
    let result = unsafe { mm.init(&mut map.finish(12, 44).unwrap(), config) };
    (mm, ram, result)
}

#[test]
fn nothing_works_before_init() {
    nothing_works(&new_arena().0);
    let machine = SimMachine::<false>::new(SimConfig::new(&[(0x1000, 0x2000)]));
    nothing_works(&Mm::new(TestPlatform::new(), backend_mmu_x86::X86::new(machine)));
}

#[test]
fn init_works_once() {
    let rig = Rig::nommu(0x10_0000, 64 * PAGE);
    rig.nothing_lost(|mm| {
        let object = mm.kmalloc(100, GFP_KERNEL).unwrap();
        let before = (mm.check().unwrap(), mm.zoneinfo().to_string());
        let mut map: BootMap = BootMap::new();
        map.add_ram(0x50_0000, 0x10_0000).unwrap();
        let mut ram = map.finish(12, 44).unwrap();
        for zones in [&[NORMAL][..], &[]] {
            // SAFETY: the memory is this manager's alone, and is there.
            assert_eq!(unsafe { mm.init(&mut ram, &Config::new(zones, NONE)) }, Err(MmError::AlreadyInit));
        }
        assert_eq!((mm.check().unwrap(), mm.zoneinfo().to_string()), before);
        assert_eq!(ram.free_bytes(), 0x10_0000, "nothing was taken of the second map");
        mm.kfree(object.as_ptr()).unwrap();
    });
}

#[test]
fn an_empty_map_is_an_error() {
    let empty: BootMap = BootMap::new();
    assert_eq!(empty.finish(12, 46).err(), Some(MmError::NoUsableMemory));
    let mut reserved: BootMap = BootMap::new();
    reserved.add_ram(0x1000, 0x10_0000).unwrap();
    reserved.reserve(0, u64::MAX).unwrap();
    assert_eq!(reserved.finish(12, 46).err(), Some(MmError::NoUsableMemory));
    // A map from which everything was taken before.
    let mut map: BootMap = BootMap::new();
    map.add_ram(0x10_0000, 4 * PAGE).unwrap();
    let mut ram = map.finish(12, 44).unwrap();
    while ram.alloc_top(PAGE, PAGE, u64::MAX).is_some() {}
    let (mm, _) = new_arena();
    // SAFETY: the memory is this manager's alone, and is there.
    assert_eq!(unsafe { mm.init(&mut ram, &Config::new(&[NORMAL], NONE)) }, Err(MmError::NoUsableMemory));
    nothing_works(&mm);
}

#[test]
fn little_ram_is_enough_or_refused() {
    let mut works = None;
    for pages in (1..=20).chain([33, 63, 64, 65]) {
        let (mm, _ram, result) = start(pages, &Config::new(&[NORMAL], NONE));
        match result {
            Ok(()) => {
                works.get_or_insert(pages);
                assert!(mm.free_page_count() > 0, "{pages} pages, and none is free");
                let taken: Vec<_> = std::iter::from_fn(|| mm.get_free_page(GFP_ATOMIC).ok()).collect();
                assert_eq!(mm.free_page_count(), 0);
                mm.check().unwrap();
                taken.iter().for_each(|page| mm.free_page(page.as_ptr()).unwrap());
                assert_eq!(mm.check().unwrap().free, taken.len());
            }
            Err(error) => {
                assert_eq!(error, MmError::NoUsableMemory);
                assert!(works.is_none(), "{pages} pages must be enough, as {works:?} were");
                nothing_works(&mm);
            }
        }
    }
    assert!(works.is_some_and(|pages| pages <= 8), "{works:?}");
}

#[test]
fn ram_without_an_address_is_highmem_or_refused() {
    let zone = |kind, end| ZoneSpec { kind, end };
    let (normal, high) = (ZoneKind::Normal, ZoneKind::HighMem);
    let lowmem_end = 3 << 20;
    for (zones, works) in [
        (vec![zone(normal, lowmem_end), zone(high, 1 << 40)], true),
        (vec![zone(normal, lowmem_end + PAGE), zone(high, 1 << 40)], false),
        (vec![zone(normal, 1 << 40)], false),
        (vec![zone(ZoneKind::Dma, 1 << 20), zone(normal, 1 << 40)], false),
        (vec![zone(ZoneKind::Dma, 1 << 20), zone(ZoneKind::Dma32, 1 << 32), zone(high, 1 << 40)], false),
    ] {
        let ram = [(1 << 20, 2 << 20), (5 << 19, 4 << 20)];
        let mut config = SimConfig::new(&ram);
        config.lowmem_end = lowmem_end;
        let machine = SimMachine::<false>::new(config);
        let mut map: BootMap = BootMap::new();
        ram.iter().for_each(|&(start, end)| map.add_ram(start, end - start).unwrap());
        let mut usable = map.finish(12, 46).unwrap();
        machine.boot(WINDOW, &mut || Some(Pfn((usable.alloc_top(4096, 4096, lowmem_end)?.start >> 12) as u32)));
        let mm = Box::new(Mm::new(TestPlatform::new(), backend_mmu_x86::X86::new(machine)));
        // SAFETY: the memory is this manager's alone, and is there.
        let result = unsafe { mm.init(&mut usable, &Config::new(&zones, WINDOW)) };
        assert_eq!(result, if works { Ok(()) } else { Err(MmError::Inval) }, "{zones:?}");
        if works {
            mm.check().unwrap();
        }
    }
}

#[test]
fn zones_that_make_no_sense_are_refused() {
    let zone = |kind, end| ZoneSpec { kind, end };
    let (dma, normal) = (ZoneKind::Dma, ZoneKind::Normal);
    let all = [dma, ZoneKind::Dma32, normal, ZoneKind::HighMem];
    let lists: [Vec<ZoneSpec>; 8] = [
        vec![],
        vec![zone(dma, 1 << 32), zone(normal, 1 << 30)],
        vec![zone(dma, 1 << 32), zone(normal, 1 << 32)],
        vec![zone(normal, 1 << 30), zone(dma, 1 << 32)],
        vec![zone(normal, 1 << 30), zone(normal, 1 << 32)],
        // RAM behind the last zone.
        vec![zone(normal, 0x10_2000)],
        vec![zone(normal, 0)],
        all.iter().chain(&[normal]).enumerate().map(|(i, kind)| zone(*kind, (i as u64 + 1) << 30)).collect(),
    ];
    for zones in lists {
        let (mm, _ram, result) = start(64, &Config::new(&zones, NONE));
        assert!(matches!(result, Err(MmError::Inval | MmError::NoUsableMemory)), "{zones:?}: {result:?}");
        nothing_works(&mm);
        let mut map: BootMap = BootMap::new();
        map.add_ram(0x10_0000, 64 * PAGE).unwrap();
        // SAFETY: the memory is this manager's alone, and is there.
        let again = unsafe { mm.init(&mut map.finish(12, 44).unwrap(), &Config::new(&[NORMAL], NONE)) };
        assert_eq!(again, Err(MmError::AlreadyInit));
    }
    // Zones without RAM do no harm.
    let zones = [zone(dma, 0x1000), zone(ZoneKind::Dma32, 0x2000), zone(normal, 1 << 32), zone(all[3], 1 << 40)];
    let (mm, _ram, result) = start(64, &Config::new(&zones, NONE));
    assert_eq!((result, mm.get_free_page(GFP_DMA)), (Ok(()), Err(AllocError::NoMemory)));
    assert_eq!(mm.free_page(mm.get_free_page(GFP_KERNEL).unwrap().as_ptr()), Ok(()));
    mm.check().unwrap();
}

#[test]
fn windows_that_make_no_sense_are_refused() {
    let (mm, _ram, result) = start(64, &Config::new(&[NORMAL], WINDOW));
    assert_eq!(result, Err(MmError::Inval), "a window without an MMU");
    assert_eq!(mm.kmalloc(8, GFP_KERNEL), Err(AllocError::NotReady));
    for window in [
        NONE,
        VirtRange { start: WINDOW.start, end: WINDOW.start },
        VirtRange { start: WINDOW.end, end: WINDOW.start },
        VirtRange { start: WINDOW.start + 4096, end: WINDOW.end },
        VirtRange { start: WINDOW.start, end: WINDOW.end - 4096 },
        VirtRange { start: WINDOW.start + 1, end: WINDOW.end + 1 },
        // More units than can be counted.
        if usize::BITS == 64 {
            VirtRange { start: 1 << (usize::BITS - 1), end: usize::MAX & !0x1f_ffff }
        } else {
            NONE
        },
    ] {
        let machine = SimMachine::<false>::new(SimConfig::new(&[(0x1000, 0x20_0000)]));
        let mut map: BootMap = BootMap::new();
        map.add_ram(0x1000, 0x1f_f000).unwrap();
        let mut ram = map.finish(12, 46).unwrap();
        machine.boot(WINDOW, &mut || Some(Pfn((ram.alloc_top(4096, 4096, u64::MAX)?.start >> 12) as u32)));
        let mm = Mm::new(TestPlatform::new(), backend_mmu_x86::X86::new(machine));
        // SAFETY: the memory is this manager's alone, and is there.
        let result = unsafe { mm.init(&mut ram, &Config::new(&[NORMAL], window)) };
        assert!(matches!(result, Err(MmError::Inval | MmError::NoUsableMemory)), "{window:x?}: {result:?}");
        assert_eq!(mm.vmalloc(8), Err(AllocError::NotReady));
    }
}

/// Where the arena of the property test lies, and its pages.
const ARENA: u64 = 0x10_0000;
const PAGES: u64 = if cfg!(miri) { 64 } else { 700 };

/// Parts of the arena, at any byte.
fn part() -> impl Strategy<Value = (u64, u64)> {
    let edge = prop_oneof![
        2 => (0..=PAGES).prop_map(|page| page * PAGE),
        1 => 0..=PAGES * PAGE,
        1 => (0..=PAGES).prop_map(|page| (page * PAGE).saturating_sub(1)),
    ];
    (edge.clone(), edge).prop_map(|(a, b)| (ARENA + a.min(b), a.max(b) - a.min(b)))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 48 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever firmware says: exactly the pages that are RAM and not reserved are handed out, less the manager's own.
    #[test]
    fn any_map_gives_out_its_free_pages_and_no_other(
        ram in prop::collection::vec(part(), 1..6),
        reserved in prop::collection::vec(part(), 0..6),
        dma in prop::option::of(1..PAGES),
    ) {
        let host = Ram::new(&[PhysRange { start: ARENA, end: ARENA + PAGES * PAGE }]);
        let mut map: BootMap = BootMap::new();
        ram.iter().for_each(|&(base, len)| map.add_ram(base, len).unwrap());
        reserved.iter().for_each(|&(base, len)| map.reserve(base, len).unwrap());
        let Ok(mut usable) = map.finish(12, 44) else { return Ok(()) };
        let promised: BTreeSet<u64> =
            usable.free().iter().flat_map(|r| (r.start..r.end).step_by(PAGE as usize)).collect();
        let (mm, _) = new_arena();
        // SAFETY: the RAM lives to the end of this function.
        unsafe { mm.backend().place(host.ptr(ARENA).unwrap(), ARENA as usize) };
        let mut zones = vec![NORMAL];
        if let Some(pages) = dma {
            zones.insert(0, ZoneSpec { kind: ZoneKind::Dma, end: ARENA + pages * PAGE });
        }
        // SAFETY: the memory is this manager's alone, and is there.
        match unsafe { mm.init(&mut usable, &Config::new(&zones, NONE)) } {
            Ok(()) => {}
            Err(error) => {
                prop_assert!(matches!(error, MmError::NoUsableMemory | MmError::TooManyRegions), "{}", error);
                return Ok(());
            }
        }
        let report = mm.check().unwrap();
        let mut blocks = Vec::new();
        // The largest blocks first, so that blocks of every order are seen.
        for order in (0..=10).rev() {
            while let Ok(block) = mm.get_free_pages(GFP_ATOMIC, order) {
                blocks.push((block.as_ptr(), order));
            }
        }
        let mut given = BTreeSet::new();
        for &(block, order) in &blocks {
            let phys = ARENA + (block.addr() - host.ptr(ARENA).unwrap().addr()) as u64;
            prop_assert!(phys.is_multiple_of(PAGE << order));
            for page in 0..1 << order {
                prop_assert!(given.insert(phys + page * PAGE), "a page was given out twice");
            }
            // It is memory.
            // SAFETY: ours, that long.
            unsafe { block.write_bytes(0xaa, (PAGE as usize) << order) };
        }
        prop_assert!(given.is_subset(&promised));
        // What is left over is what the marks keep, and no more.
        let zones = mm.zoneinfo();
        let kept: usize = zones.zones().iter().map(|z| z.free.min(z.marks.limit(ZoneKind::Normal, Depth::Atomic))).sum();
        prop_assert_eq!((given.len() + kept, mm.free_page_count(), zones.spare(GFP_ATOMIC)), (report.free, kept, 0));
        // What is not given out holds the manager's tables.
        prop_assert!(promised.len() - given.len() <= 8 + PAGES as usize / 16);
        for (block, order) in blocks {
            mm.free_pages(block, order).unwrap();
        }
        prop_assert_eq!(mm.check().unwrap(), report);
    }
}
