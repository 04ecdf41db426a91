//! A software interrupt that runs a function of the caller.

use core::cell::Cell;
use cortex_m::asm;
use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use critical_section::Mutex;

/// A line that no device of the board drives (AN385, table of interrupts).
const LINE: u16 = 31;

#[derive(Clone, Copy)]
struct Software;

// SAFETY: the number is below the Cortex-M3's 240 lines and always the same.
unsafe impl InterruptNumber for Software {
    fn number(self) -> u16 {
        LINE
    }
}

type Job = fn();
static JOB: Mutex<Cell<Option<Job>>> = Mutex::new(Cell::new(None));

/// Runs `f` in an interrupt handler and returns after it.
///
/// # Panics
/// When interrupts are masked, since the handler would then run at some later time.
pub fn in_interrupt(f: fn()) {
    assert!(cortex_m::register::primask::read().is_active(), "interrupts are masked");
    critical_section::with(|section| JOB.borrow(section).set(Some(f)));
    // SAFETY: the line has a handler below, and no critical section relies on it being masked.
    unsafe { NVIC::unmask(Software) };
    NVIC::pend(Software);
    // The pended interrupt is taken before the instruction after these.
    asm::dsb();
    asm::isb();
    let left = critical_section::with(|section| JOB.borrow(section).take());
    assert!(left.is_none(), "the software interrupt was not taken");
}

// SAFETY: it touches nothing but the job, under its lock.
#[cortex_m_rt::exception]
unsafe fn DefaultHandler(line: i16) {
    if line != LINE as i16 {
        board_semihosting::write_fault(format_args!("unexpected interrupt {line}"));
    }
    if let Some(job) = critical_section::with(|section| JOB.borrow(section).take()) {
        job();
    }
}
