//! Instructions executed, from the cycle counter under `-icount shift=4`.

use core::arch::asm;

/// PMCR_EL0: enable, reset both kinds of counter, count 64 bits (Arm ARM, D13.4.8).
const PMCR_START: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 6;
/// PMCNTENSET_EL0: the cycle counter.
const CYCLE_COUNTER: u64 = 1 << 31;

/// Cycles of an instruction.
const CYCLES: u64 = 16;

/// Starts the counter.
pub(crate) fn start() {
    // SAFETY: the performance monitors are ours alone and touch no memory.
    unsafe {
        asm!(
            "msr pmccfiltr_el0, xzr",
            "msr pmcntenset_el0, {enable}",
            "msr pmcr_el0, {control}",
            "isb",
            enable = in(reg) CYCLE_COUNTER,
            control = in(reg) PMCR_START,
            options(nostack, preserves_flags)
        );
    }
}

/// Instructions executed since start-up, exact under `-icount shift=4,sleep=off`: QEMU then takes 16 cycles of 1 ns for
/// each, which is what a tick of the timer takes. Without `-icount` the counter follows the host's clock.
pub fn instructions() -> u64 {
    let count: u64;
    // SAFETY: reading the counter has no effect; the barrier keeps the reading in its place.
    unsafe { asm!("isb", "mrs {count}, pmccntr_el0", count = out(reg) count, options(nostack, preserves_flags)) };
    count / CYCLES
}
