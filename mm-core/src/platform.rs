//! The seam to the RTOS: locks, the CPU number, the context, reports.

use crate::addr::{Pfn, VirtRange};
use crate::debug::Event;
use crate::error::FreeError;
use core::fmt;
use core::panic::Location;
use core::time::Duration;

/// A lock that masks interrupts on this CPU while it is held.
///
/// On one core it is a critical section; on several it also spins (and answers shootdowns while it does).
///
/// # Safety
/// Between `acquire` and the matching `release` no other context, interrupts of this CPU included, may be between
/// its own `acquire` and `release` of the same lock, and what was written before `release` is seen after the next
/// `acquire`. Sections nest in stack order.
pub unsafe trait RawLock: Sized + Send + Sync {
    /// An open lock.
    const NEW: Self;
    /// What `release` needs to restore the state before `acquire`.
    type Token: Copy;
    /// True when holding any one lock of this type excludes the holders of every other one, as a critical section on
    /// one core does. A free is then spared a second look at what it frees.
    const EXCLUDES_ALL: bool = false;

    /// Takes the lock. Never called by a context that holds it.
    fn acquire(&self) -> Self::Token;

    /// Takes the lock if nobody has it. Called where there are several CPUs, perhaps by a context that holds it.
    #[inline]
    fn try_acquire(&self) -> Option<Self::Token> {
        Some(self.acquire())
    }

    /// Masks interrupts as `acquire` does, and takes nothing.
    #[inline(always)]
    fn mask() -> Self::Token {
        Self::NEW.acquire()
    }

    /// Restores what the matching [`mask`](Self::mask) found.
    ///
    /// # Safety
    /// As for [`release`](Self::release).
    #[inline(always)]
    unsafe fn unmask(token: Self::Token) {
        // SAFETY: a lock that nobody else knows; by the caller, its token and in order.
        unsafe { Self::NEW.release(token) }
    }

    /// Opens the lock and restores the interrupt state of the matching `acquire`.
    ///
    /// # Safety
    /// `token` comes from the matching `acquire`, and sections end in the reverse order of their start.
    unsafe fn release(&self, token: Self::Token);

    /// Whether interrupts were masked when `acquire` returned `token`; `None` when the token does not tell.
    ///
    /// `Some(false)` must mean that the caller was a task. It spares each allocation that may wait a call of
    /// [`Platform::context`]; a platform whose handlers run with interrupts on leaves it at `None`.
    #[inline(always)]
    fn was_masked(token: Self::Token) -> Option<bool> {
        let _ = token;
        None
    }
}

/// Where the caller runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Context {
    /// Start-up, before tasks: never waits, and a may-wait flag is not reported.
    Boot,
    /// A task with interrupts on: may wait.
    Task,
    /// An interrupt handler, or interrupts are off: never waits.
    Atomic,
}

/// Something a board should hear of: a wrong free nobody can be told of, damage, a broken rule.
///
/// The manager is consistent when it reports, and holds no lock.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Bug {
    /// A free that Drop, `GlobalAlloc` or C could not return was refused.
    BadFree {
        /// What was to be freed.
        addr: usize,
        /// Why it was refused.
        error: FreeError,
    },
    /// A flag that may wait was used where waiting is impossible; the call went on as one that may not.
    ///
    /// Told once per call site, and of the first 16 only (4 with feature `small`): each manager remembers so many, and
    /// says nothing of later ones rather than something at each call. From C a function of the library is one site.
    MayWaitInAtomic {
        /// The call site.
        #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
        caller: &'static Location<'static>,
    },
    /// A cache was dropped while objects were live; it stays.
    CacheBusy {
        /// How many objects are live.
        objects: usize,
    },
    /// A pool was dropped while elements were out; they are no pool's any more.
    PoolBusy {
        /// How many elements are out.
        elements: usize,
    },
    /// A byte beside an object, or in a free one, was overwritten. The object is nobody's any more and never handed out
    /// again.
    ObjectDamaged {
        /// The name of its cache.
        cache: &'static str,
        /// The object's address.
        object: usize,
        /// The lowest byte that is not as it was left.
        at: usize,
        /// What that byte was part of.
        what: Overwritten,
        /// The call that allocated the object, or did last; `None` without feature `page-owner`.
        #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
        owner: Option<&'static Location<'static>>,
        /// The call that found it.
        #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
        caller: &'static Location<'static>,
    },
    /// A page was written to while it was free, or its memory is broken. It is never used again.
    PageDamaged {
        /// The page.
        frame: Pfn,
        /// The physical address of the lowest byte that is not as it was left.
        at: u64,
        /// What it holds; a byte with one bit other than 0xaa may be a bad cell.
        found: u8,
    },
    /// The manager's own data contradicts itself.
    Damage {
        /// Which rule is broken.
        what: &'static str,
        /// The frame number, address or index it was seen at.
        at: usize,
    },
    /// Another CPU did not acknowledge a TLB shootdown in time; the frames stay in quarantine.
    NoAcknowledgement {
        /// The CPU that was silent.
        cpu: usize,
    },
}

/// What an overwritten byte was part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Overwritten {
    /// The red zone before or behind an object: it, or a neighbour, was written past its end or before its start.
    RedZone,
    /// The poison in a free object: it was written after it was freed.
    Poison,
}

impl fmt::Display for Overwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Overwritten::RedZone => "red zone",
            Overwritten::Poison => "poison",
        })
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bug::BadFree { addr, error } => write!(f, "bad free of {addr:#x}: {error}"),
            Bug::MayWaitInAtomic { caller } => write!(f, "may-wait flag in atomic context at {caller}"),
            Bug::CacheBusy { objects } => write!(f, "cache dropped with {objects} live objects"),
            Bug::PoolBusy { elements } => write!(f, "memory pool dropped with {elements} elements out"),
            Bug::ObjectDamaged { cache, object, at, what, owner, caller } => {
                write!(f, "{what} overwritten at {at:#x}, object {object:#x} of cache {cache}, found at {caller}")?;
                owner.map_or(Ok(()), |owner| write!(f, ", allocated at {owner}"))
            }
            Bug::PageDamaged { frame, at, found } => {
                write!(f, "free page {frame} overwritten: {found:#04x} at physical {at:#x}")
            }
            Bug::Damage { what, at } => write!(f, "damaged metadata at {at:#x}: {what}"),
            Bug::NoAcknowledgement { cpu } => write!(f, "cpu {cpu} did not acknowledge a TLB shootdown"),
        }
    }
}

/// What the RTOS gives the manager.
pub trait Platform: Sized + Send + Sync + 'static {
    /// The lock of each structure.
    type Lock: RawLock;

    /// True when a task can be put to sleep until memory comes back: [`now`](Self::now), [`current`](Self::current),
    /// [`wait`](Self::wait) and [`wake`](Self::wake) are there. When false nothing ever waits, except futures.
    const CAN_WAIT: bool = false;

    /// How many CPUs use the manager, at most [`MAX_CPUS`](crate::MAX_CPUS); a build for one has nothing of the others.
    ///
    /// With more, [`cpu`](Self::cpu) and [`send_ipi`](Self::send_ipi) are there, the lock is one for several CPUs
    /// ([`TicketLock`](crate::TicketLock)), and each further CPU calls [`Mm::cpu_up`](crate::Mm::cpu_up) before it uses
    /// the manager.
    const CPUS: usize = 1;

    /// How often a CPU looks for the answer of another one to a shootdown, by way of [`relax`](Self::relax), before it
    /// gives it up: then [`Bug::NoAcknowledgement`] is told once, until that CPU polls again, and what was to be freed
    /// is never reused. Several seconds on most machines.
    const MAX_POLLS: u64 = 1 << 28;

    /// Where the caller runs.
    fn context(&self) -> Context;

    /// Hears of a [`Bug`]. No lock is held; it may allocate and free. The board decides whether to stop.
    fn bug(&self, bug: &Bug);

    /// The time since some start, which never runs back.
    #[inline]
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    /// A name of the calling task, by which [`wake`](Self::wake) finds it.
    #[inline]
    fn current(&self) -> usize {
        0
    }

    /// Puts the calling task to sleep until it is woken or `until` has come, a time of [`now`](Self::now).
    ///
    /// A wake that came since the task last returned from here is not lost: it ends the sleep at once. Returning
    /// early without any reason is allowed. Called in [`Context::Task`] with no lock held.
    #[inline]
    fn wait(&self, until: Duration) {
        let _ = until;
    }

    /// Wakes the task that [`current`](Self::current) named so, from any context, interrupts too. No lock is held.
    ///
    /// The task may have gone on already, be asleep elsewhere, or have ended: then this must do no harm. A platform
    /// whose tasks can end names them by number, not by address.
    #[inline]
    fn wake(&self, task: usize) {
        let _ = task;
    }

    /// Hears of each allocation and free that succeeded, with feature `trace-hooks` of the library; never called
    /// without.
    ///
    /// Called in the context of the call it is about, interrupts included, with no lock of the manager's held. It may
    /// allocate and free: what it does is not told, but counted by `Mm::events_missed`. So is what an interrupt does
    /// that comes while the context it interrupts is in here. A free is told when it is done, so that with several
    /// CPUs, or preempted, the event of the next allocation of the same memory may come first.
    #[inline]
    fn trace(&self, event: &Event) {
        let _ = event;
    }

    /// The number of this CPU, from 0, below [`CPUS`](Self::CPUS).
    #[inline]
    fn cpu(&self) -> usize {
        0
    }

    /// Interrupts CPU `cpu`, whose handler calls [`Mm::handle_ipi`](crate::Mm::handle_ipi). With one CPU never
    /// called.
    ///
    /// It may be the calling CPU, and one on which the interrupt is pending already. No lock is held. Whoever spins
    /// with interrupts masked, in the kernel's own locks too, calls [`Mm::poll_shootdown`](crate::Mm::poll_shootdown)
    /// at each turn.
    #[inline]
    fn send_ipi(&self, cpu: usize) {
        let _ = cpu;
    }

    /// One turn of a loop that waits for another CPU, with no lock held and interrupts on.
    #[inline]
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// Flushes `range` from the TLBs of other CPUs, which share memory's tables but never call the manager, and returns
    /// when all have. Called where [`CPUS`](Self::CPUS) is 1; with more the manager does it, by
    /// [`send_ipi`](Self::send_ipi).
    ///
    /// The calling CPU has flushed it already; where the caller may have moved to another CPU since, all are flushed.
    /// No lock is held. The default does nothing, which is right on one CPU only.
    #[inline]
    fn flush_remote(&self, range: VirtRange) {
        let _ = range;
    }
}
