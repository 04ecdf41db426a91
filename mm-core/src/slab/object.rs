//! What is asked of a cache however its slabs are kept.

use super::{Slab, Slabs};
use crate::backend::Backend;
use crate::bits::{WORD_MASK, WORD_SHIFT};
use crate::error::AllocError;
use crate::frame::{Frame, Head};
use crate::gfp::Gfp;
use crate::platform::Platform;
use core::panic::Location;
use core::ptr::NonNull;

impl<P: Platform, B: Backend> Slabs<'_, P, B> {
    /// Bytes of an object that are its owner's.
    #[inline(always)]
    pub fn object_size(&self) -> usize {
        #[cfg(feature = "slab-debug")]
        if let Some(guarded) = &self.hooks.guarded {
            return guarded.object;
        }
        self.geometry.size as usize
    }

    /// An object of kmalloc's that was just taken; where objects are watched it, or another in its place.
    ///
    /// # Errors
    /// As [`alloc_slab`](Self::alloc_slab), when it was spoilt and there is no other.
    #[inline(always)]
    pub fn checked(
        &self,
        object: NonNull<u8>,
        flags: Gfp,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        #[cfg(feature = "kmalloc-debug")]
        return self.sound(super::KMALLOC, object, flags, caller);
        #[cfg(not(feature = "kmalloc-debug"))]
        {
            let _ = (flags, caller);
            Ok(object)
        }
    }

    /// True when `addr` is the start of an object in a caller's hands; `frame` is the record of its frame, and
    /// `seen` the head it was found with.
    ///
    /// Context: any. Cost: constant.
    pub fn is_live(&self, frame: &Frame, seen: Head, addr: usize) -> bool {
        let _state = self.state.lock();
        if frame.head() != seen {
            return false;
        }
        let offset = addr & (B::PAGE_SIZE - 1) | (seen.count() as usize) << B::PAGE_SHIFT;
        self.geometry.slot(offset).filter(|slot| *slot < self.geometry.slots as usize).is_some_and(|slot| {
            let word = Slab::words(self.slab(frame.link())).wrapping_add(slot >> WORD_SHIFT);
            // SAFETY: the frame names a live descriptor for as long as its head says so, the lock is held, and the
            // slot is one of the slab's.
            unsafe { *word & 1 << (slot & WORD_MASK) == 0 }
        })
    }

    /// Looks whether the frames of a slab that begins at `pfn` name its descriptor.
    pub(super) fn check_frames(&self, id: u32, pfn: u32) -> Result<(), (&'static str, usize)> {
        for i in 0..u32::from(self.geometry.marked) {
            let named =
                self.memory.frames.find(pfn as usize + i as usize).is_some_and(|(_, frame)| {
                    frame.link() == id && frame.head() == Head::new(self.kind, self.owner, i)
                });
            if !named {
                return Err(("a slab's frame does not name it", pfn as usize));
            }
        }
        Ok(())
    }
}
