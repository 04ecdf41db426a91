//! Events of allocations and frees, told to `Platform::trace` behind every lock.

use crate::addr::Pfn;
use crate::gfp::Gfp;
use core::panic::Location;

/// An allocation or free that succeeded, as Linux's trace events of the same names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Event {
    /// kmalloc and its kin.
    Kmalloc {
        /// The object.
        ptr: usize,
        /// Bytes asked for.
        size: usize,
        /// As the caller gave them.
        flags: Gfp,
        /// The call.
        #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
        caller: &'static Location<'static>,
    },
    /// kfree; of null it is none.
    Kfree {
        /// The object.
        ptr: usize,
    },
    /// An object of a cache was taken (`kmem_cache_alloc`).
    CacheAlloc {
        /// The name of the cache.
        cache: &'static str,
        /// The object.
        ptr: usize,
        /// Bytes of an object.
        size: usize,
        /// As the caller gave them.
        flags: Gfp,
        /// The call.
        #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
        caller: &'static Location<'static>,
    },
    /// An object of a cache was given back (`kmem_cache_free`).
    CacheFree {
        /// The name of the cache.
        cache: &'static str,
        /// The object.
        ptr: usize,
    },
    /// A block of pages was allocated (`mm_page_alloc`).
    PageAlloc {
        /// Its first frame.
        pfn: Pfn,
        /// Its pages.
        pages: usize,
        /// As the caller gave them, less what was not allowed.
        flags: Gfp,
        /// The call.
        #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
        caller: &'static Location<'static>,
    },
    /// A block of pages was freed by its owner (`mm_page_free`); others may hold references still.
    PageFree {
        /// Its first frame.
        pfn: Pfn,
        /// Its pages.
        pages: usize,
    },
    /// An area was made.
    Vmalloc {
        /// Its first byte.
        addr: usize,
        /// Bytes asked for.
        size: usize,
        /// What it was made with.
        flags: Gfp,
        /// The call.
        #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
        caller: &'static Location<'static>,
    },
    /// An area of vmalloc was freed.
    Vfree {
        /// Its first byte.
        addr: usize,
    },
}
