//! The interrupt lines: one that software raises, and the board's timer.

use board_semihosting::{run_in_interrupt, run_job, timer_fired, write_fault};
use core::cell::Cell;
use cortex_m::asm;
use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use cortex_m_rt::ExceptionFrame;
use critical_section::Mutex;

/// A line that no device raises: AN385 leaves it free, and on the LM3S6965 it is port G's, whose pins are left alone.
const SOFTWARE: Line = Line(31);

#[derive(Clone, Copy)]
struct Line(u16);

// SAFETY: both users, `SOFTWARE` and a board's timer, name lines of their chip, always the same ones.
unsafe impl InterruptNumber for Line {
    fn number(self) -> u16 {
        self.0
    }
}

/// The timer of a board, as far as its interrupt goes.
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    /// Its line.
    pub line: u16,
    /// Makes the device take its request back.
    pub acknowledge: fn(),
}

static TIMER: Mutex<Cell<Option<Timer>>> = Mutex::new(Cell::new(None));

/// Lets the timer's interrupt through; its handler then runs what [`board_semihosting::set_timer_handler`] was given.
pub fn unmask_timer(timer: Timer) {
    critical_section::with(|section| TIMER.borrow(section).set(Some(timer)));
    // SAFETY: the handler below knows the line now, and no critical section relies on it being masked.
    unsafe { NVIC::unmask(Line(timer.line)) };
}

/// Runs `f` in an interrupt handler and returns after it.
///
/// # Panics
/// When interrupts are masked, since the handler would then run at some later time.
pub fn in_interrupt(f: fn()) {
    assert!(cortex_m::register::primask::read().is_active(), "interrupts are masked");
    run_in_interrupt(f, || {
        // SAFETY: the line has a handler below, and no critical section relies on it being masked.
        unsafe { NVIC::unmask(SOFTWARE) };
        NVIC::pend(SOFTWARE);
        // The pended interrupt is taken before the instruction after these.
        asm::dsb();
        asm::isb();
    });
}

/// Every interrupt line. The processor left a frame on the stack it came from, the main one or a task's; its address
/// goes to [`handle`], which returns as the handler.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn DefaultHandler() {
    core::arch::naked_asm!(
        // Bit 2 of what the link register holds then says which (Armv7-M ARM, table B1-8).
        "tst lr, #4",
        "ite eq",
        "mrseq r0, msp",
        "mrsne r0, psp",
        "b {handle}",
        handle = sym handle
    )
}

extern "C" fn handle(frame: &ExceptionFrame) {
    /// The number of the first line among the exceptions (Armv7-M ARM, B1.5.2).
    const FIRST_LINE: u32 = 16;
    let ipsr: u32;
    // SAFETY: reading the register has no effect.
    unsafe { core::arch::asm!("mrs {}, ipsr", out(reg) ipsr, options(nomem, nostack, preserves_flags)) };
    let Some(line) = ipsr.checked_sub(FIRST_LINE) else { write_fault(format_args!("unexpected exception {ipsr}")) };
    let timer = critical_section::with(|section| TIMER.borrow(section).get());
    match timer.filter(|timer| u32::from(timer.line) == line) {
        Some(timer) => {
            (timer.acknowledge)();
            timer_fired(frame.pc() as usize);
        }
        None if line == u32::from(SOFTWARE.0) => run_job(),
        None => write_fault(format_args!("unexpected interrupt {line}")),
    }
}
