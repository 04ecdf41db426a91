//! The lock for several CPUs: interrupts off on this one, and a ticket for the others.

use crate::platform::RawLock;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// What a [`TicketLock`] needs of the machine.
///
/// # Safety
/// Between `mask` and the matching `restore` no interrupt handler runs on this CPU, and the caller does not move to
/// another one. Pairs nest in stack order.
pub unsafe trait Interrupts: Send + Sync + 'static {
    /// What `restore` needs.
    type State: Copy;

    /// Masks the interrupts of this CPU.
    fn mask() -> Self::State;

    /// Restores what the matching `mask` found.
    ///
    /// # Safety
    /// `state` comes from the matching `mask`, and pairs end in the reverse order of their start.
    unsafe fn restore(state: Self::State);

    /// As [`RawLock::was_masked`].
    #[inline(always)]
    fn was_masked(state: Self::State) -> Option<bool> {
        let _ = state;
        None
    }

    /// One turn of the loop that waits for another CPU to open a lock, with interrupts masked: calls
    /// [`Mm::poll_shootdown`](crate::Mm::poll_shootdown) of each manager whose locks are of this type, which takes
    /// none.
    fn relax();
}

/// A lock that masks interrupts and serves CPUs in the order of their coming. Whoever waits answers shootdowns.
pub struct TicketLock<I: Interrupts> {
    /// The ticket of who comes next.
    next: AtomicU32,
    /// The ticket of who has it, or would.
    serving: AtomicU32,
    interrupts: PhantomData<fn() -> I>,
}

// SAFETY: a ticket is served when all before it have left, and only one context of a CPU can be between `acquire` and
// `release`, since its interrupts are masked. Leaving releases what was written, being served acquires it.
unsafe impl<I: Interrupts> RawLock for TicketLock<I> {
    const NEW: Self = TicketLock { next: AtomicU32::new(0), serving: AtomicU32::new(0), interrupts: PhantomData };
    type Token = I::State;

    #[inline(always)]
    fn acquire(&self) -> I::State {
        let state = I::mask();
        let ticket = self.next.fetch_add(1, Relaxed);
        if self.serving.load(Acquire) != ticket {
            self.wait(ticket);
        }
        state
    }

    #[inline(always)]
    unsafe fn release(&self, state: I::State) {
        // Only the holder stores here.
        self.serving.store(self.serving.load(Relaxed).wrapping_add(1), Release);
        // SAFETY: the caller hands back the state of the matching `acquire`.
        unsafe { I::restore(state) };
    }

    #[inline(always)]
    fn was_masked(state: I::State) -> Option<bool> {
        I::was_masked(state)
    }

    fn try_acquire(&self) -> Option<I::State> {
        let state = I::mask();
        let ticket = self.serving.load(Acquire);
        if self.next.compare_exchange(ticket, ticket.wrapping_add(1), Acquire, Relaxed).is_ok() {
            return Some(state);
        }
        // SAFETY: of the `mask` above.
        unsafe { I::restore(state) };
        None
    }

    #[inline(always)]
    fn mask() -> I::State {
        I::mask()
    }

    #[inline(always)]
    unsafe fn unmask(state: I::State) {
        // SAFETY: by the caller.
        unsafe { I::restore(state) }
    }
}

impl<I: Interrupts> TicketLock<I> {
    #[cold]
    #[inline(never)]
    fn wait(&self, ticket: u32) {
        while self.serving.load(Acquire) != ticket {
            I::relax();
        }
    }
}
