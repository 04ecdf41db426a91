//! The board boots, and what a suite needs of it works.
#![no_std]
#![no_main]

rtmm_tests::setup!();

#[embedded_test::tests(default_timeout = 10)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};
    use rtmm::{Context, Platform};
    use rtmm_tests::board::{self, MM};

    #[test]
    fn a_line_reaches_the_console() {
        board::say!("{} says {}", board::NAME, 42);
    }

    #[test]
    fn the_command_line_names_the_test() {
        let first = board::args().split_ascii_whitespace().next();
        assert!(matches!(first, Some("run_addr" | "run")), "command line is `{}`", board::args());
    }

    #[test]
    fn no_file_is_given_to_a_test() {
        assert!(board::file().is_none());
    }

    #[test]
    fn the_instruction_counter_only_grows() {
        if board::NAME == "host" {
            assert_eq!(board::instructions(), 0, "a process has no counter that repeats");
            return;
        }
        let mut last = board::instructions();
        let first = last;
        for round in 0..1000u32 {
            core::hint::black_box(round);
            let now = board::instructions();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        assert!(last > first);
    }

    #[test]
    fn a_software_interrupt_runs_before_the_next_statement() {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        for round in 1..=3 {
            board::in_interrupt(|| {
                RUNS.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(RUNS.load(Ordering::Relaxed), round);
        }
    }

    #[test]
    fn an_interrupt_is_atomic_context_and_a_task_is_not() {
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        assert_eq!(MM.platform().context(), Context::Task);
        board::in_interrupt(|| {
            SEEN.store(1 + usize::from(MM.platform().context() == Context::Atomic), Ordering::Relaxed);
        });
        assert_eq!(SEEN.load(Ordering::Relaxed), 2);
        assert_eq!(MM.platform().context(), Context::Task);
    }

    #[test]
    #[should_panic]
    fn a_panic_is_a_failure() {
        panic!("as it should");
    }

    #[test]
    fn nothing_was_reported_during_boot() {
        assert_eq!(board::bugs(), 0, "{:?}", board::last_bug());
    }
}
