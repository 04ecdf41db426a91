//! Several CPUs: which of them are up, and flushing the translations of all.
//!
//! Nothing of this is in a build whose [`Platform::CPUS`] is 1. A flush that waits for other CPUs runs only where the
//! caller may wait, interrupts on and no lock held; elsewhere what is to be flushed is put off. A CPU whose interrupts
//! are masked answers when it spins for a lock of the manager's, or calls [`Mm::poll_shootdown`].

mod magazine;
pub mod shootdown;
#[cfg(target_has_atomic = "32")]
mod ticket;

#[cfg(target_has_atomic = "32")]
pub use ticket::{Interrupts, TicketLock};

use crate::addr::VirtRange;
use crate::backend::{Backend, PageTable};
use crate::boot::RamMap;
use crate::error::MmError;
use crate::lock::Locked;
use crate::manager::{Mm, boot_alloc};
use crate::memory::Memory;
use crate::platform::{Bug, Context, Platform, RawLock};
use crate::vmalloc::AreaFamily;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst, fence};
use shootdown::{Shootdown, is_at};

/// The most CPUs a manager serves.
pub const MAX_CPUS: usize = 32;

/// What a manager of several CPUs has beside the rest, in memory set aside at boot. What each CPU keeps follows it.
#[repr(align(64))]
pub(crate) struct Smp<L: RawLock> {
    pub(crate) shootdown: Shootdown<AtomicUsize, MAX_CPUS>,
    /// Whose holder posts requests; the last one that all CPUs are known to have done.
    sender: Locked<L, usize>,
    /// How often CPUs were asked to give back what they keep; the same for all to read; and how far each is.
    drains: Locked<L, usize>,
    asked: AtomicUsize,
    drained: [AtomicUsize; MAX_CPUS],
    /// What each CPU keeps, behind this in memory.
    each: *const magazine::PerCpu,
}

// SAFETY: what `each` points to is atomic, and lives as long as this.
unsafe impl<L: RawLock> Send for Smp<L> {}
// SAFETY: as above.
unsafe impl<L: RawLock> Sync for Smp<L> {}

/// How far a flush got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what was not flushed everywhere must not be reused"]
pub(crate) enum Reach {
    /// No CPU has the translations any more.
    All,
    /// This context may not wait for the others.
    Later,
    /// A CPU did not answer, which was told.
    Never,
}

impl<P: Platform, B: Backend> Memory<P, B> {
    /// Sets aside what several CPUs need.
    pub(crate) fn place_smp<const N: usize>(&self, ram: &mut RamMap<N>) -> Result<(), MmError> {
        const { assert!(P::CPUS >= 1 && P::CPUS <= MAX_CPUS, "a manager serves 1 to 32 CPUs") };
        if P::CPUS > 1 {
            let smp = boot_alloc(self, ram, Smp::<P::Lock>::bytes(P::CPUS))?.cast::<Smp<P::Lock>>();
            let value = Smp {
                shootdown: Shootdown::new(),
                sender: Locked::new(0),
                drains: Locked::new(0),
                asked: AtomicUsize::new(0),
                drained: [const { AtomicUsize::new(0) }; MAX_CPUS],
                // Of the pointer to all of it: one to this alone would not reach further.
                each: smp.wrapping_add(1).cast(),
            };
            value.shootdown.bring_up(self.platform.cpu(), || ());
            // SAFETY: zeroed memory of that size, aligned to 64, which is never given back.
            unsafe { smp.write(value) };
            self.set_smp(smp);
        }
        Ok(())
    }

    /// True when another CPU may hold translations.
    fn others_are_up(&self, smp: &Smp<P::Lock>) -> bool {
        let me = self.platform.cpu();
        (0..P::CPUS).any(|cpu| cpu != me && smp.shootdown.is_online(cpu))
    }

    /// True when this context may wait for all other CPUs that are up.
    pub(crate) fn may_flush(&self) -> bool {
        P::CPUS == 1
            || self.platform.context() == Context::Task
            || self.smp().is_none_or(|smp| !self.others_are_up(smp))
    }

    /// True when frees of areas are put off here.
    #[inline(always)]
    pub(crate) fn puts_frees_off(&self) -> bool {
        match self.platform.context() {
            Context::Atomic => true,
            // Start-up, with interrupts off.
            Context::Boot if P::CPUS > 1 => !self.may_flush(),
            _ => false,
        }
    }

    /// [`Mm::poll_shootdown`], by this flush.
    pub(crate) fn poll(&self, flush: impl FnMut(Option<VirtRange>)) {
        if P::CPUS > 1
            && let Some(smp) = self.smp()
        {
            let masked = P::Lock::mask();
            smp.shootdown.poll(self.platform.cpu(), flush);
            // SAFETY: of the `mask` above.
            unsafe { P::Lock::unmask(masked) };
        }
    }
}

/// All there is, as a range.
pub(crate) const EVERYTHING: VirtRange = VirtRange { start: 0, end: usize::MAX };

impl<P: Platform, B: PageTable> Memory<P, B> {
    /// Flushes `range` from every TLB. No lock is held.
    #[inline(always)]
    pub(crate) fn flush_everywhere(&self, range: VirtRange) -> Reach {
        if P::CPUS == 1 {
            self.backend.flush(range);
            self.platform.flush_remote(range);
            return Reach::All;
        }
        self.shoot_down(range)
    }

    #[inline(never)]
    fn shoot_down(&self, range: VirtRange) -> Reach {
        // The entries that were changed are seen by a CPU that is not seen online here, and comes up.
        fence(SeqCst);
        let Some(smp) = self.smp().filter(|smp| self.others_are_up(smp)) else {
            self.backend.flush(range);
            return Reach::All;
        };
        if self.platform.context() != Context::Task {
            return Reach::Later;
        }
        let sender = smp.sender.lock();
        let number = smp.shootdown.post(range);
        drop(sender);
        let poll = || self.poll(|range| self.backend.flush(range.unwrap_or(EVERYTHING)));
        poll();
        // This task may have come from another CPU just now, so every one is asked that has not answered.
        for cpu in 0..P::CPUS {
            if !smp.shootdown.has_done(cpu, number) {
                self.platform.send_ipi(cpu);
            }
        }
        let mut reach = Reach::All;
        for cpu in 0..P::CPUS {
            let mut polls = 0;
            while !smp.shootdown.has_done(cpu, number) {
                if smp.shootdown.is_silent(cpu) || polls == P::MAX_POLLS {
                    if self.tell_silent(smp, cpu, number) {
                        reach = Reach::Never;
                    }
                    break;
                }
                polls += 1;
                poll();
                self.platform.relax();
            }
        }
        if reach == Reach::All {
            let mut acknowledged = smp.sender.lock();
            if !is_at(*acknowledged, number) {
                *acknowledged = number;
            }
        }
        reach
    }

    /// Gives a CPU up, unless it has answered after all; true when it has not.
    #[cold]
    fn tell_silent(&self, smp: &Smp<P::Lock>, cpu: usize, number: usize) -> bool {
        if smp.shootdown.is_silent(cpu) {
            return true;
        }
        smp.shootdown.give_up_on(cpu);
        if smp.shootdown.has_done(cpu, number) {
            // In the last moment; the next request need not be given up.
            smp.shootdown.forgive(cpu);
            return false;
        }
        self.platform.bug(&Bug::NoAcknowledgement { cpu });
        true
    }

    /// The number of the last request posted, for [`was_flushed_since`](Self::was_flushed_since).
    pub(crate) fn last_request(&self) -> usize {
        self.smp().map_or(0, |smp| smp.shootdown.last())
    }

    /// True when all CPUs have done a request that was posted after `number` was the last one, or there is one CPU.
    pub(crate) fn was_flushed_since(&self, number: usize) -> bool {
        self.smp().is_none_or(|smp| !self.others_are_up(smp) || is_at(*smp.sender.lock(), number.wrapping_add(1)))
    }
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Does what other CPUs asked of this one: drops translations from its TLB, and says so.
    ///
    /// [`handle_ipi`](Self::handle_ipi) does it, and whoever spins with interrupts masked must, at each
    /// turn: others wait for the answer, for a bounded time ([`Platform::MAX_POLLS`]). Takes no lock.
    ///
    /// Context: any. Cost: some twenty instructions when nothing was asked; else that of a few flushes.
    #[inline]
    pub fn poll_shootdown(&self) {
        if P::CPUS > 1 {
            self.memory.poll(|range| self.areas.flush_here(&self.memory, range));
        }
    }

    /// The body of the handler of [`Platform::send_ipi`]'s interrupt: [`poll_shootdown`](Self::poll_shootdown), and
    /// gives back what this CPU keeps when another one asked for it.
    ///
    /// Context: that handler; no lock of the kernel's is held that one of the manager's is taken inside. Cost: as
    /// `poll_shootdown`, and at most a few dozen frees for each class.
    pub fn handle_ipi(&self) {
        if P::CPUS > 1 {
            self.poll_shootdown();
            self.drain_if_asked();
        }
    }

    /// This CPU begins to use the manager and the kernel's tables. The CPU that called `init` is up already.
    ///
    /// Context: any, on that CPU, before it reaches any memory of the manager's. Cost: a flush of its whole TLB.
    pub fn cpu_up(&self) {
        if P::CPUS > 1
            && let Some(smp) = self.memory.smp()
        {
            let masked = P::Lock::mask();
            smp.shootdown.bring_up(self.memory.platform.cpu(), || self.areas.flush_here(&self.memory, None));
            // SAFETY: of the `mask` above.
            unsafe { P::Lock::unmask(masked) };
        }
    }

    /// This CPU gives back what it keeps, and stops using memory of the manager's, until [`cpu_up`](Self::cpu_up):
    /// nobody waits for it any more.
    ///
    /// Context: on that CPU, with interrupts masked, so that no handler allocates once more.
    pub fn cpu_down(&self) {
        if P::CPUS > 1
            && let Some(smp) = self.memory.smp()
        {
            self.drain_own();
            smp.shootdown.take_down(self.memory.platform.cpu());
        }
    }

    /// True when CPU `cpu` is up: it called [`cpu_up`](Self::cpu_up), or `init`.
    pub fn is_cpu_up(&self, cpu: usize) -> bool {
        cpu < P::CPUS && self.memory.smp().map_or(cpu == 0, |smp| smp.shootdown.is_online(cpu))
    }
}
