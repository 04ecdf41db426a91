//! What the manager needs of this process.
//!
//! The lock and the context take as many instructions as on the x86-64 board: the flags are read, and where the board
//! masks and unmasks interrupts, which a process may not, stands an instruction that does nothing.

use rtmm::{Bug, Context, Platform, RawLock};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The lock's name in tables.
pub const LOCK: &str = "flags read and tested, a no-op for cli and for sti";

static UP: AtomicBool = AtomicBool::new(true);
static IN_HANDLER: AtomicU32 = AtomicU32::new(0);

/// RFLAGS.IF, which is on in a process.
const INTERRUPTS: u64 = 1 << 9;

#[inline(always)]
fn interrupts_on() -> bool {
    let flags: u64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads the flags.
    unsafe {
        core::arch::asm!("pushfq", "pop {}", out(reg) flags, options(nomem, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        flags = INTERRUPTS;
    }
    flags & INTERRUPTS != 0
}

/// In place of `cli` and `sti`; the compiler may move nothing across it.
#[inline(always)]
fn instead() {
    // SAFETY: does nothing.
    unsafe { core::arch::asm!("nop", options(nostack, preserves_flags)) };
}

/// The lock of a process with one thread.
pub struct BoardLike;

// SAFETY: there is one thread, and no signal handler uses the manager.
unsafe impl RawLock for BoardLike {
    const NEW: Self = BoardLike;
    type Token = bool;

    #[inline(always)]
    fn acquire(&self) -> bool {
        let on = interrupts_on();
        instead();
        on
    }

    #[inline(always)]
    unsafe fn release(&self, on: bool) {
        if on {
            instead();
        }
    }
}

/// The process as a platform.
pub struct Process;

impl Platform for Process {
    type Lock = BoardLike;

    #[inline]
    fn context(&self) -> Context {
        if !UP.load(Relaxed) {
            Context::Boot
        } else if IN_HANDLER.load(Relaxed) != 0 || !interrupts_on() {
            Context::Atomic
        } else {
            Context::Task
        }
    }

    fn bug(&self, bug: &Bug) {
        panic!("the manager reports: {bug}");
    }
}
