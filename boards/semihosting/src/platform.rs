//! What the manager needs of a single processor: the lock, the context, an ear for reports.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, Ordering};
use rtmm::{Bug, Context, CriticalSectionLock, Platform};

/// A processor, as far as the context depends on it.
pub trait Processor: Send + Sync + 'static {
    /// True in an interrupt handler, and while interrupts are masked.
    fn is_atomic() -> bool;
}

/// The platform of a board with a single core, whose critical sections mask interrupts.
#[derive(Debug)]
pub struct SingleCore<C> {
    /// The manager is up.
    up: AtomicBool,
    processor: PhantomData<fn() -> C>,
}

impl<C: Processor> SingleCore<C> {
    /// A board that is starting up.
    #[allow(clippy::new_without_default, reason = "a board makes it once, in a static")]
    pub const fn new() -> Self {
        SingleCore { up: AtomicBool::new(false), processor: PhantomData }
    }

    /// Ends [`Context::Boot`].
    pub fn boot_is_over(&self) {
        self.up.store(true, Ordering::Relaxed);
    }
}

impl<C: Processor> Platform for SingleCore<C> {
    type Lock = CriticalSectionLock;

    #[inline]
    fn context(&self) -> Context {
        if !self.up.load(Ordering::Relaxed) {
            Context::Boot
        } else if C::is_atomic() {
            Context::Atomic
        } else {
            Context::Task
        }
    }

    fn bug(&self, bug: &Bug) {
        crate::record_bug(bug);
    }
}
