//! What the manager needs of the processor: the lock and the context.

use core::sync::atomic::{AtomicBool, Ordering};
use cortex_m::peripheral::SCB;
use cortex_m::peripheral::scb::VectActive;
use cortex_m::register::primask;
use rtmm::{Bug, Context, CriticalSectionLock, Platform};

/// True once the manager is up.
static UP: AtomicBool = AtomicBool::new(false);

/// A single core, its critical section masks interrupts.
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
        // The `cortex-m` crate calls exceptions inactive when PRIMASK masks them.
        } else if SCB::vect_active() != VectActive::ThreadMode || primask::read().is_inactive() {
            Context::Atomic
        } else {
            Context::Task
        }
    }

    fn bug(&self, bug: &Bug) {
        board_semihosting::record_bug(bug);
    }
}
