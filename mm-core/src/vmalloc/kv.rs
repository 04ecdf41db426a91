//! `kvmalloc`: contiguous memory when it is to be had, an area when not.

use super::AreaOptions;
use crate::backend::Backend;
use crate::error::{AllocError, FreeError};
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::Platform;
use core::panic::Location;
use core::ptr::NonNull;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Allocates `size` bytes by `kmalloc`, or by `vmalloc` when that has no block, as Linux's `kvmalloc`.
    ///
    /// It never falls back for a page or less, nor for flags without `WAIT`, since `vmalloc` is for tasks. The first
    /// try neither waits nor reports when there is a second.
    ///
    /// Context: any; a task when the flags hold `WAIT`. Cost: as the call that served it.
    ///
    /// # Errors
    /// As `kmalloc`, or `vmalloc` when it was tried.
    #[track_caller]
    pub fn kvmalloc(&self, size: usize, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.kvmalloc_at(size, flags, Location::caller())
    }

    /// [`kvmalloc`](Self::kvmalloc), zeroed.
    ///
    /// # Errors
    /// As `kvmalloc`.
    #[track_caller]
    pub fn kvzalloc(&self, size: usize, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.kvmalloc_at(size, flags | Gfp::ZERO, Location::caller())
    }

    /// A zeroed array of `n` elements of `size` bytes by [`kvmalloc`](Self::kvmalloc).
    ///
    /// # Errors
    /// `TooBig` when the product overflows; else as `kvmalloc`.
    #[track_caller]
    pub fn kvcalloc(&self, n: usize, size: usize, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let size = n.checked_mul(size).ok_or(AllocError::TooBig)?;
        self.kvmalloc_at(size, flags | Gfp::ZERO, Location::caller())
    }

    fn kvmalloc_at(
        &self,
        size: usize,
        flags: Gfp,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        if size <= B::PAGE_SIZE || !flags.contains(Gfp::WAIT) {
            return self.made_object(self.kmalloc_other(size, flags, caller), size, flags, caller);
        }
        match self.kmalloc_other(size, flags.difference(Gfp::WAIT) | Gfp::NOWARN, caller) {
            Err(AllocError::NoMemory | AllocError::NoContig | AllocError::TooBig) => {
                // An area may be of any memory, unless the flags say which.
                let any = if flags.intersects(Gfp::DMA | Gfp::DMA32) { flags } else { flags | Gfp::HIGHMEM };
                self.vmalloc_at(size, &AreaOptions::new().flags(any), caller)
            }
            result => self.made_object(result, size, flags, caller),
        }
    }

    /// Frees memory of [`kvmalloc`](Self::kvmalloc), of `kmalloc` or of `vmalloc`. Null is fine.
    ///
    /// Context and cost: as `kfree` or [`vfree`](Self::vfree).
    ///
    /// # Errors
    /// As `kfree` or `vfree`; nothing was changed.
    pub fn kvfree(&self, addr: *const u8) -> Result<(), FreeError> {
        if self.is_vmalloc_addr(addr) { self.vfree(addr) } else { self.kfree(addr) }
    }
}
