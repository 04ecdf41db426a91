//! A timer whose interrupt comes after a given number of instructions: CMSDK timer 1.

use board_cortex_m::unmask_timer;
use board_semihosting::set_timer_handler;

/// Registers of CMSDK timer 1 (Arm DDI 0479, APB timer; AN385, memory map).
const CTRL: *mut u32 = 0x4000_1000 as *mut u32;
const VALUE: *mut u32 = 0x4000_1004 as *mut u32;
const RELOAD: *mut u32 = 0x4000_1008 as *mut u32;
const INTCLEAR: *mut u32 = 0x4000_100c as *mut u32;
const ENABLE: u32 = 1;
const INTERRUPT: u32 = 1 << 3;
/// Its interrupt line (AN385, table of interrupts).
const LINE: u16 = 9;

/// Makes `handler` what the timer's interrupt runs; it is given the address of the interrupted instruction.
pub fn start(handler: fn(usize)) {
    set_timer_handler(handler);
    cancel();
    unmask_timer(board_cortex_m::Timer { line: LINE, acknowledge: cancel });
}

/// Raises the interrupt once, `instructions` (at least 1) after this call's last store: exact to an instruction under
/// `-icount shift=6,sleep=off`; without it, after 64 ns for each.
pub fn fire_after(instructions: u32) {
    // 25 MHz: 1.6 ticks each, rounded down, so that every instruction is met by some number.
    let ticks = (u64::from(instructions) * 8 / 5).min(u64::from(u32::MAX)) as u32;
    cancel();
    // SAFETY: these are the timer's registers, and nothing else of the program uses the timer.
    unsafe {
        RELOAD.write_volatile(ticks);
        VALUE.write_volatile(ticks);
        CTRL.write_volatile(ENABLE | INTERRUPT);
    }
}

/// Stops the timer; an interrupt that is pending already still comes.
pub fn cancel() {
    // SAFETY: as above.
    unsafe {
        CTRL.write_volatile(0);
        INTCLEAR.write_volatile(1);
    }
}
