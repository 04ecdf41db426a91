//! Instructions executed, from SysTick under `-icount shift=7`.
//!
//! SysTick follows the processor's clock, 12.5 MHz after a reset, and an instruction takes 128 ns under `shift=7`, so
//! it counts 1.6 ticks for each. It has 24 bits; an interrupt at each turn keeps count of the rest.

use core::cell::Cell;
use cortex_m::peripheral::SYST;
use critical_section::Mutex;

/// What one turn of the counter takes: all its 24 bits.
const TURN: u32 = 1 << 24;
/// SYST_CSR: count the processor's clock, interrupt at zero (Armv7-M ARM, B3.3.3).
const CSR_START: u32 = 1 | 1 << 1 | 1 << 2;

/// The last value seen, and the ticks up to it.
static SEEN: Mutex<Cell<(u32, u64)>> = Mutex::new(Cell::new((TURN - 1, 1)));

/// Starts the timer.
pub(crate) fn start() {
    // SAFETY: nothing else of the program uses the timer, and the handler below takes its interrupt.
    unsafe {
        let timer = &*SYST::PTR;
        timer.rvr.write(TURN - 1);
        timer.cvr.write(0);
        timer.csr.write(CSR_START);
    }
    // It leaves the zero it starts with at its next tick; under QEMU that is when another thread comes round to it.
    while SYST::get_current() == 0 {}
}

/// Instructions executed since start-up, to within one, under `-icount shift=7,sleep=off`. Without it the timer follows
/// the host's clock.
pub fn instructions() -> u64 {
    critical_section::with(|section| {
        // Counts down; read more often than once a turn, which the interrupt sees to, nothing is lost.
        let value = SYST::get_current();
        let seen = SEEN.borrow(section);
        let (last, ticks) = seen.get();
        let ticks = ticks + u64::from(last.wrapping_sub(value) % TURN);
        seen.set((value, ticks));
        // 1.6 ticks each.
        ticks * 5 / 8
    })
}

/// At each turn; a critical section makes it late, but by far less than another turn.
#[cortex_m_rt::exception]
fn SysTick() {
    instructions();
}
