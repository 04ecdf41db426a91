//! What is done when a slab of several pages cannot be had: an object of a larger class, whose slabs are single pages.
//!
//! Linux makes smaller slabs of the same cache then (`oo_min`). Here a cache has slabs of one kind, so that a free finds
//! its slot with what is the same for all of them.

use super::Slabs;
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::AllocError;
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::memory::wipe;
use crate::platform::Platform;
use crate::wait::Patience;
use core::ptr::NonNull;

impl<'a, P: Platform, B: Backend> Slabs<'a, P, B> {
    /// An object of a new slab, or when memory is in pieces too small for one, of a larger class. No lock is held.
    ///
    /// # Errors
    /// As [`grow`](Self::grow).
    #[inline(always)]
    pub(super) fn grow_or_spare(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.grow(flags).or_else(|error| self.spare(flags).ok_or(error))
    }

    /// The class that stands in for this one when there are only single pages; `None` for those that need no other,
    /// and for caches that promise more than a size.
    fn stand_in(&self) -> Option<Self> {
        // Guards are laid out by class.
        if cfg!(feature = "kmalloc-debug") || self.kind != FrameKind::Slab || self.geometry.pages == 1 {
            return None;
        }
        self.mm.single_page_class(self.owner.into())
    }

    /// How many pages whoever waits for memory waits for.
    pub fn waited_pages(&self) -> usize {
        self.stand_in().as_ref().unwrap_or(self).geometry.pages.into()
    }

    /// Makes a slab of pages that were waited for, [`waited_pages`](Self::waited_pages) of them, and takes its first
    /// object.
    ///
    /// # Errors
    /// As [`make_slab`](Self::make_slab).
    pub(super) fn make_waited(
        &self,
        pfn: Pfn,
        flags: Gfp,
        patience: Option<&Patience<'_>>,
    ) -> Result<NonNull<u8>, AllocError> {
        match self.stand_in() {
            Some(spare) => spare.make_slab(pfn, flags, patience).map(|object| spare.zeroed(object)),
            None => self.make_slab(pfn, flags, patience),
        }
    }

    /// An object of this class in place of one of another: who asked that one for zeroes clears no more than its size.
    fn zeroed(&self, object: NonNull<u8>) -> NonNull<u8> {
        // SAFETY: the object is the caller's and as long as its class, a multiple of 8 as is its address.
        unsafe { wipe(object.as_ptr(), self.geometry.size as usize) };
        object
    }

    /// An object of a class that makes do with single pages.
    #[cold]
    #[inline(never)]
    fn spare(&self, flags: Gfp) -> Option<NonNull<u8>> {
        let spare = self.stand_in()?;
        // Only for want of a block: not when the request was refused for another reason.
        if self.mm.largest_block(flags).is_some_and(|order| 1 << order >= self.geometry.pages) {
            return None;
        }
        let object = spare.free_object().or_else(|| spare.grow(flags).ok())?;
        Some(spare.zeroed(object))
    }
}
