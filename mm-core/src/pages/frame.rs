//! Pages by frame number, which may have no kernel address, and the two ways between a frame and its address.

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::{AllocError, FreeError};
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::Platform;
use core::panic::Location;
use core::ptr::NonNull;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Allocates `1 << order` contiguous frames, aligned to their size, as Linux's `alloc_pages`.
    ///
    /// With `HIGHMEM` in the flags the frames may have no kernel address: [`page_address`](Self::page_address) tells,
    /// and [`Backend::with_frame`] reaches them all the same. They are not zeroed unless the flags hold `ZERO`.
    ///
    /// ```
    /// use mm_core::{GFP_KERNEL, Gfp, Manager, MmError};
    ///
    /// fn two_frames(mm: impl Manager) -> Result<(), MmError> {
    ///     let mm = mm.mm();
    ///     let first = mm.alloc_pages(GFP_KERNEL | Gfp::HIGHMEM, 1)?;
    ///     if let Some(at) = mm.page_address(first) {
    ///         assert_eq!(mm.pfn_of(at.as_ptr()), Some(first));
    ///     }
    ///     mm.free_pages_frame(first, 1)?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// Context: any; a task when the flags hold `WAIT`. Cost: as [`get_free_pages`](Self::get_free_pages).
    ///
    /// # Errors
    /// As `get_free_pages`.
    #[inline]
    #[track_caller]
    pub fn alloc_pages(&self, flags: Gfp, order: usize) -> Result<Pfn, AllocError> {
        if order > B::MAX_ORDER {
            return Err(AllocError::BadOrder);
        }
        let caller = Location::caller();
        let flags = self.memory.admit(flags, caller)?;
        let made = self.take_block(1 << order, flags, FrameKind::Pages, flags.bits());
        self.made_frames(made, 1 << order, flags, caller)
    }

    /// One frame; [`alloc_pages`](Self::alloc_pages) of order 0.
    ///
    /// # Errors
    /// As `alloc_pages`.
    #[inline]
    #[track_caller]
    pub fn alloc_page(&self, flags: Gfp) -> Result<Pfn, AllocError> {
        self.alloc_pages(flags, 0)
    }

    /// Frees a block by its first frame: of [`alloc_pages`](Self::alloc_pages), or of
    /// [`get_free_pages`](Self::get_free_pages), with the order it was allocated with.
    ///
    /// Context: any. Cost: as `alloc_pages`.
    ///
    /// # Errors
    /// `DoubleFree`, `Interior` (a later frame of a block), `WrongOrder`, `Foreign`, `Reserved`, `WrongAllocator`,
    /// `NotReady`; nothing was changed.
    #[inline]
    #[doc(alias = "__free_pages")]
    pub fn free_pages_frame(&self, pfn: Pfn, order: usize) -> Result<(), FreeError> {
        // An order no block can have matches none: the count 0 is no block's.
        let pages = if order > B::MAX_ORDER { 0 } else { 1 << order };
        self.freed_frames(self.free_frames(pfn.0 as usize, pages), pfn, pages)
    }

    /// The kernel address of a frame of RAM, in use or not; `None` for HIGHMEM, and for what is no RAM of this manager.
    ///
    /// Context: any. Cost: constant.
    #[inline]
    #[doc(alias = "page_to_virt")]
    pub fn page_address(&self, pfn: Pfn) -> Option<NonNull<u8>> {
        self.memory.frames.frame(pfn)?;
        if pfn.phys(B::PAGE_SHIFT).0 >= self.memory.backend.lowmem_end() {
            return None;
        }
        NonNull::new(self.memory.frame_ptr(pfn))
    }

    /// The frame a kernel address of the direct map lies in; `None` for any other address. What vmalloc mapped is asked
    /// of [`vmalloc_to_page`](Self::vmalloc_to_page).
    ///
    /// Context: any. Cost: constant.
    #[inline]
    #[doc(alias = "virt_to_page")]
    pub fn pfn_of(&self, ptr: *const u8) -> Option<Pfn> {
        let pfn = self.memory.backend.direct_frame(ptr.addr());
        self.memory.frames.find(pfn).map(|_| Pfn(pfn as u32))
    }
}
