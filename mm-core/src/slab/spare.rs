//! What is done when a slab of several pages cannot be had: an object of a larger class, whose slabs are single pages.
//!
//! Linux makes smaller slabs of the same cache then (`oo_min`). Here a cache has slabs of one kind, so that a free finds
//! its slot with what is the same for all of them.

use super::Slabs;
use crate::backend::Backend;
use crate::error::AllocError;
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::memory::wipe;
use crate::platform::Platform;
use core::ptr::NonNull;

impl<P: Platform, B: Backend> Slabs<'_, P, B> {
    /// An object of a new slab, or when memory is in pieces too small for one, of a larger class. No lock is held.
    ///
    /// # Errors
    /// As [`grow`](Self::grow).
    #[inline(always)]
    pub(super) fn grow_or_spare(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.grow(flags).or_else(|error| self.spare(flags).ok_or(error))
    }

    /// An object of a class that makes do with single pages, zeroed: who asked for zeroes will clear no more than
    /// an object of its own class.
    #[cold]
    #[inline(never)]
    fn spare(&self, flags: Gfp) -> Option<NonNull<u8>> {
        // Caches of their own promise a size and a constructor; guards are laid out by class.
        let pages = self.geometry.pages as usize;
        if cfg!(feature = "kmalloc-debug") || self.kind != FrameKind::Slab || pages == 1 {
            return None;
        }
        // Only for want of a block: not when the request was refused for another reason.
        if self.mm.largest_block(flags).is_some_and(|order| 1 << order >= pages) {
            return None;
        }
        let spare = self.mm.single_page_class(self.owner.into())?;
        let object = spare.free_object().or_else(|| spare.grow(flags).ok())?;
        // SAFETY: the object is ours and as long as its class, a multiple of 8 as is its address.
        unsafe { wipe(object.as_ptr(), spare.geometry.size as usize) };
        Some(object)
    }
}
