//! What these boards give the manager: a lock, the context, an ear for bugs.

use crate::context;
use crate::say;
use core::cell::Cell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use critical_section::Mutex;
use rtmm::{Bug, Context, Platform};

/// One CPU, where critical sections mask interrupts; or with feature `smp` several.
pub struct BoardPlatform;

static BUGS: AtomicUsize = AtomicUsize::new(0);
static LAST_BUG: Mutex<Cell<Option<Bug>>> = Mutex::new(Cell::new(None));

impl Platform for BoardPlatform {
    #[cfg(not(feature = "smp"))]
    type Lock = context::InterruptLock;
    #[cfg(feature = "smp")]
    type Lock = crate::cpus::CpusLock;
    #[cfg(feature = "smp")]
    const CPUS: usize = crate::cpus::CPUS;
    /// Some seconds, also where QEMU has few processors to run the CPUs on.
    #[cfg(feature = "smp")]
    const MAX_POLLS: u64 = 1 << 24;

    #[cfg(feature = "smp")]
    #[inline(always)]
    fn cpu(&self) -> usize {
        crate::cpus::number()
    }

    #[cfg(feature = "smp")]
    fn send_ipi(&self, cpu: usize) {
        crate::cpus::send_ipi(cpu);
    }

    #[inline]
    fn context(&self) -> Context {
        context::context()
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

/// The instruction counter: exact and monotonic under QEMU's `-icount shift=0,sleep=off`, where the time-stamp counter
/// advances by one per instruction.
#[inline]
pub fn instructions() -> u64 {
    // SAFETY: every CPU these boards boot on has a time-stamp counter, and the kernel may read it.
    unsafe { x86::time::rdtsc() }
}
