//! Waiting for an element of a pool: whoever gives one back hands it to the oldest who waits.

use super::{ElementSource, Mempool, is_short};
use crate::error::AllocError;
use crate::gfp::Gfp;
use crate::global::Manager;
use crate::platform::Platform;
use crate::wait::queue::{Grant, Step, Wake, Want};
use crate::wait::{Ended, Objects, Place};
use crate::zone::ZoneKind;
use core::pin::pin;
use core::ptr::NonNull;
use core::time::Duration;

/// How often a wait asks the allocator anew, whose memory does not come by way of the pool.
const ATTEMPTS: u32 = 8;

/// Takes back an element that was handed to somebody who went without it.
struct Returned<'p, S: ElementSource<M>, M: Manager>(&'p Mempool<S, M>);

impl<S: ElementSource<M>, M: Manager> Objects for Returned<'_, S, M> {
    fn give(&self, element: NonNull<u8>) {
        self.0.put_back(element);
    }
}

impl<S: ElementSource<M>, M: Manager> Mempool<S, M> {
    /// What the queue knows this pool by.
    fn key(&self) -> usize {
        core::ptr::from_ref(&self.reserve).addr()
    }

    /// Hands what is in reserve to those who wait for an element of this pool, oldest first, and wakes them. No lock is
    /// held.
    pub(super) fn hand_over(&self) {
        let memory = &self.manager.mm().memory;
        if !memory.waiting.is_any() {
            return;
        }
        let search = Ended::new(memory);
        loop {
            // SAFETY: the search stays here, and ends when this function does.
            let step = unsafe { memory.offer_object(&search, self.key(), || self.reserve.lock().pop()) };
            match step {
                Step::Handed { wake, overdue } => memory.handed(wake, overdue),
                Step::More => {}
                Step::End(_) => return,
            }
        }
    }

    /// Puts an element back that is in nobody's hands: into the reserve if it is short, else to the allocator.
    fn put_back(&self, element: NonNull<u8>) {
        let mut reserve = self.reserve.lock();
        let kept = match reserve.find(element) {
            Err(place) if reserve.is_short() => {
                reserve.insert(place, element);
                true
            }
            _ => false,
        };
        drop(reserve);
        if kept {
            self.hand_over();
        } else {
            self.give(element);
        }
    }

    /// Waits until an element was given back or the allocator has one again, at most until `until`.
    ///
    /// # Errors
    /// `error`, or what the allocator said last, when time is up.
    #[cold]
    pub(super) fn wait(&self, flags: Gfp, until: Duration, mut error: AllocError) -> Result<NonNull<u8>, AllocError> {
        let (mm, platform) = (self.manager.mm(), self.manager.mm().platform());
        let start = platform.now();
        // Of no pages, so that only an element of the pool fits.
        let want = Want { pages: 0, kind: ZoneKind::Dma, depth: flags.depth(), cache: self.key() };
        let place = pin!(Place::new(&mm.memory, want, Returned(self)));
        let place = place.into_ref();
        for attempt in 1..=ATTEMPTS {
            place.join(Wake::Task(platform.current()));
            self.hand_over();
            let next = start + until.saturating_sub(start) / ATTEMPTS * attempt;
            let next = if attempt == ATTEMPTS { until } else { next };
            if let Some(Grant::Object(element)) = place.wait(next, &|| mm.tend()) {
                return Ok(self.zeroed(element, flags));
            }
            let at_once = flags.difference(Gfp::WAIT) | Gfp::NOWARN | Gfp::NORETRY;
            match self.source.alloc(self.manager, at_once) {
                Err(failed) if is_short(&Err(failed)) => error = failed,
                taken => return taken,
            }
        }
        Err(error)
    }
}
