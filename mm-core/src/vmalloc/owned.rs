//! RAII forms of areas.

use crate::addr::{Pfn, PhysAddr};
use crate::error::{AllocError, MmError};
use crate::global::Manager;
use crate::platform::{Bug, Platform};
use crate::prot::{CacheMode, Prot};
use crate::vmalloc::AreaOptions;
use core::panic::Location;
use core::ptr::NonNull;

/// An owned area of vmalloc memory, freed when dropped.
pub struct VmArea<M: Manager> {
    start: NonNull<u8>,
    size: usize,
    manager: M,
}

// SAFETY: the area is owned, and the manager is shared between threads.
unsafe impl<M: Manager + Send> Send for VmArea<M> {}
// SAFETY: shared references only read the address.
unsafe impl<M: Manager + Sync> Sync for VmArea<M> {}

impl<M: Manager> VmArea<M> {
    /// Allocates `size` bytes from `manager`.
    ///
    /// # Errors
    /// As [`Mm::vmalloc`](crate::Mm::vmalloc).
    #[track_caller]
    pub fn new_in(size: usize, manager: M) -> Result<Self, AllocError> {
        Ok(VmArea { start: manager.mm().vmalloc(size)?, size, manager })
    }

    /// [`new_in`](Self::new_in), zeroed.
    ///
    /// # Errors
    /// As [`Mm::vzalloc`](crate::Mm::vzalloc).
    #[track_caller]
    pub fn zeroed_in(size: usize, manager: M) -> Result<Self, AllocError> {
        Ok(VmArea { start: manager.mm().vzalloc(size)?, size, manager })
    }

    /// An area made as `options` say.
    ///
    /// # Errors
    /// As [`Mm::vmalloc_with`](crate::Mm::vmalloc_with).
    #[track_caller]
    pub fn with_options_in(size: usize, options: &AreaOptions, manager: M) -> Result<Self, AllocError> {
        Ok(VmArea { start: manager.mm().vmalloc_with(size, options)?, size, manager })
    }

    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes asked for.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.size
    }

    /// The frame behind byte `offset`.
    pub fn frame(&self, offset: usize) -> Option<Pfn> {
        if offset >= self.size {
            return None;
        }
        self.manager.mm().vmalloc_to_page(self.start.as_ptr().wrapping_add(offset))
    }

    /// Changes what the whole area allows, as [`Mm::set_memory`](crate::Mm::set_memory).
    ///
    /// # Errors
    /// As there.
    pub fn protect(&mut self, prot: Prot) -> Result<(), MmError> {
        let mm = self.manager.mm();
        mm.set_memory(self.start.as_ptr(), self.size.div_ceil(<M::Backend as crate::Backend>::PAGE_SIZE), prot)
    }

    /// Gives up ownership; `Mm::vfree` frees it.
    pub fn into_raw(self) -> NonNull<u8> {
        core::mem::ManuallyDrop::new(self).start
    }
}

impl<M: Manager> Drop for VmArea<M> {
    fn drop(&mut self) {
        let mm = self.manager.mm();
        if let Err(error) = mm.vfree(self.start.as_ptr()) {
            mm.platform().bug(&Bug::BadFree { addr: self.start.as_ptr().addr(), error });
        }
    }
}

/// An owned mapping of device registers, undone when dropped.
pub struct IoMapping<M: Manager> {
    start: NonNull<u8>,
    size: usize,
    manager: M,
}

// SAFETY: the mapping is owned, and the manager is shared between threads.
unsafe impl<M: Manager + Send> Send for IoMapping<M> {}
// SAFETY: shared references only read the address.
unsafe impl<M: Manager + Sync> Sync for IoMapping<M> {}

impl<M: Manager> IoMapping<M> {
    /// Maps `size` bytes at `phys` in a cache mode of the caller's choice.
    ///
    /// # Errors
    /// As [`Mm::ioremap`](crate::Mm::ioremap).
    #[track_caller]
    pub fn with_cache_in(phys: PhysAddr, size: usize, cache: CacheMode, manager: M) -> Result<Self, MmError> {
        let start = manager.mm().ioremap_at(phys, size, cache, Location::caller())?;
        Ok(IoMapping { start, size, manager })
    }

    /// Maps `size` bytes of device registers at `phys`, uncached.
    ///
    /// # Errors
    /// As [`Mm::ioremap`](crate::Mm::ioremap).
    #[track_caller]
    pub fn new_in(phys: PhysAddr, size: usize, manager: M) -> Result<Self, MmError> {
        Ok(IoMapping { start: manager.mm().ioremap(phys, size)?, size, manager })
    }

    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes asked for.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.size
    }
}

impl<M: Manager> Drop for IoMapping<M> {
    fn drop(&mut self) {
        let mm = self.manager.mm();
        if let Err(error) = mm.iounmap(self.start.as_ptr()) {
            mm.platform().bug(&Bug::BadFree { addr: self.start.as_ptr().addr(), error });
        }
    }
}
