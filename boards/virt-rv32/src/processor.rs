//! The processor: its instruction counter, and when it cannot wait.

use board_semihosting::Processor;
use core::sync::atomic::{AtomicBool, Ordering};
use riscv::register::{minstret, mstatus};

/// A RISC-V hart in machine mode.
#[derive(Debug)]
pub struct Hart;

/// Set while an interrupt handler runs. Taking an interrupt masks further ones, but a handler may unmask them.
pub(crate) static IN_HANDLER: AtomicBool = AtomicBool::new(false);

impl Processor for Hart {
    #[inline]
    fn is_atomic() -> bool {
        IN_HANDLER.load(Ordering::Relaxed) || interrupts_masked()
    }
}

/// True when interrupts are masked.
#[inline]
pub(crate) fn interrupts_masked() -> bool {
    !mstatus::read().mie()
}

/// What QEMU counts for an instruction under `-icount shift=10`: the nanoseconds it takes.
pub(crate) const COUNTS: u64 = 1024;

/// Instructions executed since start-up, exact under `-icount shift=10,sleep=off`. Without it the counter follows the
/// host's clock.
pub fn instructions() -> u64 {
    minstret::read64() / COUNTS
}
