//! What an interrupt is in a process: a call in another context.

use std::cell::Cell;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Runs `f` as an interrupt handler would run: the platform's context is `Atomic` until it returns.
pub fn in_interrupt(f: fn()) {
    /// Leaves the context also when `f` panics under a test harness that goes on.
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }

    DEPTH.set(DEPTH.get() + 1);
    let _leave = Leave;
    f();
}

/// True inside [`in_interrupt`], on this thread.
pub(crate) fn active() -> bool {
    DEPTH.get() > 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_context_is_atomic_inside_and_only_inside() {
        assert!(!super::active());
        super::in_interrupt(|| {
            super::in_interrupt(|| ());
            assert!(super::active());
        });
        assert!(!super::active());
    }
}
