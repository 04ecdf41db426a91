//! Kernel addresses for frames that have none: `kmap`, and the RAII form.

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::{AllocError, FreeError};
use crate::global::Manager;
use crate::manager::Mm;
use crate::platform::{Bug, Platform};
use crate::vmalloc::AreaFamily;
use core::ptr::NonNull;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Gives the frame `pfn` a kernel address, as Linux's `kmap`: one page, to be read and written.
    ///
    /// A frame that has an address gets that one, and nothing is taken. A HIGHMEM frame is mapped in a slot of a window
    /// of fixed size (504 slots on i586), which is its own until [`kunmap`](Self::kunmap): two calls for one frame give
    /// two addresses. Slots are shared by all contexts and CPUs, may be given back in any order and by anybody, and are
    /// flushed before they are used again. Unlike Linux's, the call never waits for one. The frame is not kept from
    /// being freed meanwhile: that is its owner's affair.
    ///
    /// Context: any. Cost: constant; one lock, held while a bitmap of the slots is searched and one entry written.
    ///
    /// # Errors
    /// `NoAddressSpace` when all slots are taken, `BadFrame` for a frame number that is no RAM of this manager,
    /// `NotReady`.
    pub fn kmap(&self, pfn: Pfn) -> Result<NonNull<u8>, AllocError> {
        if !self.memory.is_ready() {
            return Err(AllocError::NotReady);
        }
        if self.memory.frames.frame(pfn).is_none() {
            return Err(AllocError::BadFrame);
        }
        if (u64::from(pfn.0) << B::PAGE_SHIFT) >= self.memory.backend.lowmem_end() {
            return self.areas.kmap(&self.memory, pfn);
        }
        // SAFETY: RAM with a kernel address; frame 0, whose address may be null, is RAM that was never given out.
        unsafe { Ok(NonNull::new_unchecked(self.memory.frame_ptr(pfn))) }
    }

    /// Takes back an address of [`kmap`](Self::kmap). Null is fine.
    ///
    /// For the address a frame has anyway there is nothing to undo: the call only checks that it is one. The slot of a
    /// HIGHMEM frame is unmapped, and flushed when this returns.
    ///
    /// Context: any. Cost: as `kmap`, and the flush of one page.
    ///
    /// # Errors
    /// `DoubleFree` for a slot with nothing in it, `Misaligned` for an address inside a page, `WrongAllocator` for a
    /// vmalloc area, `Foreign`, `NotReady`; nothing was changed.
    pub fn kunmap(&self, addr: *const u8) -> Result<(), FreeError> {
        let addr = addr.addr();
        if addr == 0 {
            return Ok(());
        }
        if !self.memory.is_ready() {
            return Err(FreeError::NotReady);
        }
        let aligned = if addr & (B::PAGE_SIZE - 1) == 0 { Ok(()) } else { Err(FreeError::Misaligned) };
        if self.memory.frames.find(self.memory.backend.direct_frame(addr)).is_some() {
            return aligned;
        }
        if self.areas_hold(addr) {
            return Err(FreeError::WrongAllocator);
        }
        self.areas.kunmap(&self.memory, addr)
    }
}

/// A frame with a kernel address, until this is dropped.
///
/// ```no_run
/// # use mm_core::{AllocError, GFP_HIGHUSER, KMap, Manager};
/// # fn example(mm: impl Manager) -> Result<(), AllocError> {
/// let frame = mm.mm().alloc_page(GFP_HIGHUSER)?; // perhaps without an address
/// let mapped = KMap::new_in(frame, mm)?;
/// // SAFETY: one page, ours.
/// unsafe { mapped.as_ptr().write_bytes(0, mapped.len()) };
/// # Ok(())
/// # }
/// ```
pub struct KMap<M: Manager> {
    start: NonNull<u8>,
    pfn: Pfn,
    manager: M,
}

// SAFETY: slots belong to no CPU or context, and the manager is shared between threads.
unsafe impl<M: Manager + Send> Send for KMap<M> {}
// SAFETY: shared references only read the address.
unsafe impl<M: Manager + Sync> Sync for KMap<M> {}

impl<M: Manager> KMap<M> {
    /// Maps the frame `pfn` of `manager`.
    ///
    /// # Errors
    /// As [`Mm::kmap`].
    pub fn new_in(pfn: Pfn, manager: M) -> Result<Self, AllocError> {
        let start = manager.mm().kmap(pfn)?;
        Ok(KMap { start, pfn, manager })
    }

    /// The first byte of the page.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The frame.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// Length in bytes: a page.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        M::Backend::PAGE_SIZE
    }

    /// Gives up ownership; [`Mm::kunmap`] takes the address back.
    pub fn into_raw(self) -> NonNull<u8> {
        core::mem::ManuallyDrop::new(self).start
    }
}

impl<M: Manager> Drop for KMap<M> {
    fn drop(&mut self) {
        let mm = self.manager.mm();
        if let Err(error) = mm.kunmap(self.start.as_ptr()) {
            mm.platform().bug(&Bug::BadFree { addr: self.start.as_ptr().addr(), error });
        }
    }
}
