//! What a request does that found no memory: takes back what caches keep, asks shrinkers, waits, and only then fails.
//!
//! 1. What lies about unused goes back before any shrinker is asked, since it is cheaper and costs nobody data that he
//!    would have to make or read again: kept slabs, pages of descriptors, spare page tables. Every request does this, those of interrupts too; in tasks also the areas whose frees were put
//!    off.
//! 2. A request that may wait asks the shrinkers, one after the other, and tries again as in step 1 after each that says
//!    it gave something; in at most four rounds, one with `__GFP_NORETRY`, and none after one in which nobody gave.
//! 3. If it may wait and is not `__GFP_NORETRY`, and the platform can, it waits until its deadline; then it does step 1
//!    once more.
//!
//! It ends with the first attempt that succeeds, as Linux's direct reclaim does: nobody gives more for one request than
//! the request needs. To go on until a zone has its `high` mark again is the work of a background reclaimer, and there is
//! none: no thread is made here.
//!
//! Nothing is killed and nothing is tried for ever. No lock is held between the steps. One context reclaims at a time:
//! what a shrinker allocates does step 1 only, and whoever comes meanwhile goes on to step 3.

mod obtain;
mod shrinker;

pub(crate) use obtain::Repeat;

pub use shrinker::{ShrinkRequest, Shrinker, ShrinkerId, Shrinkers};

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::AllocError;
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::lock::Locked;
use crate::manager::Mm;
use crate::platform::{Context, Platform, RawLock};
use crate::wait::Block;
use core::time::Duration;
use shrinker::MAX_SHRINKERS;

/// The most rounds through the shrinkers.
const ROUNDS: usize = 4;

/// Who reclaims: the task and CPU, so that what its shrinkers ask for is known as theirs.
pub struct Turn<L: RawLock>(Locked<L, Option<(usize, usize)>>);

impl<L: RawLock> Turn<L> {
    pub const fn new() -> Self {
        Turn(Locked::new(None))
    }
}

/// Reclaim came to nothing.
pub struct Failed {
    /// Why the last attempt failed.
    pub error: AllocError,
    /// Later it may succeed.
    pub short: bool,
    /// The request may wait now.
    pub waits: bool,
}

/// Holds the turn until dropped, also by unwinding.
struct Held<'a, L: RawLock>(&'a Turn<L>);

impl<L: RawLock> Drop for Held<'_, L> {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}

/// What trying again came to.
pub(crate) enum Again {
    Done,
    Short,
    Hopeless,
}

/// How shrinkers are asked; see [`Mm::ask_shrinkers`].
type Round<P, B> = fn(&Mm<P, B>, Gfp, usize, &mut dyn FnMut() -> Again) -> bool;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Takes back memory for a request with admitted `flags` for `pages` that failed with `error`, and repeats
    /// `attempt` after each step.
    ///
    /// # Errors
    /// The last error, and whether the request may wait now.
    pub(crate) fn reclaim<T>(
        &self,
        flags: Gfp,
        pages: usize,
        error: AllocError,
        mut attempt: impl FnMut() -> Result<T, AllocError>,
    ) -> Result<T, Failed> {
        // An error that was asked for stays one.
        let is_short = |error: AllocError| error.may_pass() && !self.memory.was_injected();
        let is_worth_it = is_short(error);
        let mut failed = Failed { error, short: is_worth_it, waits: false };
        let mut got = None;
        let again = &mut || match attempt() {
            Ok(value) => {
                got = Some(value);
                Again::Done
            }
            Err(error) => {
                (failed.error, failed.short) = (error, is_short(error));
                if failed.short { Again::Short } else { Again::Hopeless }
            }
        };
        let waits = is_worth_it && self.reclaim_steps(flags, pages, again);
        failed.waits = waits && failed.short;
        got.ok_or(failed)
    }

    /// The steps of reclaim; returns whether there is use in waiting.
    #[cold]
    #[inline(never)]
    pub(super) fn reclaim_steps(&self, flags: Gfp, pages: usize, attempt: &mut dyn FnMut() -> Again) -> bool {
        match self.drain_and(attempt) {
            Again::Short if flags.contains(Gfp::WAIT) => {}
            _ => return false,
        }
        #[cfg(feature = "small")]
        let worth_it = self.ask_shrinkers(flags, pages, attempt);
        #[cfg(not(feature = "small"))]
        let worth_it = self.shrinkers.round().is_none_or(|round| round(self, flags, pages, attempt));
        worth_it && P::CAN_WAIT && !flags.contains(Gfp::NORETRY)
    }

    /// Gives back what lies about unused, and tries again.
    #[inline(never)]
    fn drain_and(&self, attempt: &mut dyn FnMut() -> Again) -> Again {
        // Areas whose frees were put off are torn down in tasks only.
        if self.platform().context() == Context::Task {
            self.flush_deferred();
        }
        self.drain_kept();
        attempt()
    }

    /// What a task that waits does whenever it is awake: what was put off, and what lies about unused goes back. True when
    /// there was something put off.
    pub(crate) fn tend(&self) -> bool {
        self.drain_kept();
        self.flush_deferred() != 0
    }

    /// The last attempt of a request whose time is up with `error`: what was freed meanwhile may lie about unused. It is
    /// in no queue any more.
    #[cold]
    #[inline(never)]
    pub(crate) fn at_last<T>(
        &self,
        error: AllocError,
        attempt: impl FnOnce() -> Result<T, AllocError>,
    ) -> Result<T, AllocError> {
        if !error.may_pass() || self.memory.was_injected() {
            return Err(error);
        }
        self.drain();
        attempt()
    }

    /// The second step; returns whether there is use in the third.
    fn ask_shrinkers(&self, flags: Gfp, pages: usize, attempt: &mut dyn FnMut() -> Again) -> bool {
        let me = (self.platform().current(), self.platform().cpu());
        let mut turn = self.turn.0.lock();
        if let Some((task, cpu)) = *turn {
            // Tasks are told apart where they can wait; elsewhere whoever shares the CPU may be inside a shrinker.
            let nested = task == me.0 && (P::CAN_WAIT || cpu == me.1);
            return !nested;
        }
        *turn = Some(me);
        drop(turn);
        let _turn = Held(&self.turn);
        let request = ShrinkRequest { flags, pages, scan: 0 };
        let rounds = if flags.contains(Gfp::NORETRY) { 1 } else { ROUNDS };
        for left in (0..rounds).rev() {
            let mut freed = 0usize;
            for slot in 0..MAX_SHRINKERS {
                let gave = self.shrinkers.ask(slot, request, left);
                freed = freed.saturating_add(gave);
                // What it gave may be enough: then the others keep what they have.
                if gave != 0 && !matches!(self.drain_and(attempt), Again::Short) {
                    return false;
                }
            }
            if freed == 0 {
                break;
            }
        }
        true
    }

    /// What the first shrinker brings along, so that a program without one has none of it.
    #[cfg(not(feature = "small"))]
    const ROUND: &'static Round<P, B> = &(Self::ask_shrinkers as Round<P, B>);

    /// [`Memory::take_block`](crate::Memory::take_block), and everything the flags allow when it finds nothing.
    #[inline(always)]
    pub(crate) fn take_block(&self, pages: usize, flags: Gfp, kind: FrameKind, link: u32) -> Result<Pfn, AllocError> {
        match self.memory.take_block(pages, flags, kind, link) {
            Ok(pfn) => Ok(pfn),
            Err(error) => self.take_block_slow(Block { pages, flags, kind, link }, error, None),
        }
    }

    /// [`take_block`](Self::take_block) with a deadline of the caller's own.
    pub(crate) fn take_block_until(&self, block: Block, until: Duration) -> Result<Pfn, AllocError> {
        let Block { pages, flags, kind, link } = block;
        let first = self.memory.take_block(pages, flags, kind, link);
        first.or_else(|error| self.take_block_slow(block, error, Some(until)))
    }

    /// Everything the flags allow, for a block that was not to be had at once.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_block_slow(
        &self,
        block: Block,
        error: AllocError,
        until: Option<Duration>,
    ) -> Result<Pfn, AllocError> {
        let Block { pages, flags, kind, link } = block;
        let result = self.reclaim(flags, pages, error, || self.memory.take_block_now(pages, flags, kind, link));
        let result = result.or_else(|failed| match P::CAN_WAIT && failed.waits {
            true => {
                let until = until.unwrap_or_else(|| self.memory.default_deadline());
                let waited = self.memory.wait_for_block(block, until, failed.error, &|| self.tend());
                waited.or_else(|error| self.at_last(error, || self.memory.take_block_now(pages, flags, kind, link)))
            }
            false => Err(failed.error),
        });
        result.inspect_err(|&error| crate::trace::pages_failed(pages, flags, error))
    }
}
