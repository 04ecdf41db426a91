//! kfree: what an address names is found and checked before anything changes.

use super::STRAIGHT;
use crate::backend::Backend;
use crate::error::FreeError;
use crate::frame::{Frame, FrameKind, Head};
use crate::lock::Guard;
use crate::manager::Mm;
use crate::platform::{Platform, RawLock};
use crate::slab::{self, CacheState, ClassStates, Given, Slab, Store};
#[cfg(feature = "kmalloc-debug")]
use core::panic::Location;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Frees an object of `kmalloc` and its kin. Null is fine.
    ///
    /// Context: any. Cost: some twenty instructions; the last object of a slab may give its pages back.
    ///
    /// # Errors
    /// `DoubleFree`, `Interior`, `Foreign`, `Reserved`, `WrongAllocator`, `NotReady`; nothing was changed.
    #[inline]
    #[cfg_attr(feature = "kmalloc-debug", track_caller)]
    pub fn kfree(&self, ptr: *const u8) -> Result<(), FreeError> {
        self.freed_object(self.kfree_at(ptr.addr()), ptr)
    }

    #[inline(always)]
    #[cfg_attr(feature = "kmalloc-debug", track_caller)]
    fn kfree_at(&self, addr: usize) -> Result<(), FreeError> {
        if Self::KEEPS {
            return if self.give_own(addr) { Ok(()) } else { self.kfree_other(addr) };
        }
        if !STRAIGHT
            && !cfg!(feature = "kmalloc-debug")
            && let Some(frame) = self.memory.frames.frame_at(addr, B::PAGE_SHIFT)
            && let Some((state, _)) = self.open_class(frame)
        {
            // SAFETY: the frame names a live slab of this class, whose lock is held, for as long as its head says so;
            // a class has no room for a slot behind its last.
            match unsafe { slab::give(self.memory.meta_ptr(frame.link()), addr, None) } {
                Given::Inside => return Ok(()),
                Given::First(slab, w) => return self.kfree_first(addr, slab, w, state.suspend()),
                Given::Edge(slab, w) => {
                    self.kfree_listed(slab, w, state.suspend());
                    return Ok(());
                }
                // What is wrong is found out again, off this path.
                Given::Refused(_) => {}
            }
        }
        self.kfree_other(addr)
    }

    /// Locks the class of the slab that `frame` is of, if it is of one.
    #[inline(always)]
    fn open_class(&self, frame: &Frame) -> Option<(Guard<'_, P::Lock, CacheState>, Head)> {
        if P::Lock::EXCLUDES_ALL {
            // Any lock will do, so that the frame is read once, under it.
            let lock = P::Lock::NEW;
            let token = lock.acquire();
            let head = frame.head();
            if !head.is(FrameKind::Slab) {
                // SAFETY: of the section opened above.
                unsafe { lock.release(token) };
                return None;
            }
            // SAFETY: only slabs of classes are so marked; the section opened above excludes all others.
            return unsafe {
                let state = self.classes.get(head.class());
                // Where there is a slab, its class has a state.
                core::hint::assert_unchecked(state.is_some());
                state.map(|state| (state.resume(token), head))
            };
        }
        let seen = frame.head();
        if !seen.is(FrameKind::Slab) {
            return None;
        }
        // SAFETY: only slabs of classes are so marked.
        let state = unsafe { self.classes.get(seen.class()) }?.lock();
        // The slab may have gone, or become another's, before the lock was taken.
        (frame.head() == seen).then_some((state, seen))
    }

    /// A word that had no free slot got its first.
    #[inline(never)]
    fn kfree_first(
        &self,
        addr: usize,
        slab: *mut Slab,
        w: usize,
        token: <P::Lock as RawLock>::Token,
    ) -> Result<(), FreeError> {
        // SAFETY: the slab is live, and the lock of its class is held.
        let slabs = unsafe { self.locked_class(Slab::owner(slab)) };
        // SAFETY: the caller locked this state, and left its section to this function.
        let mut state = unsafe { slabs.state.resume(token) };
        if Store::<P, B>::OPENS && state.try_open(slab, w, addr) {
            return Ok(());
        }
        match Store::<P, B>::OPENS && state.is_full() {
            true => self.kfree_shown(slab, w, state.suspend()),
            false => self.kfree_listed(slab, w, state.suspend()),
        }
        Ok(())
    }

    /// As many words are open as there is room for.
    #[inline(never)]
    fn kfree_shown(&self, slab: *mut Slab, w: usize, token: <P::Lock as RawLock>::Token) {
        // SAFETY: as in `kfree_first`.
        let slabs = unsafe { self.locked_class(Slab::owner(slab)) };
        // SAFETY: as above.
        let mut state = unsafe { slabs.state.resume(token) };
        slabs.show_first(&mut state, slab, w);
    }

    /// The rest of [`Slabs::settle`].
    #[inline(never)]
    fn kfree_listed(&self, slab: *mut Slab, w: usize, token: <P::Lock as RawLock>::Token) {
        // SAFETY: as in `kfree_first`.
        let slabs = unsafe { self.locked_class(Slab::owner(slab)) };
        // SAFETY: as above.
        let mut state = unsafe { slabs.state.resume(token) };
        if slabs.show_listed(&mut state, slab, w) {
            self.kfree_last(state.suspend(), slab);
        }
    }

    /// A slab of a class may be wholly free, or somebody waits for an object.
    #[inline(never)]
    fn kfree_last(&self, token: <P::Lock as RawLock>::Token, slab: *mut Slab) {
        // SAFETY: as in `kfree_listed`, which left its section to this function.
        unsafe {
            let slabs = self.locked_class(Slab::owner(slab));
            slabs.settle_rest(slabs.state.resume(token), slab);
        }
    }

    /// Null, whole pages, objects outside the largest region, and everything wrong.
    #[cold]
    #[inline(never)]
    #[cfg_attr(feature = "kmalloc-debug", track_caller)]
    fn kfree_other(&self, addr: usize) -> Result<(), FreeError> {
        self.kfree_any(addr).inspect_err(|&error| crate::trace::free_refused("kfree", addr, error))
    }

    #[cfg_attr(feature = "kmalloc-debug", track_caller)]
    fn kfree_any(&self, addr: usize) -> Result<(), FreeError> {
        #[cfg(all(feature = "small", not(feature = "kmalloc-debug")))]
        if let Some((_, frame)) = self.memory.frames.find(self.memory.backend.direct_frame(addr))
            && let Some((state, _)) = self.open_class(frame)
        {
            let store = Store { memory: &self.memory, state: state.owner() };
            store.take_back(state.suspend(), self.memory.meta_ptr(frame.link()), addr).result().map(|_| ())
        } else {
            self.kfree_block(addr)
        }
        #[cfg(not(all(feature = "small", not(feature = "kmalloc-debug"))))]
        self.kfree_found(addr)
    }

    #[cfg(not(all(feature = "small", not(feature = "kmalloc-debug"))))]
    #[inline(always)]
    #[cfg_attr(feature = "kmalloc-debug", track_caller)]
    fn kfree_found(&self, addr: usize) -> Result<(), FreeError> {
        let Some((_, frame)) = self.memory.frames.find(self.memory.backend.direct_frame(addr)) else {
            return self.kfree_block(addr);
        };
        let seen = frame.head();
        let slabs = match seen.kind() {
            FrameKind::Slab => self.class(seen.class()),
            FrameKind::DmaSlab if !STRAIGHT => self.dma_class(seen.class()),
            _ => return self.kfree_block(addr),
        };
        let Some(slabs) = slabs else { return Err(FreeError::Reserved) };
        #[cfg(feature = "kmalloc-debug")]
        if let Some(guarded) = &slabs.hooks.guarded {
            return match slabs.give_guarded(guarded, addr) {
                Ok(None) => Ok(()),
                Ok(Some(spoilt)) => {
                    slabs.report(slab::KMALLOC, spoilt, Location::caller());
                    Ok(())
                }
                // It went back meanwhile.
                Err(FreeError::WrongAllocator | FreeError::WrongCache) => self.kfree_block(addr),
                Err(error) => Err(error),
            };
        }
        let state = slabs.state.lock();
        if frame.head() != seen {
            // It went back meanwhile.
            drop(state);
            return self.kfree_block(addr);
        }
        if seen.is(FrameKind::Slab)
            && let Some(result) = self.give_to_cpu(seen.class(), addr)
        {
            return result;
        }
        // SAFETY: the frame names a live slab of this cache, whose lock is held, for as long as its head says so; a
        // class has no room for a slot behind its last.
        match unsafe { slab::give(self.memory.meta_ptr(frame.link()), addr, None) } {
            Given::Inside => Ok(()),
            Given::First(slab, w) | Given::Edge(slab, w) => {
                slabs.settle(state, slab, w, addr);
                Ok(())
            }
            Given::Refused(error) => Err(error),
        }
    }

    fn kfree_block(&self, addr: usize) -> Result<(), FreeError> {
        if addr == 0 {
            return Ok(());
        }
        // No block has 0 pages, so that none goes back by an address inside its first page.
        let inside = addr & (B::PAGE_SIZE - 1) != 0;
        let pages = if inside { Some(0) } else { None };
        let error = match self.memory.free_block(self.memory.backend.direct_frame(addr), FrameKind::Large, pages) {
            Ok(_) => return Ok(()),
            Err(FreeError::WrongOrder) => return Err(FreeError::Interior),
            Err(error) => error,
        };
        let is_area = (inside || error == FreeError::Foreign) && self.any_area_holds(addr);
        Err(if is_area { FreeError::WrongAllocator } else { error })
    }
}
