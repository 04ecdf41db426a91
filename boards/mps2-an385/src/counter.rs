//! Instructions executed, from CMSDK timer 0 under `-icount shift=6`.
//!
//! The Cortex-M3's cycle counter is not modelled by QEMU and SysTick has only 24 bits. The timer runs at 25 MHz and
//! an instruction takes 64 ns under `shift=6`, so it counts 1.6 ticks for each.

use core::cell::Cell;
use critical_section::Mutex;

/// Registers of CMSDK timer 0 (Arm DDI 0479, APB timer).
const CTRL: *mut u32 = 0x4000_0000 as *mut u32;
const VALUE: *mut u32 = 0x4000_0004 as *mut u32;
const RELOAD: *mut u32 = 0x4000_0008 as *mut u32;
const ENABLE: u32 = 1;

/// The last value seen, and the ticks up to it. The timer counts down and wraps after 171 s; reading it more often
/// than that loses nothing.
///
/// `n` instructions after its start QEMU's timer has moved by `1.6 * n`, rounded up, less one. With that one given
/// back, rounding down finds `n` from it exactly.
static SEEN: Mutex<Cell<(u32, u64)>> = Mutex::new(Cell::new((u32::MAX, 1)));

/// Starts the timer.
pub(crate) fn start() {
    // SAFETY: these are the timer's registers, and nothing else of the program uses the timer.
    unsafe {
        RELOAD.write_volatile(u32::MAX);
        VALUE.write_volatile(u32::MAX);
        CTRL.write_volatile(ENABLE);
    }
}

/// Instructions executed since start-up, exact under `-icount shift=6,sleep=off`. Without it the timer follows the
/// host's clock.
pub fn instructions() -> u64 {
    critical_section::with(|section| {
        // SAFETY: reading the register has no effect.
        let value = unsafe { VALUE.read_volatile() };
        let seen = SEEN.borrow(section);
        let (last, ticks) = seen.get();
        let ticks = ticks + u64::from(last.wrapping_sub(value));
        seen.set((value, ticks));
        // 1.6 ticks each.
        ticks * 5 / 8
    })
}
