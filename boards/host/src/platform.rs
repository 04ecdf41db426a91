//! What the manager needs of the process: the lock and the context.

use crate::{bugs, interrupt};
use rtmm::{Bug, Context, CriticalSectionLock, Platform};
use std::sync::atomic::{AtomicBool, Ordering};

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
}
