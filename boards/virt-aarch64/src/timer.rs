//! A timer whose interrupt comes after a given number of instructions: the processor's virtual timer.

use crate::interrupt::unmask_timer;
use board_semihosting::set_timer_handler;
use cortex_a::asm::barrier;
use cortex_a::registers::{CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0, Readable, Writeable};

/// Makes `handler` what the timer's interrupt runs; it is given the address of the interrupted instruction.
pub fn start(handler: fn(usize)) {
    set_timer_handler(handler);
    cancel();
    unmask_timer();
}

/// Raises the interrupt once, `instructions` (at least 1) after this call: exact to an instruction under
/// `-icount shift=4,sleep=off`; without it, after 16 ns for each.
pub fn fire_after(instructions: u32) {
    // 62.5 MHz: one tick each.
    CNTV_CVAL_EL0.set(CNTVCT_EL0.get() + u64::from(instructions));
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET + CNTV_CTL_EL0::IMASK::CLEAR);
    barrier::isb(barrier::SY);
}

/// Stops the timer and takes its request back.
pub fn cancel() {
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::CLEAR);
    barrier::isb(barrier::SY);
}
