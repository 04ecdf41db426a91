//! Typed caches, sheaves, pools and pages for devices: what drivers in Rust hold, and what is sure when memory is short.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use heapless::Vec;
    use rtmm::{
        AllocError, Backend, CacheFlags, DmaPages, GFP_ATOMIC, GFP_DMA, GFP_KERNEL, Gfp, KmemCache, Mempool, MmError,
        ZoneKind,
    };
    use rtmm_tests::board::{Kernel, MM};
    use rtmm_tests::{Bytes, Hoard, NothingLost, PAGE};

    /// Of interrupts and critical sections, and quiet about what is not to be had.
    const NOW: Gfp = GFP_ATOMIC.union(Gfp::NOWARN);
    /// So many are set aside in sheaves and pools.
    const SET_ASIDE: usize = 6;

    #[init]
    fn init() -> NothingLost {
        NothingLost::watch()
    }

    static MADE: AtomicUsize = AtomicUsize::new(0);
    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    /// Which one it is, how often it was used, and room, so that a slab has few.
    struct Request {
        number: usize,
        uses: usize,
        _room: [usize; 14],
    }

    impl Drop for Request {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn values_of_a_cache_are_made_once_stay_as_they_were_left_and_are_dropped_with_their_slab() {
        let made = || Request { number: MADE.fetch_add(1, Relaxed), uses: 0, _room: [0; 14] };
        let cache = KmemCache::new_in("request", made, CacheFlags::empty(), Kernel).unwrap();
        let mut uses = [0; 256];
        // It keeps the slab.
        let kept = cache.alloc(GFP_KERNEL).unwrap();
        for round in 0..4 {
            let mut requests: Vec<_, 5> = Vec::new();
            while !requests.is_full() {
                let mut request = cache.alloc(if requests.is_empty() { GFP_KERNEL } else { NOW }).unwrap();
                assert_eq!(request.uses, uses[request.number], "request {} in round {round}", request.number);
                request.uses += 1;
                uses[request.number] += 1;
                assert!(requests.push(request).is_ok());
            }
            let twice = |request: &Request| requests.iter().filter(|other| other.number == request.number).count() > 1;
            assert!(!requests.iter().any(|request| twice(request)), "one value, two owners");
        }
        assert_eq!((uses.iter().sum::<usize>(), kept.uses, DROPPED.load(Relaxed)), (20, 0, 0));
        drop(kept);
        cache.destroy().map_err(|(_, error)| error).unwrap();
        assert!(MADE.load(Relaxed) >= 6);
        assert_eq!(DROPPED.load(Relaxed), MADE.load(Relaxed));
    }

    /// What a sheaf is for: interrupts are off, memory is gone, and so many allocations succeed.
    #[test]
    fn a_sheaf_serves_in_a_critical_section_when_all_memory_is_taken() {
        /// Large, so that few are left in the slab.
        type Node = [u8; PAGE / 8];
        let cache = KmemCache::new_in("node", || [0; PAGE / 8], CacheFlags::empty(), Kernel).unwrap();
        let mut sheaf = cache.prefill(SET_ASIDE, GFP_KERNEL).unwrap();
        let hoard = Hoard::of_everything();
        let mut rest: Vec<NonNull<Node>, 128> = Vec::new();
        while let Ok(node) = cache.alloc(NOW) {
            rest.push(node.into_raw()).expect("the slab has no more");
        }
        let mut nodes: Vec<_, SET_ASIDE> = Vec::new();
        critical_section::with(|_| {
            for left in (0..SET_ASIDE).rev() {
                assert_eq!(cache.alloc(NOW).err(), Some(AllocError::NoMemory));
                let mut node = sheaf.alloc().expect("it was set aside");
                node.fill(left as u8 + 1);
                assert!(nodes.push(node).is_ok());
                assert_eq!(sheaf.len(), left);
            }
            assert!(sheaf.alloc().is_none() && sheaf.is_empty());
            assert_eq!(sheaf.refill(NOW), Err(AllocError::NoMemory));
        });
        for (seed, node) in (1..=SET_ASIDE as u8).rev().zip(&nodes) {
            assert!(node.iter().all(|byte| *byte == seed), "node {seed} was overwritten");
        }
        // Back in the section, they are enough to fill it again.
        critical_section::with(|_| {
            nodes.clear();
            sheaf.refill(NOW).unwrap();
            assert_eq!(sheaf.len(), SET_ASIDE);
        });
        hoard.free();
        for node in rest {
            // SAFETY: of this cache, and ours since `into_raw`.
            drop(unsafe { rtmm::CacheBox::from_raw(node, &cache) });
        }
        drop((nodes, sheaf));
        cache.destroy().map_err(|(_, error)| error).unwrap();
    }

    #[test]
    fn a_pool_serves_its_reserve_in_a_critical_section_when_all_memory_is_taken() {
        let pool = Mempool::pages_in(SET_ASIDE, 0, Kernel).unwrap();
        assert_eq!(pool.counts(), (SET_ASIDE, 0));
        let hoard = Hoard::of_everything();
        let mut pages: Vec<NonNull<u8>, SET_ASIDE> = Vec::new();
        for _ in 0..2 {
            critical_section::with(|_| {
                assert_eq!(MM.get_free_page(NOW), Err(AllocError::NoMemory));
                while !pages.is_full() {
                    let page = pool.alloc(NOW).expect("it was set aside");
                    assert!(!pages.contains(&page));
                    // SAFETY: ours, that long.
                    unsafe { page.write_bytes(0x5a, PAGE) };
                    pages.push(page).unwrap();
                }
                assert_eq!(pool.alloc(NOW), Err(AllocError::NoMemory));
                assert_eq!(pool.counts(), (0, SET_ASIDE));
            });
            critical_section::with(|_| {
                while let Some(page) = pages.pop() {
                    pool.free(page.as_ptr()).unwrap();
                }
            });
            // They went back to the reserve, not to whoever else waits for memory.
            assert_eq!(pool.counts(), (SET_ASIDE, 0));
            assert_eq!(MM.get_free_page(NOW), Err(AllocError::NoMemory));
        }
        hoard.free();
        let page = pool.alloc(GFP_KERNEL).unwrap();
        let (pool, error) = pool.destroy().err().unwrap();
        assert_eq!(error, MmError::Busy(1));
        pool.free(page.as_ptr()).unwrap();
        assert!(pool.destroy().is_ok());
    }

    #[test]
    fn pages_for_a_device_are_zeroes_whole_lines_and_at_the_address_they_tell() {
        let size = 3 * PAGE - 5;
        let mut dirty = Bytes::pages(GFP_KERNEL, 2).unwrap();
        dirty.fill(0xa5);
        dirty.free().unwrap();
        MM.drain();
        let before = MM.free_page_count();
        let pages = DmaPages::new_in(size, GFP_KERNEL, Kernel).unwrap();
        MM.drain();
        assert_eq!((pages.len(), before - MM.free_page_count()), (size, 3));
        // SAFETY: ours, that long.
        assert!(unsafe { core::slice::from_raw_parts(pages.as_ptr(), size) }.iter().all(|byte| *byte == 0));
        assert_eq!(pages.phys().0 / PAGE as u64, MM.backend().direct_frame(pages.as_ptr().addr()) as u64);
        let lines = pages.lines();
        assert!(lines.start == pages.phys().0 && lines.end >= lines.start + size as u64);
        assert!(lines.end <= lines.start + 3 * PAGE as u64, "a line of somebody else's");
        // What the device wrote there is what the program finds here.
        let last = MM.pfn_of(pages.as_ptr().wrapping_add(size - 1)).unwrap();
        // SAFETY: the third of the pages, which are ours.
        unsafe { MM.backend().with_frame(last, |page| page.add(7).write(0x77)) };
        // SAFETY: ours, that long.
        assert_eq!(unsafe { pages.as_ptr().add(2 * PAGE + 7).read() }, 0x77);
        drop(pages);
        MM.drain();
        assert_eq!(MM.free_page_count(), before);
    }

    #[test]
    fn pages_for_a_device_lie_below_its_limit_or_are_refused() {
        let pages = DmaPages::new_in(PAGE, GFP_KERNEL | GFP_DMA | Gfp::NOWARN, Kernel);
        match (pages, MM.zoneinfo().zones().iter().find(|zone| zone.kind == ZoneKind::Dma)) {
            (Ok(pages), Some(zone)) => {
                assert!(pages.lines().end <= u64::from(zone.span.1) * PAGE as u64);
            }
            (Err(error), None) => assert_eq!(error, AllocError::NoMemory),
            (pages, zone) => panic!("{:?} with {zone:?}", pages.map(|pages| pages.phys())),
        }
    }
}
