//! Blocks of any number of pages.

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::debug::ON_ALLOC;
use crate::error::{AllocError, FreeError};
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::Platform;
use core::panic::Location;
use core::ptr::NonNull;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Allocates exactly the pages that hold `size` bytes, as Linux's `alloc_pages_exact`: the tail of the power of
    /// two stays free. Aligned to the next power of two.
    ///
    /// Context and cost: as `get_free_pages`.
    ///
    /// # Errors
    /// `ZeroSize`, `TooBig`, and as `get_free_pages`.
    #[inline]
    #[track_caller]
    pub fn alloc_pages_exact(&self, size: usize, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let (caller, pages) = (Location::caller(), size.div_ceil(B::PAGE_SIZE));
        let made = if pages.wrapping_sub(1) < 1 << B::MAX_ORDER {
            self.block_of_pages(flags.union(ON_ALLOC), pages, caller).result()
        } else {
            let refused = if pages == 0 { AllocError::ZeroSize } else { AllocError::TooBig };
            Err(self.memory.admit(flags, caller).err().unwrap_or(refused))
        };
        self.made_pages(made, pages, flags, caller)
    }

    /// Frees what [`alloc_pages_exact`](Self::alloc_pages_exact) gave for the same size. Null is fine.
    ///
    /// # Errors
    /// As [`free_pages`](Self::free_pages); `WrongOrder` when `size` is another number of pages.
    #[inline]
    pub fn free_pages_exact(&self, addr: *const u8, size: usize) -> Result<(), FreeError> {
        let pages = size.div_ceil(B::PAGE_SIZE);
        self.freed_pages(self.free_page_block(addr.addr(), pages), addr, pages)
    }

    /// [`alloc_pages_exact`](Self::alloc_pages_exact) by frame: with `HIGHMEM` in the flags the frames may have no
    /// kernel address.
    ///
    /// # Errors
    /// As `alloc_pages_exact`.
    #[inline]
    #[track_caller]
    pub fn alloc_pages_exact_frame(&self, size: usize, flags: Gfp) -> Result<Pfn, AllocError> {
        let (caller, pages) = (Location::caller(), size.div_ceil(B::PAGE_SIZE));
        let flags = self.memory.admit(flags, caller)?;
        let made = self.take_block(pages, flags, FrameKind::Pages, flags.bits());
        self.made_frames(made, pages, flags, caller)
    }

    /// Frees what [`alloc_pages_exact_frame`](Self::alloc_pages_exact_frame) gave for the same size.
    ///
    /// # Errors
    /// As [`free_pages_frame`](Self::free_pages_frame); `WrongOrder` when `size` is another number of pages.
    #[inline]
    pub fn free_pages_exact_frame(&self, pfn: Pfn, size: usize) -> Result<(), FreeError> {
        let pages = size.div_ceil(B::PAGE_SIZE);
        self.freed_frames(self.free_frames(pfn.0 as usize, pages), pfn, pages)
    }
}
