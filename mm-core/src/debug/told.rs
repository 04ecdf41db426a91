//! Where each allocation and free passes by behind its last lock: its call site is kept, its event told. Without the
//! features nothing is left of it.

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::{AllocError, FreeError};
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::Platform;
use core::panic::Location;
use core::ptr::NonNull;

#[cfg(feature = "trace-hooks")]
use super::event::Event;

type Caller = &'static Location<'static>;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// An object of kmalloc.
    #[inline(always)]
    pub(crate) fn made_object(
        &self,
        made: Result<NonNull<u8>, AllocError>,
        size: usize,
        flags: Gfp,
        caller: Caller,
    ) -> Result<NonNull<u8>, AllocError> {
        #[cfg(feature = "page-owner")]
        let _ = made.inspect(|ptr| self.memory.own(ptr.addr().get(), caller));
        #[cfg(feature = "trace-hooks")]
        let _ = made.inspect(|ptr| self.tell(&Event::Kmalloc { ptr: ptr.addr().get(), size, flags, caller }));
        let _ = (size, flags, caller);
        made
    }

    /// An object of a cache.
    #[inline(always)]
    pub(crate) fn made_cached(&self, ptr: *const u8, cache: &'static str, size: usize, flags: Gfp, caller: Caller) {
        #[cfg(feature = "page-owner")]
        self.memory.own(ptr.addr(), caller);
        #[cfg(feature = "trace-hooks")]
        self.tell(&Event::CacheAlloc { cache, ptr: ptr.addr(), size, flags, caller });
        let _ = (ptr, cache, size, flags, caller);
    }

    /// A block of pages by frame.
    #[inline(always)]
    pub(crate) fn made_frames(
        &self,
        made: Result<Pfn, AllocError>,
        pages: usize,
        flags: Gfp,
        caller: Caller,
    ) -> Result<Pfn, AllocError> {
        #[cfg(feature = "page-owner")]
        let _ = made.inspect(|&pfn| self.memory.own_frame(pfn, caller));
        #[cfg(feature = "trace-hooks")]
        let _ = made.inspect(|&pfn| self.tell(&Event::PageAlloc { pfn, pages, flags, caller }));
        let _ = (pages, flags, caller);
        made
    }

    /// A block of pages by address.
    #[inline(always)]
    pub(crate) fn made_pages(
        &self,
        made: Result<NonNull<u8>, AllocError>,
        pages: usize,
        flags: Gfp,
        caller: Caller,
    ) -> Result<NonNull<u8>, AllocError> {
        #[cfg(any(feature = "page-owner", feature = "trace-hooks"))]
        if let Ok(ptr) = made {
            let pfn = Pfn(self.memory.backend.direct_frame(ptr.addr().get()) as u32);
            let _ = self.made_frames(Ok(pfn), pages, flags, caller);
        }
        let _ = (pages, flags, caller);
        made
    }

    /// An area of vmalloc; its record has its call site.
    #[inline(always)]
    pub(crate) fn made_area(
        &self,
        made: Result<NonNull<u8>, AllocError>,
        size: usize,
        flags: Gfp,
        caller: Caller,
    ) -> Result<NonNull<u8>, AllocError> {
        #[cfg(feature = "trace-hooks")]
        let _ = made.inspect(|ptr| self.tell(&Event::Vmalloc { addr: ptr.addr().get(), size, flags, caller }));
        let _ = (size, flags, caller);
        made
    }

    /// An object of kmalloc, or null, was to be freed.
    #[inline(always)]
    pub(crate) fn freed_object(&self, freed: Result<(), FreeError>, ptr: *const u8) -> Result<(), FreeError> {
        #[cfg(feature = "trace-hooks")]
        if freed.is_ok() && !ptr.is_null() {
            self.tell(&Event::Kfree { ptr: ptr.addr() });
        }
        let _ = ptr;
        freed
    }

    /// An object of a cache was to be freed.
    #[inline(always)]
    pub(crate) fn freed_cached(
        &self,
        freed: Result<(), FreeError>,
        cache: &'static str,
        ptr: *const u8,
    ) -> Result<(), FreeError> {
        #[cfg(feature = "trace-hooks")]
        if freed.is_ok() {
            self.tell(&Event::CacheFree { cache, ptr: ptr.addr() });
        }
        let _ = (cache, ptr);
        freed
    }

    /// A block of pages was to be freed by frame.
    #[inline(always)]
    pub(crate) fn freed_frames(&self, freed: Result<(), FreeError>, pfn: Pfn, pages: usize) -> Result<(), FreeError> {
        #[cfg(feature = "trace-hooks")]
        if freed.is_ok() {
            self.tell(&Event::PageFree { pfn, pages });
        }
        let _ = (pfn, pages);
        freed
    }

    /// A block of pages, or null, was to be freed by address.
    #[inline(always)]
    pub(crate) fn freed_pages(
        &self,
        freed: Result<(), FreeError>,
        ptr: *const u8,
        pages: usize,
    ) -> Result<(), FreeError> {
        #[cfg(feature = "trace-hooks")]
        if freed.is_ok() && !ptr.is_null() {
            let pfn = Pfn(self.memory.backend.direct_frame(ptr.addr()) as u32);
            self.tell(&Event::PageFree { pfn, pages });
        }
        let _ = (ptr, pages);
        freed
    }

    /// An area, or null, was to be freed.
    #[inline(always)]
    pub(crate) fn freed_area(&self, freed: Result<(), FreeError>, addr: *const u8) -> Result<(), FreeError> {
        #[cfg(feature = "trace-hooks")]
        if freed.is_ok() && !addr.is_null() {
            self.tell(&Event::Vfree { addr: addr.addr() });
        }
        let _ = addr;
        freed
    }
}
