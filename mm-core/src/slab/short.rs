//! A cache that has no object and gets no slab at once: reclaim, and waiting for an object or for a slab's pages.

use super::{CacheState, Given, Slabs, Store, give};
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::AllocError;
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::lock::Guard;
use crate::meta::NIL;
use crate::platform::{Platform, RawLock};
use crate::wait::queue::{Grant, Step, Wake};
use crate::wait::{Block, Ended, Objects, Patience, Place};
use core::pin::{Pin, pin};
use core::ptr::NonNull;
use core::time::Duration;

type State<'a, P> = Guard<'a, <P as Platform>::Lock, CacheState>;

impl<P: Platform, B: Backend> Clone for Slabs<'_, P, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform, B: Backend> Copy for Slabs<'_, P, B> {}

impl<P: Platform, B: Backend> Objects for Slabs<'_, P, B> {
    fn give(&self, object: NonNull<u8>) {
        let addr = object.addr().get();
        let Some((_, frame)) = self.memory.frames.find(self.memory.backend.direct_frame(addr)) else { return };
        let state = self.state.lock();
        // SAFETY: the object is live, since nobody has it but we, and so is its slab; its cache is locked.
        let given = unsafe { give(self.memory.meta_ptr(frame.link()), addr, None) };
        if let Given::First(slab, w) | Given::Edge(slab, w) = given {
            self.settle(state, slab, w, addr);
        }
    }
}

impl<'a, P: Platform, B: Backend> Slabs<'a, P, B> {
    /// Makes a slab, by any means the flags allow, and takes an object; one that others free meanwhile will do.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    #[cold]
    #[inline(never)]
    pub fn alloc_slab(&self, flags: Gfp, until: Option<Duration>) -> Result<NonNull<u8>, AllocError> {
        let result = self.grow_or_spare(flags).or_else(|error| match self.reclaim(flags, error) {
            Ok(object) => Ok(object),
            Err(failed) if P::CAN_WAIT && failed.waits => {
                let until = until.unwrap_or_else(|| self.memory.default_deadline());
                let again = || self.free_object().map_or_else(|| self.grow_or_spare(flags), Ok);
                self.wait(flags, until, failed.error).or_else(|error| self.mm.at_last(error, again))
            }
            Err(failed) => Err(failed.error),
        });
        result.inspect_err(|&error| crate::trace::pages_failed(self.geometry.pages as usize, flags, error))
    }

    fn reclaim(&self, flags: Gfp, error: AllocError) -> Result<NonNull<u8>, crate::reclaim::Failed> {
        self.mm.reclaim(flags, self.geometry.pages as usize + 1, error, || self.object_now(flags))
    }

    /// An object, of a new slab if there is none; without reclaim.
    pub fn object_now(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.free_object().map_or_else(|| self.grow_or_spare(flags), Ok)
    }

    /// An object without making a slab.
    pub fn free_object(&self) -> Option<NonNull<u8>> {
        self.any_object(&mut self.state.lock())
    }

    /// Takes an object, of a new slab if it must.
    ///
    /// # Errors
    /// Those of [`alloc_slab`](Self::alloc_slab).
    #[inline(always)]
    pub fn alloc(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        match self.free_object() {
            Some(object) => Ok(object),
            None => self.alloc_slab(flags, None),
        }
    }

    /// [`alloc`](Self::alloc) with a deadline of the caller's own.
    pub fn alloc_until(&self, flags: Gfp, until: Duration) -> Result<NonNull<u8>, AllocError> {
        match self.free_object() {
            Some(object) => Ok(object),
            None => self.alloc_slab(flags, Some(until)),
        }
    }

    /// [`alloc`](Self::alloc) that does not wait, whatever the flags.
    ///
    /// # Errors
    /// The error, and whether a request with these flags would wait now.
    pub fn alloc_now(&self, flags: Gfp) -> Result<NonNull<u8>, crate::reclaim::Failed> {
        match self.free_object() {
            Some(object) => Ok(object),
            None => self.grow_or_spare(flags).or_else(|error| self.reclaim(flags, error)),
        }
    }

    /// The pages of a slab, as they are waited for.
    fn slab_block(&self, flags: Gfp) -> Block {
        Block { pages: self.waited_pages(), flags: flags.difference(Gfp::ZERO), kind: FrameKind::Held, link: NIL }
    }

    /// A place in the queue for an object of this cache, or for a slab's pages.
    pub fn place(&self, flags: Gfp) -> Place<'a, P, B, Slabs<'a, P, B>> {
        Place::new(self.memory, self.slab_block(flags).want(self.key()), *self)
    }

    /// Serves the queue from this cache and from the zones. Called behind joining it.
    pub fn look(&self, flags: Gfp) {
        let mut state = self.state.lock();
        state.set_waited(true);
        self.serve(state);
        self.memory.look(self.slab_block(flags).flags);
    }

    /// Makes an object of what was handed over.
    pub fn accept(&self, grant: Grant, flags: Gfp, patience: Option<&Patience<'_>>) -> Result<NonNull<u8>, AllocError> {
        match grant {
            Grant::Object(object) => Ok(object),
            Grant::Block(pfn) => {
                let block = self.slab_block(flags);
                let pfn: Pfn = self.memory.accept(self.memory.sound_grant(pfn, &block)?, &block);
                self.make_waited(pfn, flags, patience)
            }
        }
    }

    /// Waits for an object or a slab's pages.
    fn wait(&self, flags: Gfp, until: Duration, error: AllocError) -> Result<NonNull<u8>, AllocError> {
        if !self.memory.could_serve(self.waited_pages(), flags) {
            return Err(error);
        }
        let place = pin!(self.place(flags));
        let place: Pin<&Place<'_, P, B, Slabs<'_, P, B>>> = place.into_ref();
        place.join(Wake::Task(self.memory.platform.current()));
        self.look(flags);
        if P::CPUS > 1 {
            // From now on no CPU keeps what is freed, and what they have comes here.
            self.mm.drain_cpus(P::MAX_POLLS / 1024);
        }
        let tend = &|| self.mm.tend();
        match place.wait(until, tend) {
            Some(grant) => self.accept(grant, flags, Some(&Patience { until, tend })),
            None => Err(error),
        }
    }
}

impl<'a, P: Platform, B: Backend> Store<'a, P, B> {
    /// What the queue knows this cache by.
    fn key(&self) -> usize {
        core::ptr::from_ref(self.state).addr()
    }

    /// [`serve`](Self::serve) if somebody waits.
    #[cfg(not(feature = "small"))]
    #[cold]
    #[inline(never)]
    pub(super) fn hand_over(&self, mut state: State<'a, P>) {
        match self.memory.servants() {
            // SAFETY: the section is left to it.
            Some(servants) => unsafe { (servants.cache)(*self, state.suspend()) },
            // Whoever queues up for this cache from now on says so behind it.
            None => {
                state.set_waited(false);
                self.served(state);
            }
        }
    }

    /// [`serve`](Self::serve) by a pointer to it: in a section that is left to it.
    ///
    /// # Safety
    /// The caller locked the cache, and ended no section since.
    pub(crate) unsafe fn serve_in(self, token: <P::Lock as RawLock>::Token) {
        // SAFETY: the caller's word.
        self.serve(unsafe { self.state.resume(token) });
    }

    /// Hands free objects to those who wait for one of this cache, oldest first, one a lock hold, and wakes them.
    pub(crate) fn serve(&self, mut state: State<'a, P>) {
        let search = Ended::new(self.memory);
        loop {
            let mut dry = false;
            let object = || {
                let object = self.any_object(&mut state);
                dry |= object.is_none();
                object
            };
            // SAFETY: the search stays here, and ends when this function does.
            let step = unsafe { self.memory.offer_object(&search, self.key(), object) };
            if dry {
                // Those who found none wait on.
                drop(state);
                return;
            }
            match step {
                Step::End(_) => {
                    state.set_waited(false);
                    self.served(state);
                    return;
                }
                Step::Handed { wake, overdue } => {
                    drop(state);
                    self.memory.handed(wake, overdue);
                }
                Step::More => drop(state),
            }
            state = self.state.lock();
        }
    }
}
