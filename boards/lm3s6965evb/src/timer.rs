//! A timer whose interrupt comes after a given number of instructions: general-purpose timer 0.

use board_cortex_m::unmask_timer;
use board_semihosting::set_timer_handler;

/// Registers of general-purpose timer 0 (LM3S6965 data sheet, chapter 10).
const CFG: *mut u32 = 0x4003_0000 as *mut u32;
const TAMR: *mut u32 = 0x4003_0004 as *mut u32;
const CTL: *mut u32 = 0x4003_000c as *mut u32;
const IMR: *mut u32 = 0x4003_0018 as *mut u32;
const ICR: *mut u32 = 0x4003_0024 as *mut u32;
const TAILR: *mut u32 = 0x4003_0028 as *mut u32;
/// RCGC1, run mode clock gating, and timer 0's bit in it (chapter 5).
const RCGC1: *mut u32 = 0x400f_e104 as *mut u32;
const CLOCK_TIMER0: u32 = 1 << 16;
const ONE_SHOT: u32 = 1;
const ENABLE: u32 = 1;
const TIMED_OUT: u32 = 1;
/// Its interrupt line (table 2-9).
const LINE: u16 = 19;

/// Makes `handler` what the timer's interrupt runs; it is given the address of the interrupted instruction.
pub fn start(handler: fn(usize)) {
    set_timer_handler(handler);
    // SAFETY: these are the timer's registers, and nothing else of the program uses the timer. Its clock runs some
    // cycles after the gate was opened; reading the gate takes that long.
    unsafe {
        RCGC1.write_volatile(RCGC1.read_volatile() | CLOCK_TIMER0);
        RCGC1.read_volatile();
        CTL.write_volatile(0);
        // One timer of 32 bits.
        CFG.write_volatile(0);
        TAMR.write_volatile(ONE_SHOT);
        IMR.write_volatile(TIMED_OUT);
    }
    unmask_timer(board_cortex_m::Timer { line: LINE, acknowledge: cancel });
}

/// Raises the interrupt once, `instructions` (at least 1) after this call's last store: exact to an instruction under
/// `-icount shift=7,sleep=off`; without it, after 128 ns for each.
pub fn fire_after(instructions: u32) {
    cancel();
    // 12.5 MHz: 1.6 ticks each, rounded down, so that every instruction is met by some number.
    let ticks = (u64::from(instructions) * 8 / 5).min(u64::from(u32::MAX)) as u32;
    // SAFETY: as above.
    unsafe {
        TAILR.write_volatile(ticks);
        CTL.write_volatile(ENABLE);
    }
}

/// Stops the timer; an interrupt that is pending already still comes.
pub fn cancel() {
    // SAFETY: as above.
    unsafe {
        CTL.write_volatile(0);
        ICR.write_volatile(TIMED_OUT);
    }
}
