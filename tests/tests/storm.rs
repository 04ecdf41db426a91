//! A timer's interrupt allocates and frees at random moments, and what else is true of real interrupts.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 60)]
mod tests {
    use core::cell::RefCell;
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use critical_section::Mutex;
    use heapless::Vec;
    use oorandom::Rand32;
    use rtmm::{Bug, Context, GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, Gfp, Platform};
    use rtmm_tests::board::{self, MM, timer};
    use rtmm_tests::{Bytes, Hoard, NothingLost, PAGE};

    /// Interrupts that came.
    static FIRED: AtomicUsize = AtomicUsize::new(0);

    #[init]
    fn init() -> NothingLost {
        // On some boards it maps the timer's registers, which stay.
        timer::start(|_| {
            FIRED.fetch_add(1, Relaxed);
        });
        NothingLost::watch()
    }

    /// Some instructions that nothing removes.
    fn pass(instructions: u32) {
        for round in 0..instructions {
            core::hint::black_box(round);
        }
    }

    /// A workload: some live allocations of all kinds, one taken or given back at a time.
    struct Work<const N: usize> {
        live: Vec<(Bytes, u8), N>,
        random: Rand32,
        flags: Gfp,
    }

    impl<const N: usize> Work<N> {
        fn new(seed: u64, flags: Gfp) -> Self {
            Work { live: Vec::new(), random: Rand32::new(seed), flags }
        }

        fn step(&mut self, kinds: u32) {
            if self.live.is_full() || (!self.live.is_empty() && self.random.rand_range(0..2) == 0) {
                let (block, mark) = self.live.swap_remove(self.random.rand_range(0..self.live.len() as u32) as usize);
                assert!(block.holds(mark), "{block:?} was overwritten");
                block.free().unwrap();
                return;
            }
            let flags = self.flags | Gfp::NOWARN;
            let taken = match self.random.rand_range(0..kinds) {
                0..=4 => Bytes::kmalloc(1 + self.random.rand_range(0..PAGE as u32 / 4) as usize, flags),
                5 => Bytes::kmalloc(1 + self.random.rand_range(0..2 * PAGE as u32) as usize, flags),
                6 | 7 => Bytes::pages(flags, self.random.rand_range(0..3) as usize),
                _ => Bytes::vmalloc(1 + self.random.rand_range(0..4 * PAGE as u32) as usize),
            };
            // A small board may be full just now.
            if let Ok(mut block) = taken {
                let mark = self.random.rand_u32() as u8;
                block.fill(mark);
                self.live.push((block, mark)).unwrap();
            }
        }

        fn end(&mut self) {
            while let Some((block, mark)) = self.live.pop() {
                assert!(block.holds(mark));
                block.free().unwrap();
            }
        }
    }

    /// All kinds but vmalloc, which interrupts may not call.
    const IN_INTERRUPTS: u32 = 8;
    const IN_TASKS: u32 = 10;

    type Storm = Option<(Work<12>, Rand32)>;
    static STORM: Mutex<RefCell<Storm>> = Mutex::new(RefCell::new(None));

    fn thunder(_: usize) {
        FIRED.fetch_add(1, Relaxed);
        // Taken out, since the allocator's own sections may not see the cell borrowed by an outer one for so long.
        let taken = critical_section::with(|section| STORM.borrow(section).take());
        let Some((mut work, mut moments)) = taken else { return };
        for _ in 0..moments.rand_range(1..4) {
            work.step(IN_INTERRUPTS);
        }
        timer::fire_after(1 + moments.rand_range(0..4000));
        critical_section::with(|section| STORM.borrow(section).replace(Some((work, moments))));
    }

    #[test]
    fn a_storm_of_interrupts_loses_nothing() {
        const STEPS: u32 = 20_000;
        critical_section::with(|section| {
            STORM.borrow(section).replace(Some((Work::new(11, GFP_ATOMIC), Rand32::new(12))))
        });
        timer::start(thunder);
        timer::fire_after(100);
        let mut work: Work<48> = Work::new(13, GFP_NOWAIT);
        for step in 0..STEPS {
            work.step(IN_TASKS);
            if step % 1024 == 0 {
                // Not one locked step: it must be spared the storm.
                critical_section::with(|_| MM.check()).unwrap();
            }
        }
        let storm = critical_section::with(|section| STORM.borrow(section).take());
        timer::cancel();
        let (mut theirs, _) = storm.expect("no handler runs now");
        theirs.end();
        work.end();
        let fired = FIRED.load(Relaxed);
        board::say!("STORM {} interrupts during {} steps", fired, STEPS);
        assert!(fired > 500, "{fired} interrupts are no storm");
    }

    /// Sections nest, and only the end of the outermost lets interrupts through; the manager's own calls are no ends.
    #[test]
    fn nested_sections_restore_the_interrupt_state_exactly() {
        let masked = || MM.platform().context() == Context::Atomic;
        let quiet = || {
            pass(2000);
            assert!(masked());
            assert_eq!(FIRED.load(Relaxed), 0, "an interrupt came through");
        };
        assert!(!masked());
        critical_section::with(|_| {
            timer::fire_after(10);
            quiet();
            critical_section::with(|_| quiet());
            quiet();
            // Each of these takes and opens locks, which are critical sections of the same kind.
            let object = Bytes::kmalloc(64, GFP_ATOMIC).unwrap();
            quiet();
            let block = Bytes::pages(GFP_ATOMIC, 1).unwrap();
            quiet();
            object.free().unwrap();
            quiet();
            block.free().unwrap();
            MM.check().unwrap();
            quiet();
        });
        pass(2000);
        assert_eq!(FIRED.load(Relaxed), 1, "the interrupt that waited");
        assert!(!masked());
        // Where they were on they are on again, also after a call that was refused.
        assert!(MM.kfree(core::ptr::without_provenance(usize::MAX / 2)).is_err());
        assert!(Bytes::kmalloc(usize::MAX, GFP_KERNEL).is_err());
        assert!(!masked());
        timer::fire_after(10);
        pass(2000);
        assert_eq!(FIRED.load(Relaxed), 2);
    }

    #[test]
    fn a_flag_that_may_wait_is_reported_once_for_each_call_site(mut lost: NothingLost) {
        fn first_site() {
            MM.kfree(MM.kmalloc(64, GFP_KERNEL).unwrap().as_ptr()).unwrap();
        }
        timer::start(|_| {
            FIRED.fetch_add(1, Relaxed);
            first_site();
            if FIRED.load(Relaxed) > 3 {
                MM.free_page(MM.get_free_page(GFP_KERNEL).unwrap().as_ptr()).unwrap();
            }
        });
        let before = board::bugs();
        for (round, reports) in [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)] {
            timer::fire_after(10);
            while FIRED.load(Relaxed) < round {
                core::hint::spin_loop();
            }
            assert_eq!(board::bugs() - before, reports, "in round {round}");
            assert!(matches!(board::last_bug(), Some(Bug::MayWaitInAtomic { .. })));
        }
        // In a task the same site is fine.
        first_site();
        assert_eq!(board::bugs() - before, 2);
        lost.expect_bugs(2);
    }

    /// A million requests of each way to fail, one after the other: each ends, none in more than twice what the dearest
    /// of the first thousand took, and afterwards all is there again.
    #[test]
    #[timeout(240)]
    fn a_million_failures_end_each_in_bounded_time() {
        const FAILURES: usize = 1_000_000;
        let hoard = Hoard::of_everything();
        let quiet = GFP_NOWAIT | Gfp::NOWARN;
        let fail = |i: usize| match i % 8 {
            0 => MM.kmalloc(PAGE, GFP_ATOMIC | Gfp::NOWARN).is_err(),
            1 => MM.vmalloc(PAGE).is_err(),
            // It may wait, so that it takes back what lies about first.
            2 => MM.get_free_page(GFP_KERNEL | Gfp::NOWARN).is_err(),
            3 => MM.get_free_pages(quiet, 3).is_err(),
            _ => MM.get_free_page(quiet).is_err(),
        };
        let (mut first, mut worst) = (0, 0);
        for i in 0..FAILURES {
            let start = board::instructions();
            assert!(fail(i), "request {i} got something");
            let took = board::instructions().wrapping_sub(start);
            if i < 1000 {
                first = first.max(took);
            } else {
                worst = worst.max(took);
            }
        }
        board::say!("STORM {} failures, the dearest {} instructions, of the first thousand {}", FAILURES, worst, first);
        assert!(first != 0 && worst <= 2 * first, "{worst} instructions, before {first}");
        hoard.free();
        assert!(MM.get_free_page(GFP_KERNEL).is_ok_and(|page| MM.free_page(page.as_ptr()).is_ok()));
    }
}
