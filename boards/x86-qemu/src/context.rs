//! Where the CPU is: interrupts on or off, inside a handler or not; and the lock of one CPU.

use core::arch::asm;
#[cfg(not(feature = "smp"))]
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
#[cfg(not(feature = "smp"))]
use critical_section::RawRestoreState;
use rtmm::Context;
#[cfg(not(feature = "smp"))]
use rtmm::RawLock;
use x86::io::outb;

/// Set once interrupts are on and the manager is up.
static TASKS: AtomicBool = AtomicBool::new(false);
/// How many interrupt handlers are running.
#[cfg(not(feature = "smp"))]
static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// The interrupt flag.
pub(crate) const INTERRUPTS: usize = 1 << 9;

/// Where the caller runs.
#[inline]
pub(crate) fn context() -> Context {
    if !TASKS.load(Relaxed) {
        Context::Boot
    } else if in_handler() || !interrupts_on() {
        Context::Atomic
    } else {
        Context::Task
    }
}

/// Turns interrupts on; from here on code runs as a task. The interrupt controllers stay masked, so nothing but the
/// software interrupt fires.
pub fn start_tasks() {
    TASKS.store(true, Relaxed);
    // SAFETY: masks both 8259s (machines without them ignore the ports); handlers for what can still come are in place.
    unsafe {
        outb(0x21, 0xff);
        outb(0xa1, 0xff);
        x86::irq::enable();
    }
}

/// Runs the body of an interrupt handler.
pub fn in_interrupt_handler(body: impl FnOnce()) {
    #[cfg(not(feature = "smp"))]
    let depth = &DEPTH;
    #[cfg(feature = "smp")]
    let depth = &crate::cpus::here().depth;
    depth.fetch_add(1, Relaxed);
    body();
    depth.fetch_sub(1, Relaxed);
}

/// The first thing that a scheduler's new task does: it was switched to inside a handler, on a stack of its own, and
/// will never return from there. Counts that handler as left and turns interrupts on.
pub fn begin_task() {
    #[cfg(not(feature = "smp"))]
    let depth = &DEPTH;
    #[cfg(feature = "smp")]
    let depth = &crate::cpus::here().depth;
    depth.fetch_sub(1, Relaxed);
    // SAFETY: as a return from the handler would.
    unsafe { unmask() };
}

/// True inside an interrupt handler.
#[inline]
pub fn in_handler() -> bool {
    #[cfg(not(feature = "smp"))]
    let depth = &DEPTH;
    #[cfg(feature = "smp")]
    let depth = &crate::cpus::here().depth;
    depth.load(Relaxed) != 0
}

#[inline]
pub(crate) fn interrupts_on() -> bool {
    flags() & INTERRUPTS != 0
}

#[inline(always)]
pub(crate) fn flags() -> usize {
    let flags: usize;
    // SAFETY: reading the flags, by way of the stack, has no effect.
    unsafe {
        // Of a whole word: the plain name is one of 16 bits in 32-bit mode.
        #[cfg(target_pointer_width = "64")]
        asm!("pushfq", "pop {}", out(reg) flags, options(nomem, preserves_flags));
        #[cfg(target_pointer_width = "32")]
        asm!("pushfd", "pop {}", out(reg) flags, options(nomem, preserves_flags));
    }
    flags
}

/// Turns interrupts off. Unlike `x86::irq::disable` it tells the compiler that no stack is used, which else is aligned for
/// it: two instructions in every function that has nothing else to do with the stack.
///
/// # Safety
/// The kernel may mask interrupts.
#[inline(always)]
pub(crate) unsafe fn mask() {
    // SAFETY: by the caller's word. Memory is not left alone, so that no access moves out of the section.
    unsafe { asm!("cli", options(nostack, preserves_flags)) };
}

/// Turns interrupts on, as [`mask`] off.
///
/// # Safety
/// They may be on here: they were before the matching `mask`, or the kernel is ready for them.
#[inline(always)]
pub(crate) unsafe fn unmask() {
    // SAFETY: as in `mask`.
    unsafe { asm!("sti", options(nostack, preserves_flags)) };
}

/// Interrupts off: on the only CPU nothing else runs. What the critical sections below do, and it tells more of the
/// state it found.
#[cfg(not(feature = "smp"))]
pub struct InterruptLock(());

// SAFETY: with interrupts off on the only CPU nothing else runs; the flags found by `acquire` decide about `release`,
// so sections nest. Handlers run with interrupts off and nothing turns them on, so that a caller with interrupts on is
// a task.
#[cfg(not(feature = "smp"))]
unsafe impl RawLock for InterruptLock {
    const NEW: Self = InterruptLock(());
    type Token = usize;
    const EXCLUDES_ALL: bool = true;

    #[inline(always)]
    fn acquire(&self) -> usize {
        let found = flags();
        // SAFETY: the kernel may mask interrupts.
        unsafe { mask() };
        found
    }

    #[inline(always)]
    unsafe fn release(&self, found: usize) {
        if found & INTERRUPTS != 0 {
            // SAFETY: they were on before the matching `acquire`.
            unsafe { unmask() };
        }
    }

    #[inline(always)]
    fn was_masked(found: usize) -> Option<bool> {
        Some(found & INTERRUPTS == 0)
    }
}

#[cfg(not(feature = "smp"))]
struct MaskInterrupts;
#[cfg(not(feature = "smp"))]
critical_section::set_impl!(MaskInterrupts);

// SAFETY: with interrupts off on the only CPU nothing else runs; the flag found by `acquire` is put back by `release`,
// so sections nest.
#[cfg(not(feature = "smp"))]
unsafe impl critical_section::Impl for MaskInterrupts {
    #[inline]
    unsafe fn acquire() -> RawRestoreState {
        let on = interrupts_on();
        // SAFETY: the kernel may mask interrupts.
        unsafe { mask() };
        on
    }

    #[inline]
    unsafe fn release(on: RawRestoreState) {
        if on {
            // SAFETY: they were on before the matching `acquire`.
            unsafe { unmask() };
        }
    }
}
