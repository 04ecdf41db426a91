//! What the manager needs of the processor: the lock and the context.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
use cortex_a::registers::{DAIF, Readable};
use critical_section::RawRestoreState;
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
        } else if interrupts_masked() {
            // Taking an interrupt masks them, so a handler is seen by this too.
            Context::Atomic
        } else {
            Context::Task
        }
    }

    fn bug(&self, bug: &Bug) {
        board_semihosting::record_bug(bug);
    }
}

/// True when interrupts are masked on this CPU.
pub(crate) fn interrupts_masked() -> bool {
    DAIF.is_set(DAIF::I)
}

struct MaskInterrupts;
critical_section::set_impl!(MaskInterrupts);

// SAFETY: one core runs, and with its interrupts masked nothing else does; the state restored is the one found.
unsafe impl critical_section::Impl for MaskInterrupts {
    unsafe fn acquire() -> RawRestoreState {
        let masked = interrupts_masked();
        // SAFETY: masking interrupts breaks nothing; without `nomem` it orders the section's accesses after it.
        unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) };
        masked
    }

    unsafe fn release(masked: RawRestoreState) {
        if !masked {
            // SAFETY: they were unmasked when this section began.
            unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
        }
    }
}
