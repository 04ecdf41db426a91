//! What a test may return.

/// Says whether a test succeeded: `()` always, a `Result` when it is `Ok`.
pub trait TestOutcome {
    /// True for success.
    fn is_success(&self) -> bool;
}

impl TestOutcome for () {
    fn is_success(&self) -> bool {
        true
    }
}

impl<T, E> TestOutcome for Result<T, E> {
    fn is_success(&self) -> bool {
        self.is_ok()
    }
}
