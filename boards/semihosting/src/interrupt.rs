//! What interrupts do: the function of a software interrupt, and the one of the board's timer.

use core::cell::Cell;
use critical_section::Mutex;

type Job = fn();
type OnTimer = fn(usize);

/// The function the next software interrupt runs.
static JOB: Mutex<Cell<Option<Job>>> = Mutex::new(Cell::new(None));
/// The function the timer runs.
static ON_TIMER: Mutex<Cell<Option<OnTimer>>> = Mutex::new(Cell::new(None));

/// Runs `job` in an interrupt handler that `raise` brings about, and returns after it. The handler calls [`run_job`].
///
/// # Panics
/// When the interrupt is not taken: interrupts are masked.
pub fn run_in_interrupt(job: fn(), raise: impl FnOnce()) {
    /// The controller's signal takes its time; on silicon a few cycles, under QEMU none.
    const PATIENCE: u32 = 100_000;
    critical_section::with(|section| JOB.borrow(section).set(Some(job)));
    raise();
    let taken = (0..PATIENCE).any(|_| critical_section::with(|section| JOB.borrow(section).get().is_none()));
    assert!(taken, "the software interrupt was not taken");
}

/// In the handler of the software interrupt: runs what [`run_in_interrupt`] left.
pub fn run_job() {
    if let Some(job) = critical_section::with(|section| JOB.borrow(section).take()) {
        job();
    }
}

/// Makes `handler` what the timer's interrupt runs.
pub fn set_timer_handler(handler: fn(usize)) {
    critical_section::with(|section| ON_TIMER.borrow(section).set(Some(handler)));
}

/// In the handler of the timer's interrupt, once it is acknowledged: runs the function that was set. `pc` is the
/// address of the instruction before which the interrupt was taken.
pub fn timer_fired(pc: usize) {
    if let Some(handler) = critical_section::with(|section| ON_TIMER.borrow(section).get()) {
        handler(pc);
    }
}
