//! Threads as tasks that can sleep.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// The threads that ever asked for their number, by it; `None` for those that ended. Numbers are given again.
static TASKS: Mutex<Vec<Option<Thread>>> = Mutex::new(Vec::new());

/// A thread's number, which is free again when the thread ends.
struct Number(usize);

impl Drop for Number {
    fn drop(&mut self) {
        tasks(|tasks| tasks[self.0] = None);
    }
}

thread_local! {
    static NUMBER: Number = tasks(|tasks| {
        let thread = Some(thread::current());
        match tasks.iter().position(Option::is_none) {
            Some(free) => {
                tasks[free] = thread;
                Number(free)
            }
            None => {
                tasks.push(thread);
                Number(tasks.len() - 1)
            }
        }
    });
}

fn tasks<R>(change: impl FnOnce(&mut Vec<Option<Thread>>) -> R) -> R {
    change(&mut TASKS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The time since this was first asked.
pub(crate) fn now() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// The calling thread's number.
pub(crate) fn current() -> usize {
    NUMBER.with(|number| number.0)
}

/// Sleeps until [`wake`] or `until`; now and then returns early.
pub(crate) fn wait(until: Duration) {
    thread::park_timeout(until.saturating_sub(now()));
}

/// Wakes a thread. One that got its number from another that ended is woken for nothing, which it must bear.
pub(crate) fn wake(task: usize) {
    let thread = tasks(|tasks| tasks.get(task).cloned().flatten());
    if let Some(thread) = thread {
        thread.unpark();
    }
}
