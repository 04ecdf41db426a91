//! Allocations that say until when they wait.

use super::Block;
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::AllocError;
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::meta::NIL;
use crate::platform::Platform;
use core::panic::Location;
use core::ptr::NonNull;
use core::time::Duration;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// [`get_free_pages`](Self::get_free_pages), which waits until `until` at most, a time of [`Platform::now`]. A time
    /// that is over does not wait.
    ///
    /// # Errors
    /// As `get_free_pages`.
    #[track_caller]
    pub fn get_free_pages_deadline(
        &self,
        flags: Gfp,
        order: usize,
        until: Duration,
    ) -> Result<NonNull<u8>, AllocError> {
        let pfn = self.alloc_pages_deadline(flags.difference(Gfp::HIGHMEM), order, until)?;
        Ok(self.block_ptr(pfn))
    }

    /// [`alloc_pages`](Self::alloc_pages), which waits until `until` at most, a time of [`Platform::now`].
    ///
    /// # Errors
    /// As `alloc_pages`.
    #[track_caller]
    pub fn alloc_pages_deadline(&self, flags: Gfp, order: usize, until: Duration) -> Result<Pfn, AllocError> {
        if order > B::MAX_ORDER {
            return Err(AllocError::BadOrder);
        }
        let caller = Location::caller();
        let flags = self.memory.admit(flags, caller)?;
        let block = Block { pages: 1 << order, flags, kind: FrameKind::Pages, link: flags.bits() };
        self.made_frames(self.take_block_until(block, until), 1 << order, flags, caller)
    }

    /// [`kmalloc`](Self::kmalloc), which waits until `until` at most, a time of [`Platform::now`].
    ///
    /// # Errors
    /// As `kmalloc`.
    #[track_caller]
    pub fn kmalloc_deadline(&self, size: usize, flags: Gfp, until: Duration) -> Result<NonNull<u8>, AllocError> {
        let caller = Location::caller();
        let flags = self.memory.admit(flags, caller)?;
        self.made_object(self.kmalloc_until(size, flags, until, caller), size, flags, caller)
    }

    fn kmalloc_until(
        &self,
        size: usize,
        flags: Gfp,
        until: Duration,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        match self.kmalloc_place(size, flags)? {
            (flags, Some(class)) => {
                let slabs = self.class(class).ok_or(AllocError::NotReady)?;
                let object = slabs.checked(slabs.alloc_until(flags, until)?, flags, caller)?;
                if flags.contains(Gfp::ZERO) {
                    // SAFETY: the object is ours and as long as its class.
                    unsafe { object.write_bytes(0, slabs.object_size()) };
                }
                Ok(object)
            }
            (flags, None) => {
                let pages = size.div_ceil(B::PAGE_SIZE);
                let block = Block { pages, flags, kind: FrameKind::Large, link: NIL };
                Ok(self.block_ptr(self.take_block_until(block, until)?))
            }
        }
    }
}
