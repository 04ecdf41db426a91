//! What zones keep, from whom, and what is told of it.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};
    use rtmm::{
        AllocError, Backend, Bug, Context, Depth, GFP_ATOMIC, GFP_DMA, GFP_KERNEL, GFP_NOWAIT, Gfp, MmError, Platform,
        RawLock, ShrinkRequest, Shrinker, ZoneKind,
    };
    use rtmm_tests::board::{self, MM};
    use rtmm_tests::{Bytes, Hoard, MAX_ORDER, NothingLost, PAGE, fragment};

    const QUIET: Gfp = GFP_NOWAIT.union(Gfp::NOWARN);

    #[init]
    fn init() -> NothingLost {
        MM.drain();
        NothingLost::watch()
    }

    #[test]
    fn ordinary_requests_stop_at_the_minimum_and_interrupts_do_not() {
        let hoard = Hoard::of(QUIET);
        // What has no kernel address was not asked for.
        for zone in MM.zoneinfo().zones().iter().filter(|zone| zone.kind != ZoneKind::HighMem) {
            assert!(zone.free <= zone.marks.limit(ZoneKind::Normal, Depth::Min), "{zone:?}");
            assert!(zone.free >= zone.marks.min.min(zone.managed), "{zone:?}");
        }
        assert_eq!(MM.get_free_page(QUIET), Err(AllocError::NoMemory));
        assert_eq!(MM.get_free_page(GFP_KERNEL | Gfp::NOWARN | Gfp::NORETRY), Err(AllocError::NoMemory));
        let spare = MM.zoneinfo().spare(GFP_ATOMIC);
        static GOT: AtomicUsize = AtomicUsize::new(0);
        board::in_interrupt(|| {
            let hoard = Hoard::of(GFP_ATOMIC | Gfp::NOWARN);
            GOT.store(hoard.count(), Ordering::Relaxed);
            assert_eq!(MM.zoneinfo().spare(GFP_ATOMIC), 0);
            hoard.free();
        });
        assert_eq!(GOT.load(Ordering::Relaxed), spare);
        hoard.free();
    }

    #[test]
    fn a_small_board_keeps_at_most_one_frame_in_thirty_two() {
        for zone in MM.zoneinfo().zones() {
            assert!(zone.marks.min <= zone.managed / 32, "{zone:?}");
            assert!(zone.marks.min <= zone.marks.low && zone.marks.low <= zone.marks.high, "{zone:?}");
        }
    }

    #[test]
    fn lower_zones_keep_a_reserve_from_those_with_a_choice() {
        let hoard = Hoard::of(GFP_ATOMIC | Gfp::NOWARN);
        for zone in MM.zoneinfo().zones() {
            let kept = zone.marks.reserve[ZoneKind::Normal as usize];
            assert!(zone.free >= kept || zone.managed < kept, "{zone:?}");
            if zone.kind == ZoneKind::Dma && zone.managed > kept + zone.marks.min && kept != 0 {
                let page = MM.get_free_page(GFP_ATOMIC | GFP_DMA).unwrap();
                MM.free_page(page.as_ptr()).unwrap();
            }
        }
        hoard.free();
    }

    #[test]
    fn a_request_takes_back_what_caches_keep() {
        let object = Bytes::kmalloc(64, GFP_KERNEL).unwrap();
        let hoard = Hoard::of(QUIET);
        object.free().unwrap();
        // Nobody drained: the slab and its descriptor's page are found all the same.
        let page = MM.get_free_page(QUIET).unwrap();
        MM.free_page(page.as_ptr()).unwrap();
        hoard.free();
    }

    /// Gives back a page each time, as long as it has some.
    struct Reluctant;

    static KEPT: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

    impl Shrinker for Reluctant {
        fn count(&self, _: &ShrinkRequest) -> usize {
            KEPT.iter().filter(|page| page.load(Ordering::Relaxed) != 0).count()
        }

        fn scan(&self, request: &ShrinkRequest) -> usize {
            assert!(request.scan != 0);
            let Some(page) = KEPT.iter().find(|page| page.load(Ordering::Relaxed) != 0) else { return 0 };
            let at = page.swap(0, Ordering::Relaxed);
            MM.free_page(core::ptr::without_provenance(at)).unwrap();
            1
        }
    }

    #[test]
    fn a_shrinker_is_asked_and_what_it_gives_is_used() {
        static RELUCTANT: Reluctant = Reluctant;
        for page in &KEPT {
            page.store(MM.get_free_page(GFP_KERNEL).unwrap().as_ptr().expose_provenance(), Ordering::Relaxed);
        }
        let hoard = Hoard::of(QUIET);
        let id = MM.register_shrinker(&RELUCTANT).unwrap();
        let pages = KEPT.each_ref().map(|_| MM.get_free_page(GFP_KERNEL).unwrap());
        assert!(MM.get_free_page(GFP_KERNEL | Gfp::NORETRY | Gfp::NOWARN).is_err());
        MM.unregister_shrinker(id).unwrap();
        assert_eq!(MM.unregister_shrinker(id), Err(MmError::Inval));
        for page in pages {
            MM.free_page(page.as_ptr()).unwrap();
        }
        hoard.free();
    }

    #[test]
    fn a_flag_that_may_wait_is_reported_once_for_each_place(mut lost: NothingLost) {
        lost.expect_bugs(2);
        let before = board::bugs();
        board::in_interrupt(|| {
            for _ in 0..3 {
                let page = MM.get_free_page(GFP_KERNEL).unwrap();
                MM.free_page(page.as_ptr()).unwrap();
            }
        });
        assert_eq!(board::bugs(), before + 1, "memory was at hand, and it is told all the same");
        assert!(matches!(board::last_bug(), Some(Bug::MayWaitInAtomic { .. })));
        let hoard = Hoard::of(QUIET);
        board::in_interrupt(|| {
            assert!(MM.kmalloc(3 * PAGE, GFP_KERNEL | Gfp::NOWARN).is_err());
        });
        assert_eq!(board::bugs(), before + 2);
        hoard.free();
    }

    /// Whether the board's lock says that interrupts were masked already; `None` where it does not tell.
    fn told_by_the_lock<P: Platform>(_: &P) -> Option<bool> {
        let token = P::Lock::mask();
        let told = P::Lock::was_masked(token);
        // SAFETY: the token of the last `mask`, which no other section came after.
        unsafe { P::Lock::unmask(token) };
        told
    }

    /// A task that masked interrupts may wait as little as an interrupt; where memory is at hand it is the lock that
    /// notices, on boards whose lock can.
    #[test]
    fn in_a_critical_section_a_flag_that_may_wait_is_served_and_reported_once_for_each_place(mut lost: NothingLost) {
        type Site = fn();
        const SITES: [Site; 3] = [
            || MM.kfree(MM.kmalloc(64, GFP_KERNEL).unwrap().as_ptr()).unwrap(),
            || MM.free_page(MM.get_free_page(GFP_KERNEL).unwrap().as_ptr()).unwrap(),
            || MM.free_pages(MM.get_free_pages(GFP_KERNEL, 1).unwrap().as_ptr(), 1).unwrap(),
        ];
        let tells = cfg!(any(feature = "board-qemu-x86_64", feature = "board-qemu-i586"));
        // In a process a section is a lock between threads, and masks nothing.
        let masks = cfg!(not(feature = "board-host"));
        // Memory is at hand from here on, and in a task nobody minds.
        let kept = MM.kmalloc(64, GFP_KERNEL).unwrap();
        SITES.iter().for_each(|site| site());
        let before = board::bugs();
        assert_eq!(told_by_the_lock(MM.platform()), tells.then_some(false));
        critical_section::with(|_| {
            assert_eq!(MM.platform().context() == Context::Atomic, masks);
            assert_eq!(told_by_the_lock(MM.platform()), tells.then_some(true));
            for (told, site) in (1..).zip(SITES) {
                (0..3).for_each(|_| site());
                assert_eq!(board::bugs() - before, if masks { told } else { 0 }, "site {told}");
            }
        });
        if masks {
            assert!(matches!(board::last_bug(), Some(Bug::MayWaitInAtomic { .. })));
            lost.expect_bugs(SITES.len());
        }
        assert_eq!(MM.platform().context(), Context::Task);
        SITES.iter().for_each(|site| site());
        MM.kfree(kept.as_ptr()).unwrap();
    }

    #[test]
    fn what_would_fit_is_told_without_taking_it() {
        for flags in [GFP_KERNEL, GFP_ATOMIC, GFP_KERNEL | GFP_DMA] {
            match MM.largest_block(flags) {
                Some(order) => {
                    let block = MM.get_free_pages(flags, order).unwrap();
                    MM.free_pages(block.as_ptr(), order).unwrap();
                    assert!(order == MAX_ORDER || MM.get_free_pages(QUIET | flags, order + 1).is_err());
                }
                None => assert!(MM.get_free_page(QUIET | flags).is_err()),
            }
        }
        assert_eq!(MM.unusable_index(0), 0);
        let hoard = fragment();
        assert_eq!(MM.largest_block(GFP_ATOMIC), Some(0));
        assert!(MM.unusable_index(MAX_ORDER) > 900, "{}", MM.unusable_index(MAX_ORDER));
        assert_eq!(MM.unusable_index(0), 0);
        hoard.free();
        let _ = MM.backend().lowmem_end();
    }
}
