//! What the manager needs of the process: the lock, the context, and sleep.

use crate::{bugs, interrupt, task};
use rtmm::{Bug, Context, CriticalSectionLock, Platform};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// True once the manager is up.
static UP: AtomicBool = AtomicBool::new(false);

/// One core: a critical section of the process shuts out every other thread.
#[derive(Debug)]
pub struct BoardPlatform;

impl BoardPlatform {
    /// Ends [`Context::Boot`].
    pub(crate) fn boot_is_over(&self) {
        UP.store(true, Ordering::Relaxed);
    }
}

impl Platform for BoardPlatform {
    type Lock = CriticalSectionLock;
    const CAN_WAIT: bool = true;

    fn context(&self) -> Context {
        if !UP.load(Ordering::Relaxed) {
            Context::Boot
        } else if interrupt::active() {
            Context::Atomic
        } else {
            Context::Task
        }
    }

    fn bug(&self, bug: &Bug) {
        bugs::record_bug(bug);
    }

    fn now(&self) -> Duration {
        task::now()
    }

    fn current(&self) -> usize {
        task::current()
    }

    fn wait(&self, until: Duration) {
        task::wait(until);
    }

    fn wake(&self, task: usize) {
        task::wake(task);
    }
}
