//! Whole pages: get_free_pages and its kin, and the RAII form.

use crate::backend::Backend;
use crate::error::{AllocError, FreeError};
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::global::Manager;
use crate::manager::Mm;
use crate::meta::NIL;
use crate::platform::{Bug, Platform};
use core::panic::Location;
use core::ptr::NonNull;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Allocates `1 << order` contiguous pages, aligned to their size, as Linux's `__get_free_pages`.
    ///
    /// The memory always has a kernel address: `HIGHMEM` in the flags is ignored. It is not zeroed unless the flags
    /// hold `ZERO`.
    ///
    /// Context: any; a task when the flags hold `WAIT`. Cost: a few instructions for one page, O(levels) for more.
    ///
    /// # Errors
    /// `BadOrder` above the backend's largest order, `BadFlags`, `NoMemory`, `NoContig` (there is as much free memory,
    /// but no run of it), `NotReady`.
    #[inline]
    #[track_caller]
    pub fn get_free_pages(&self, flags: Gfp, order: usize) -> Result<NonNull<u8>, AllocError> {
        if order > B::MAX_ORDER {
            return Err(AllocError::BadOrder);
        }
        let flags = self.memory.admit(flags, Location::caller())?.difference(Gfp::HIGHMEM);
        let pfn = self.memory.take_block(1 << order, flags, FrameKind::Pages, NIL)?;
        Ok(self.block_ptr(pfn))
    }

    /// One page; [`get_free_pages`](Self::get_free_pages) of order 0.
    ///
    /// # Errors
    /// As `get_free_pages`.
    #[inline]
    #[track_caller]
    pub fn get_free_page(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.get_free_pages(flags, 0)
    }

    /// One page of zeroes.
    ///
    /// # Errors
    /// As `get_free_pages`.
    #[inline]
    #[track_caller]
    pub fn get_zeroed_page(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.get_free_pages(flags | Gfp::ZERO, 0)
    }

    /// Frees pages of [`get_free_pages`](Self::get_free_pages) of the same order. Null is fine.
    ///
    /// Context: any. Cost: as `get_free_pages`.
    ///
    /// # Errors
    /// `DoubleFree`, `Interior` (a later page of a block), `WrongOrder`, `Misaligned`, `Foreign`, `Reserved`,
    /// `WrongAllocator`, `NotReady`; nothing was changed.
    #[inline]
    pub fn free_pages(&self, addr: *const u8, order: usize) -> Result<(), FreeError> {
        // An order no block can have matches none: the count 0 is no block's.
        let pages = if order > B::MAX_ORDER { 0 } else { 1 << order };
        self.free_page_block(addr.addr(), pages)
    }

    /// Frees one page.
    ///
    /// # Errors
    /// As [`free_pages`](Self::free_pages).
    #[inline]
    pub fn free_page(&self, addr: *const u8) -> Result<(), FreeError> {
        self.free_pages(addr, 0)
    }

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
        let flags = self.memory.admit(flags, Location::caller())?.difference(Gfp::HIGHMEM);
        let pfn = self.memory.take_block(size.div_ceil(B::PAGE_SIZE), flags, FrameKind::Pages, NIL)?;
        Ok(self.block_ptr(pfn))
    }

    /// Frees what [`alloc_pages_exact`](Self::alloc_pages_exact) gave for the same size. Null is fine.
    ///
    /// # Errors
    /// As [`free_pages`](Self::free_pages); `WrongOrder` when `size` is another number of pages.
    #[inline]
    pub fn free_pages_exact(&self, addr: *const u8, size: usize) -> Result<(), FreeError> {
        self.free_page_block(addr.addr(), size.div_ceil(B::PAGE_SIZE))
    }

    #[inline(always)]
    fn free_page_block(&self, addr: usize, pages: usize) -> Result<(), FreeError> {
        if addr & (B::PAGE_SIZE - 1) != 0 || addr == 0 {
            return if addr == 0 { Ok(()) } else { Err(self.misaligned(addr)) };
        }
        let pfn = self.memory.backend.direct_frame(addr);
        match self.memory.free_block(pfn, FrameKind::Pages, Some(pages)) {
            Ok(_) => Ok(()),
            Err(FreeError::Foreign) if self.areas_hold(addr) => Err(FreeError::WrongAllocator),
            Err(error) => Err(error),
        }
    }

    #[cold]
    fn misaligned(&self, addr: usize) -> FreeError {
        match self.memory.frames.find(self.memory.backend.direct_frame(addr)) {
            Some(_) => FreeError::Misaligned,
            None => self.memory.foreign(),
        }
    }
}

/// A block of pages that frees itself.
pub struct Pages<M: Manager> {
    start: NonNull<u8>,
    order: usize,
    manager: M,
}

// SAFETY: the block is owned, and the manager is shared between threads.
unsafe impl<M: Manager + Send> Send for Pages<M> {}
// SAFETY: shared references only read the address.
unsafe impl<M: Manager + Sync> Sync for Pages<M> {}

impl<M: Manager> Pages<M> {
    /// Allocates `1 << order` pages from `manager`.
    ///
    /// # Errors
    /// As [`Mm::get_free_pages`].
    #[track_caller]
    pub fn new_in(flags: Gfp, order: usize, manager: M) -> Result<Self, AllocError> {
        let start = manager.mm().get_free_pages(flags, order)?;
        Ok(Pages { start, order, manager })
    }

    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The order it was allocated with.
    pub fn order(&self) -> usize {
        self.order
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        M::Backend::PAGE_SIZE << self.order
    }

    /// Gives up ownership; `Mm::free_pages` with [`order`](Self::order) frees it.
    pub fn into_raw(self) -> NonNull<u8> {
        core::mem::ManuallyDrop::new(self).start
    }
}

impl<M: Manager> Drop for Pages<M> {
    fn drop(&mut self) {
        let mm = self.manager.mm();
        if let Err(error) = mm.free_pages(self.start.as_ptr(), self.order) {
            mm.platform().bug(&Bug::BadFree { addr: self.start.as_ptr().addr(), error });
        }
    }
}
