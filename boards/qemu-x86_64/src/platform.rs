//! What this board gives the manager: a lock, the context, an ear for bugs.

use crate::{say, traps};
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use critical_section::{Mutex, RawRestoreState};
use rtmm::{Bug, Context, Platform, RawLock};
use x86::bits64::rflags::{self, RFlags};
use x86::io::outb;

/// One CPU; critical sections mask interrupts.
pub struct BoardPlatform;

/// Set once interrupts are on and the manager is up.
static TASKS: AtomicBool = AtomicBool::new(false);
static BUGS: AtomicUsize = AtomicUsize::new(0);
static LAST_BUG: Mutex<Cell<Option<Bug>>> = Mutex::new(Cell::new(None));

impl Platform for BoardPlatform {
    type Lock = InterruptLock;

    #[inline]
    fn context(&self) -> Context {
        if !TASKS.load(Relaxed) {
            Context::Boot
        } else if traps::in_handler() || !interrupts_on() {
            Context::Atomic
        } else {
            Context::Task
        }
    }

    fn bug(&self, bug: &Bug) {
        BUGS.fetch_add(1, Relaxed);
        critical_section::with(|token| LAST_BUG.borrow(token).set(Some(*bug)));
        say!("BUG: {bug}");
    }
}

/// How often the manager reported a bug.
pub fn bugs() -> usize {
    BUGS.load(Relaxed)
}

/// The last bug the manager reported.
pub fn last_bug() -> Option<Bug> {
    critical_section::with(|token| LAST_BUG.borrow(token).get())
}

/// Turns interrupts on; from here on code runs as a task. The interrupt controllers stay masked, so nothing but the
/// software interrupt fires.
pub(crate) fn start_tasks() {
    TASKS.store(true, Relaxed);
    // SAFETY: masks both 8259s (machines without them ignore the ports); handlers for what can still come are in place.
    unsafe {
        outb(0x21, 0xff);
        outb(0xa1, 0xff);
        x86::irq::enable();
    }
}

#[inline]
fn interrupts_on() -> bool {
    rflags::read().contains(RFlags::FLAGS_IF)
}

/// The instruction counter: exact and monotonic under QEMU's `-icount shift=0,sleep=off`, where the time-stamp counter
/// advances by one per instruction.
#[inline]
pub fn instructions() -> u64 {
    // SAFETY: every x86-64 has a time-stamp counter, and the kernel may read it.
    unsafe { x86::time::rdtsc() }
}

/// Interrupts off: on the only CPU nothing else runs. What the critical sections below do, and it tells more of the
/// state it found.
pub struct InterruptLock(());

// SAFETY: with interrupts off on the only CPU nothing else runs; the flags found by `acquire` decide about `release`,
// so sections nest. Handlers run with interrupts off and nothing turns them on, so that a caller with interrupts on is
// a task.
unsafe impl RawLock for InterruptLock {
    const NEW: Self = InterruptLock(());
    type Token = RFlags;
    const EXCLUDES_ALL: bool = true;

    #[inline(always)]
    fn acquire(&self) -> RFlags {
        let found = rflags::read();
        // SAFETY: the kernel may mask interrupts.
        unsafe { x86::irq::disable() };
        found
    }

    #[inline(always)]
    unsafe fn release(&self, found: RFlags) {
        if found.contains(RFlags::FLAGS_IF) {
            // SAFETY: they were on before the matching `acquire`.
            unsafe { x86::irq::enable() };
        }
    }

    #[inline(always)]
    fn was_masked(found: RFlags) -> Option<bool> {
        Some(!found.contains(RFlags::FLAGS_IF))
    }
}

struct MaskInterrupts;
critical_section::set_impl!(MaskInterrupts);

// SAFETY: with interrupts off on the only CPU nothing else runs; the flag found by `acquire` is put back by `release`,
// so sections nest.
unsafe impl critical_section::Impl for MaskInterrupts {
    #[inline]
    unsafe fn acquire() -> RawRestoreState {
        let on = interrupts_on();
        // SAFETY: the kernel may mask interrupts.
        unsafe { x86::irq::disable() };
        on
    }

    #[inline]
    unsafe fn release(on: RawRestoreState) {
        if on {
            // SAFETY: they were on before the matching `acquire`.
            unsafe { x86::irq::enable() };
        }
    }
}
