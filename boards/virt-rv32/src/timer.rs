//! A timer whose interrupt comes after a given number of instructions: the CLINT's.

use crate::processor::COUNTS;
use board_semihosting::set_timer_handler;
use riscv::register::mie;

/// The time and what it is compared with (SiFive CLINT; hw/riscv/virt.c), as halves, the lower one first.
const MTIMECMP: [*mut u32; 2] = [0x0200_4000 as *mut u32, 0x0200_4004 as *mut u32];
const MTIME: [*mut u32; 2] = [0x0200_bff8 as *mut u32, 0x0200_bffc as *mut u32];

/// Nanoseconds of a tick: 10 MHz.
const TICK: u64 = 100;

/// Makes `handler` what the timer's interrupt runs; it is given the address of the interrupted instruction.
pub fn start(handler: fn(usize)) {
    set_timer_handler(handler);
    cancel();
    // SAFETY: `MachineTimer` takes the interrupt.
    unsafe { mie::set_mtimer() };
}

/// Raises the interrupt once, `instructions` (at least 1) after this call's last store: exact to an instruction under
/// `-icount shift=10,sleep=off`; without it, after 1024 ns for each.
pub fn fire_after(instructions: u32) {
    // QEMU counts the ticks from the one that `now` is in, so the moment is early by up to a tick; the middle of an
    // instruction is ten ticks wide.
    let then = now() + (u64::from(instructions) * COUNTS + COUNTS / 2) / TICK;
    // SAFETY: these are the timer's registers, and nothing else of the program uses it. The first store keeps the
    // halves from meeting at a time that has passed.
    unsafe {
        MTIMECMP[1].write_volatile(u32::MAX);
        MTIMECMP[0].write_volatile(then as u32);
        MTIMECMP[1].write_volatile((then >> 32) as u32);
    }
}

/// Stops the timer and takes its request back.
pub fn cancel() {
    // SAFETY: as above.
    unsafe {
        MTIMECMP[1].write_volatile(u32::MAX);
        MTIMECMP[0].write_volatile(u32::MAX);
    }
}

fn now() -> u64 {
    loop {
        // SAFETY: reading the time has no effect.
        let (high, low, again) =
            unsafe { (MTIME[1].read_volatile(), MTIME[0].read_volatile(), MTIME[1].read_volatile()) };
        if high == again {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}
