//! The processor: when it cannot wait, and its critical section.

use board_semihosting::Processor;
use core::arch::asm;
use cortex_a::registers::{DAIF, Readable};
use critical_section::RawRestoreState;

/// A Cortex-A core in EL1.
#[derive(Debug)]
pub struct Core;

impl Processor for Core {
    #[inline]
    fn is_atomic() -> bool {
        // Taking an interrupt masks them, so a handler is seen by this too.
        interrupts_masked()
    }
}

/// True when interrupts are masked on this CPU.
#[inline]
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
