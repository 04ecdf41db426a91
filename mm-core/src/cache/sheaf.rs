//! Sheaves: objects taken beforehand, for where an allocation must not fail.

use super::{CacheBox, KmemCache, RawKmemCache};
use crate::error::AllocError;
use crate::gfp::Gfp;
use crate::global::Manager;
use crate::platform::{Bug, Platform};
use core::ptr::NonNull;

/// Objects that are set aside: taking one cannot fail and takes no lock. As Linux's `slab_sheaf`.
///
/// What is left goes back to the cache when it is dropped.
pub struct RawSheaf<'c, M: Manager> {
    cache: &'c RawKmemCache<M>,
    /// An array in kmalloc memory.
    objects: NonNull<*mut u8>,
    count: usize,
    capacity: usize,
}

// SAFETY: the objects and the array are owned, and the cache is shared between threads.
unsafe impl<M: Manager + Sync> Send for RawSheaf<'_, M> {}

impl<M: Manager> RawKmemCache<M> {
    /// Sets `count` objects aside, so that as many allocations from the sheaf cannot fail: in a critical section, or
    /// where going back is impossible. As Linux's `kmem_cache_prefill_sheaf`.
    ///
    /// Context: any; a task when the flags hold `WAIT`. Cost: as [`alloc_bulk`](Self::alloc_bulk) of as many, and a
    /// kmalloc.
    ///
    /// # Errors
    /// `ZeroSize` for no object, and as `alloc_bulk`; nothing was taken.
    #[track_caller]
    #[doc(alias = "kmem_cache_prefill_sheaf")]
    pub fn prefill(&self, count: usize, flags: Gfp) -> Result<RawSheaf<'_, M>, AllocError> {
        let mm = self.manager.mm();
        let plain = flags.difference(Gfp::ZERO);
        let objects = mm.kmalloc_array(count, size_of::<*mut u8>(), plain)?.cast();
        let mut sheaf = RawSheaf { cache: self, objects, count: 0, capacity: count };
        sheaf.refill(flags)?;
        Ok(sheaf)
    }
}

impl<M: Manager> RawSheaf<'_, M> {
    /// Takes an object; `None` when as many were taken as were set aside.
    ///
    /// Context: any. Cost: a few instructions, no lock.
    #[inline]
    pub fn alloc(&mut self) -> Option<NonNull<u8>> {
        self.count = self.count.checked_sub(1)?;
        // SAFETY: the entry was written by `refill`.
        NonNull::new(unsafe { self.objects.add(self.count).read() })
    }

    /// Fills it up to what it was made for, as Linux's `kmem_cache_refill_sheaf`.
    ///
    /// # Errors
    /// As [`RawKmemCache::alloc_bulk`]; it is as it was.
    #[track_caller]
    pub fn refill(&mut self, flags: Gfp) -> Result<(), AllocError> {
        let missing = self.capacity - self.count;
        // SAFETY: the array has `capacity` entries. They are written before they are read.
        let empty = unsafe {
            let from = self.objects.add(self.count);
            from.write_bytes(0, missing);
            core::slice::from_raw_parts_mut(from.as_ptr(), missing)
        };
        self.cache.alloc_bulk(flags, empty)?;
        self.count = self.capacity;
        Ok(())
    }

    /// How many objects are left.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when the next `alloc` gives nothing.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<M: Manager> Drop for RawSheaf<'_, M> {
    fn drop(&mut self) {
        // SAFETY: the first `count` entries were written.
        self.cache.take_back(unsafe { core::slice::from_raw_parts(self.objects.as_ptr(), self.count) });
        let (mm, array) = (self.cache.manager.mm(), self.objects.as_ptr());
        if let Err(error) = mm.kfree(array.cast()) {
            mm.platform().bug(&Bug::BadFree { addr: array.addr(), error });
        }
    }
}

/// [`RawSheaf`] of a typed cache.
pub struct Sheaf<'c, T: 'static, M: Manager> {
    pub(super) cache: &'c KmemCache<T, M>,
    pub(super) raw: RawSheaf<'c, M>,
}

impl<'c, T, M: Manager> Sheaf<'c, T, M> {
    /// Takes an object; `None` when as many were taken as were set aside.
    ///
    /// Context: any. Cost: a few instructions, no lock.
    #[inline]
    pub fn alloc(&mut self) -> Option<CacheBox<'c, T, M>> {
        let object = self.raw.alloc()?;
        // SAFETY: an object of the cache, and ours.
        Some(unsafe { CacheBox::from_raw(object.cast(), self.cache) })
    }

    /// Fills it up to what it was made for.
    ///
    /// # Errors
    /// As [`KmemCache::alloc`]; it is as it was.
    #[track_caller]
    pub fn refill(&mut self, flags: Gfp) -> Result<(), AllocError> {
        self.raw.refill(flags)
    }

    /// How many objects are left.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// True when the next `alloc` gives nothing.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }
}
