//! Allocations of a cache that say until when they wait.

use super::RawKmemCache;
use crate::error::AllocError;
use crate::gfp::Gfp;
use crate::global::Manager;
use core::panic::Location;
use core::ptr::NonNull;
use core::time::Duration;

impl<M: Manager> RawKmemCache<M> {
    /// [`alloc`](Self::alloc), which waits until `until` at most, a time of [`Platform::now`](crate::Platform::now),
    /// for an object that another gives back or for a slab's pages.
    ///
    /// # Errors
    /// As `alloc`.
    #[track_caller]
    pub fn alloc_deadline(&self, flags: Gfp, until: Duration) -> Result<NonNull<u8>, AllocError> {
        let (mm, control) = (self.manager.mm(), self.control());
        let (asked, caller) = (flags, Location::caller());
        let (flags, zero) = self.admit(flags, caller)?;
        let object = mm.cache_slabs(control).alloc_until(flags, until)?;
        #[cfg(feature = "slab-debug")]
        let object = if control.hooks.guarded.is_some() { self.sound(object, flags)? } else { object };
        if zero {
            // SAFETY: the object is ours and that long.
            unsafe { object.write_bytes(0, control.object_size) };
        }
        mm.made_cached(object.as_ptr(), control.name, control.object_size, asked, caller);
        Ok(object)
    }
}
