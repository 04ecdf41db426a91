//! The RAII forms: `Pages` by address, `Frames` by frame number.

use crate::addr::{PageRange, Pfn};
use crate::backend::Backend;
use crate::bits::order_for;
use crate::error::AllocError;
use crate::gfp::Gfp;
use crate::global::Manager;
use crate::platform::{Bug, Platform};
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

/// A block of pages with a kernel address, which frees itself.
pub struct Pages<M: Manager> {
    start: NonNull<u8>,
    pages: usize,
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
    /// As [`Mm::get_free_pages`](crate::Mm::get_free_pages).
    #[track_caller]
    pub fn new_in(flags: Gfp, order: usize, manager: M) -> Result<Self, AllocError> {
        let start = manager.mm().get_free_pages(flags, order)?;
        Ok(Pages { start, pages: 1 << order, manager })
    }

    /// Allocates exactly the pages that hold `size` bytes.
    ///
    /// # Errors
    /// As [`Mm::alloc_pages_exact`](crate::Mm::alloc_pages_exact).
    #[track_caller]
    pub fn exact_in(size: usize, flags: Gfp, manager: M) -> Result<Self, AllocError> {
        let start = manager.mm().alloc_pages_exact(size, flags)?;
        Ok(Pages { start, pages: size.div_ceil(M::Backend::PAGE_SIZE), manager })
    }

    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The first frame.
    pub fn frame(&self) -> Pfn {
        Pfn(self.manager.mm().backend().direct_frame(self.start.as_ptr().addr()) as u32)
    }

    /// The order of the smallest power of two that holds the block: the one it was allocated with, if it was with one.
    pub fn order(&self) -> usize {
        order_for(self.pages)
    }

    /// Length in bytes: whole pages.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.pages << M::Backend::PAGE_SHIFT
    }

    /// Gives up ownership. `Mm::free_pages_exact` with [`len`](Self::len) frees it, or `Mm::free_pages` with
    /// [`order`](Self::order) when it was allocated with one.
    pub fn into_raw(self) -> NonNull<u8> {
        ManuallyDrop::new(self).start
    }
}

impl<M: Manager> Drop for Pages<M> {
    fn drop(&mut self) {
        let (mm, addr) = (self.manager.mm(), self.start.as_ptr());
        if let Err(error) = mm.free_pages_exact(addr, self.len()) {
            mm.platform().bug(&Bug::BadFree { addr: addr.addr(), error });
        }
    }
}

/// A block of frames, perhaps without a kernel address, which frees itself.
///
/// ```
/// use mm_core::{AllocError, Frames, GFP_HIGHUSER, Manager};
///
/// fn a_frame_of_ones(mm: impl Manager) -> Result<(), AllocError> {
///     let frames = Frames::new_in(GFP_HIGHUSER, 0, mm)?;
///     // SAFETY: one page is written.
///     frames.with_frame(0, |page| unsafe { page.write(1) });
///     Ok(()) // freed here
/// }
/// ```
pub struct Frames<M: Manager> {
    range: PageRange,
    manager: M,
}

impl<M: Manager> Frames<M> {
    /// Allocates `1 << order` frames from `manager`.
    ///
    /// # Errors
    /// As [`Mm::alloc_pages`](crate::Mm::alloc_pages).
    #[track_caller]
    pub fn new_in(flags: Gfp, order: usize, manager: M) -> Result<Self, AllocError> {
        let start = manager.mm().alloc_pages(flags, order)?;
        Ok(Frames { range: PageRange { start, count: 1 << order }, manager })
    }

    /// Allocates exactly the frames that hold `size` bytes.
    ///
    /// # Errors
    /// As [`Mm::alloc_pages_exact_frame`](crate::Mm::alloc_pages_exact_frame).
    #[track_caller]
    pub fn exact_in(size: usize, flags: Gfp, manager: M) -> Result<Self, AllocError> {
        let start = manager.mm().alloc_pages_exact_frame(size, flags)?;
        Ok(Frames { range: PageRange { start, count: size.div_ceil(M::Backend::PAGE_SIZE) as u32 }, manager })
    }

    /// The frames.
    pub fn range(&self) -> PageRange {
        self.range
    }

    /// The kernel address of the first byte; `None` for HIGHMEM. A block is wholly HIGHMEM or not at all.
    pub fn address(&self) -> Option<NonNull<u8>> {
        self.manager.mm().page_address(self.range.start)
    }

    /// Runs `f` with a pointer to the frame at `index`, good for one page until `f` returns; `None`, without calling
    /// it, past the last, and for a HIGHMEM frame inside six other calls.
    pub fn with_frame<R>(&self, index: u32, f: impl FnOnce(*mut u8) -> R) -> Option<R> {
        if index >= self.range.count {
            return None;
        }
        // SAFETY: a frame of a block the manager handed out.
        unsafe { self.manager.mm().backend().try_with_frame(Pfn(self.range.start.0 + index), f) }
    }

    /// Gives up ownership; `Mm::free_pages_exact_frame` with as many pages frees it.
    pub fn into_raw(self) -> PageRange {
        ManuallyDrop::new(self).range
    }
}

impl<M: Manager> Drop for Frames<M> {
    fn drop(&mut self) {
        let (mm, start) = (self.manager.mm(), self.range.start);
        let bytes = (self.range.count as usize) << M::Backend::PAGE_SHIFT;
        if let Err(error) = mm.free_pages_exact_frame(start, bytes) {
            let addr = start.phys(M::Backend::PAGE_SHIFT).0 as usize;
            mm.platform().bug(&Bug::BadFree { addr, error });
        }
    }
}
