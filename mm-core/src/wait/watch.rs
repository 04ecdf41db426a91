//! Which frees of single pages look for waiters.
//!
//! A page that goes back to the word from which single pages come is done with after one comparison, which asks for that
//! word and for waiters at once: while somebody waits, a buddy is *watched*, and no word of it compares equal. So who
//! waits pays for being told, and a free that has nobody to tell pays nothing.
//!
//! A zone is watched before it is served on behalf of who came: what was given back before that is found then, and what
//! comes behind it is handed over. It stays so until the last place in the queue is gone, not only while the queue has
//! somebody in it: who was handed something may have to queue up again.

use super::Waiting;
use super::queue::{Queue, Waiter};
use crate::backend::Backend;
use crate::memory::Memory;
use crate::platform::{Platform, RawLock};

/// How many places queued up at least once and are not gone. Where code is to be small no buddy is watched, and none is
/// counted.
pub(super) struct Places {
    #[cfg(not(feature = "small"))]
    count: usize,
}

#[cfg(not(feature = "small"))]
impl Places {
    pub(super) const NONE: Places = Places { count: 0 };

    pub(super) fn add(&mut self, placed: bool) {
        self.count += usize::from(placed);
    }

    fn remove(&mut self, placed: bool) {
        self.count -= usize::from(placed);
    }

    fn is_any(&self) -> bool {
        self.count != 0
    }
}

#[cfg(feature = "small")]
impl Places {
    pub(super) const NONE: Places = Places {};

    pub(super) fn add(&mut self, _placed: bool) {}

    fn remove(&mut self, _placed: bool) {}

    fn is_any(&self) -> bool {
        true
    }
}

impl Queue {
    /// A place whose node is `node` goes: true when it was the last one that ever queued up.
    pub fn depart(&mut self, node: &Waiter) -> bool {
        // SAFETY: the node is live.
        let placed = unsafe { core::mem::replace(&mut self.inner(node).placed, false) };
        self.places.remove(placed);
        placed && !self.places.is_any()
    }
}

impl<L: RawLock> Waiting<L> {
    /// True while there is a place that ever queued up.
    pub fn is_placed(&self) -> bool {
        self.queue.lock().places.is_any()
    }
}

impl<P: Platform, B: Backend> Memory<P, B> {
    /// Watches the buddies of a zone. Where code is to be small every free looks for waiters.
    ///
    /// Cost: one lock hold for each run of RAM.
    pub(super) fn watch(&self, index: usize) {
        if cfg!(feature = "small") {
            return;
        }
        for region in self.frames.regions().iter().filter(|region| region.zone() == index) {
            let _zone = self.zones.zone(index).lock();
            // SAFETY: the zone's lock is held, and this is the only reference.
            unsafe { region.buddy() }.watch();
        }
    }

    /// Watches no buddy any more, unless somebody came meanwhile: he does so behind queueing up, under the same locks.
    ///
    /// Cost: as for [`watch`](Self::watch), of every zone.
    #[cold]
    pub(super) fn unwatch(&self) {
        if cfg!(feature = "small") {
            return;
        }
        for region in self.frames.regions() {
            let _zone = self.zones.zone(region.zone()).lock();
            if !self.waiting.is_placed() {
                // SAFETY: the zone's lock is held, and this is the only reference.
                unsafe { region.buddy() }.unwatch();
            }
        }
    }
}
