//! Arrays and copies in kmalloc memory, and memory that is wiped before it is freed.

use crate::backend::Backend;
use crate::error::{AllocError, FreeError};
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::Platform;
use core::ffi::CStr;
use core::ptr::NonNull;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// An array of `n` elements of `size` bytes, as Linux's `kmalloc_array`: [`kcalloc`](Self::kcalloc) without the
    /// zeroes.
    ///
    /// Context and cost: as [`kmalloc`](Self::kmalloc).
    ///
    /// # Errors
    /// `TooBig` when the product overflows; else as `kmalloc`.
    #[inline]
    #[track_caller]
    pub fn kmalloc_array(&self, n: usize, size: usize, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.kmalloc(n.checked_mul(size).ok_or(AllocError::TooBig)?, flags)
    }

    /// Changes the length of an array, as Linux's `krealloc_array`: [`krealloc`](Self::krealloc) to `n` elements of
    /// `size` bytes.
    ///
    /// # Errors
    /// `TooBig` when the product overflows; else as `krealloc`. The old array is then untouched.
    #[track_caller]
    pub fn krealloc_array(
        &self,
        ptr: *mut u8,
        n: usize,
        size: usize,
        flags: Gfp,
    ) -> Result<Option<NonNull<u8>>, AllocError> {
        self.krealloc(ptr, n.checked_mul(size).ok_or(AllocError::TooBig)?, flags)
    }

    /// A copy of some bytes, as Linux's `kmemdup`.
    ///
    /// ```
    /// use mm_core::{AllocError, GFP_KERNEL, Manager};
    ///
    /// fn keep(mm: impl Manager, packet: &[u8]) -> Result<*mut u8, AllocError> {
    ///     Ok(mm.mm().kmemdup(packet, GFP_KERNEL)?.as_ptr())
    /// }
    /// ```
    ///
    /// Context and cost: as [`kmalloc`](Self::kmalloc), plus the copy.
    ///
    /// # Errors
    /// As `kmalloc`: `ZeroSize` for no bytes.
    #[track_caller]
    pub fn kmemdup(&self, bytes: &[u8], flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let copy = self.kmalloc(bytes.len(), flags)?;
        // SAFETY: the object is new and as long as the bytes.
        unsafe { copy.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(copy)
    }

    /// A copy of some bytes and a zero behind them, as Linux's `kmemdup_nul`.
    ///
    /// # Errors
    /// As [`kmalloc`](Self::kmalloc).
    #[track_caller]
    pub fn kmemdup_nul(&self, bytes: &[u8], flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let len = bytes.len();
        // One more cannot overflow: no slice is that long.
        let copy = self.kmalloc(len + 1, flags)?;
        // SAFETY: the object is new and one longer than the bytes.
        unsafe {
            copy.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), len);
            copy.add(len).write(0);
        }
        Ok(copy)
    }

    /// A copy of a string with its terminating zero, as Linux's `kstrdup`.
    ///
    /// # Errors
    /// As [`kmalloc`](Self::kmalloc).
    #[track_caller]
    pub fn kstrdup(&self, text: &CStr, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.kmemdup_nul(text.to_bytes(), flags)
    }

    /// A copy of at most the first `most` bytes of a string and a terminating zero, as Linux's `kstrndup`.
    ///
    /// # Errors
    /// As [`kmalloc`](Self::kmalloc).
    #[track_caller]
    pub fn kstrndup(&self, text: &CStr, most: usize, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let bytes = text.to_bytes();
        self.kmemdup_nul(&bytes[..bytes.len().min(most)], flags)
    }

    /// Overwrites all that an object may use with zeroes and frees it, as Linux's `kfree_sensitive`: keys and the like
    /// do not live on in free memory. Null is fine.
    ///
    /// Context: any. Cost: as [`kfree`](Self::kfree), plus its length in stores, without a lock.
    ///
    /// # Errors
    /// As `kfree`; nothing was changed, and nothing overwritten.
    ///
    /// # Safety
    /// Nobody uses the object any more, and no value of Rust owns it.
    pub unsafe fn kfree_sensitive(&self, ptr: *const u8) -> Result<(), FreeError> {
        let addr = ptr.addr();
        let size = self.ksize(ptr)?;
        if size == 0 {
            return self.kfree(ptr);
        }
        if !self.is_live(addr) {
            return Err(FreeError::DoubleFree);
        }
        let phys = self.memory.backend.direct_frame(addr) << B::PAGE_SHIFT | addr & (B::PAGE_SIZE - 1);
        let object = self.memory.backend.direct_ptr(phys);
        // Volatile: nobody reads it again, and the stores must not be left out for that. SAFETY: the object is live and
        // `size` long, so it lies in RAM with a kernel address, and nobody uses it, by the caller.
        (0..size).for_each(|i| unsafe { object.add(i).write_volatile(0) });
        self.kfree(ptr)
    }
}
