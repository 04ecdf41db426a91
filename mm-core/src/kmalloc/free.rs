//! kfree: what an address names is found and checked before anything changes.

use crate::backend::Backend;
use crate::error::FreeError;
#[cfg(all(feature = "small", not(feature = "kmalloc-debug")))]
use crate::error::PackedFree;
use crate::frame::{Frame, FrameKind, Head};
use crate::lock::Guard;
use crate::manager::Mm;
use crate::platform::{Platform, RawLock};
#[cfg(all(feature = "small", not(feature = "kmalloc-debug")))]
use crate::slab::Store;
use crate::slab::{CacheState, ClassStates};
#[cfg(any(not(feature = "small"), feature = "kmalloc-debug"))]
use crate::slab::{Given, give};
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
        #[cfg(not(feature = "small"))]
        if !cfg!(feature = "kmalloc-debug")
            && let Some(frame) = self.memory.frames.frame_at(addr, B::PAGE_SHIFT)
            && let Some((state, _)) = self.open_class(frame)
        {
            // SAFETY: the frame names a live slab of this class, whose lock is held, for as long as its head says so;
            // a class has no room for a slot behind its last.
            match unsafe { give(self.memory.meta_ptr(frame.link()), addr, None) } {
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
    #[cfg_attr(all(feature = "small", feature = "kmalloc-debug"), allow(dead_code))]
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

    /// Null, whole pages, objects outside the largest region, and everything wrong.
    #[cfg_attr(not(feature = "small"), cold, inline(never))]
    #[cfg_attr(feature = "small", inline)]
    #[cfg_attr(feature = "kmalloc-debug", track_caller)]
    fn kfree_other(&self, addr: usize) -> Result<(), FreeError> {
        self.kfree_any(addr).inspect_err(|&error| crate::trace::free_refused("kfree", addr, error))
    }

    #[cfg_attr(feature = "kmalloc-debug", track_caller)]
    fn kfree_any(&self, addr: usize) -> Result<(), FreeError> {
        #[cfg(all(feature = "small", not(feature = "kmalloc-debug")))]
        return self.kfree_packed(addr).result().map(drop);
        #[cfg(not(all(feature = "small", not(feature = "kmalloc-debug"))))]
        self.kfree_found(addr)
    }

    /// Every kfree where code is to be small: what it comes to stays as the functions it calls return it.
    #[cfg(all(feature = "small", not(feature = "kmalloc-debug")))]
    #[inline(never)]
    fn kfree_packed(&self, addr: usize) -> PackedFree {
        if let Some((_, frame)) = self.memory.frames.find(self.memory.backend.direct_frame(addr))
            && let Some(token) = self.lock_slab(frame)
        {
            let slab = self.memory.meta_ptr(frame.link());
            // SAFETY: the frame names a live slab of a class, whose lock is held, for as long as its head says so.
            return unsafe { Store::take_back(&self.memory, token, slab, addr) };
        }
        PackedFree::new(self.kfree_block(addr).map(|()| 0))
    }

    /// Locks the class of the slab that `frame` is of, if it is of one.
    #[cfg(all(feature = "small", not(feature = "kmalloc-debug")))]
    #[inline(always)]
    fn lock_slab(&self, frame: &Frame) -> Option<<P::Lock as RawLock>::Token> {
        if !P::Lock::EXCLUDES_ALL {
            return self.open_class(frame).map(|(state, _)| state.suspend());
        }
        // Any lock will do, and which class it is the slab says.
        let lock = P::Lock::NEW;
        let token = lock.acquire();
        if frame.head().is(FrameKind::Slab) {
            return Some(token);
        }
        // SAFETY: of the section opened above.
        unsafe { lock.release(token) };
        None
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
            FrameKind::DmaSlab if !cfg!(feature = "small") => self.dma_class(seen.class()),
            _ => return self.kfree_block(addr),
        };
        let Some(slabs) = slabs else { return Err(FreeError::Reserved) };
        #[cfg(feature = "kmalloc-debug")]
        if let Some(guarded) = &slabs.hooks.guarded {
            return match slabs.give_guarded(guarded, addr) {
                Ok(None) => Ok(()),
                Ok(Some(spoilt)) => {
                    slabs.report(crate::slab::KMALLOC, spoilt, Location::caller());
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
        match unsafe { give(self.memory.meta_ptr(frame.link()), addr, None) } {
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
