//! Interrupts of the core: the software interrupt and the timer, both from the CLINT.

use crate::processor::{IN_HANDLER, interrupts_masked};
use crate::timer;
use board_semihosting::{run_in_interrupt, run_job, timer_fired, write_fault};
use core::sync::atomic::Ordering;
use riscv::register::{mcause, mepc, mie};

/// The software interrupt's request (SiFive CLINT; hw/riscv/virt.c).
const MSIP: *mut u32 = 0x0200_0000 as *mut u32;

/// Unmasks interrupts.
pub(crate) fn start() {
    // SAFETY: riscv-rt has set the trap vector, and the handlers below take what comes.
    unsafe {
        mie::set_msoft();
        riscv::interrupt::enable();
    }
}

/// Runs `f` in an interrupt handler and returns after it.
///
/// # Panics
/// When interrupts are masked, since the handler would then run at some later time.
pub fn in_interrupt(f: fn()) {
    assert!(!interrupts_masked(), "interrupts are masked");
    // SAFETY: the register only requests the interrupt that `MachineSoft` takes.
    run_in_interrupt(f, || unsafe { MSIP.write_volatile(1) });
}

/// Runs `work` as an interrupt handler.
fn handling(work: impl FnOnce()) {
    let outer = IN_HANDLER.load(Ordering::Relaxed);
    IN_HANDLER.store(true, Ordering::Relaxed);
    work();
    IN_HANDLER.store(outer, Ordering::Relaxed);
}

/// Called by riscv-rt, with the caller-saved registers saved and interrupts masked.
#[unsafe(no_mangle)]
extern "C" fn MachineSoft() {
    // SAFETY: takes the request back.
    unsafe { MSIP.write_volatile(0) };
    handling(run_job);
}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn MachineTimer() {
    timer::cancel();
    let pc = mepc::read();
    handling(|| timer_fired(pc));
}

/// Every other interrupt.
#[unsafe(no_mangle)]
extern "C" fn DefaultHandler() {
    write_fault(format_args!("unexpected interrupt {}", mcause::read().code()))
}
