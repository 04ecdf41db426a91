//! The symbols of caches, pools and shrinkers, and of questions about the manager.

/// The part of [`export_c!`](crate::export_c) for caches, pools, shrinkers and questions.
#[doc(hidden)]
#[macro_export]
macro_rules! export_caches {
    ($manager:expr) => {
        #[allow(missing_docs, clippy::missing_safety_doc)]
        mod rtmm_c_caches {
            use super::*;
            use ::core::ffi::{c_char, c_void};
            use $crate::{calls, rtmm_cache, rtmm_mempool, rtmm_shrink_request, rtmm_shrinker};

            /// Makes a cache of objects of `size` bytes, aligned to `align` (a power of two, or 0 for 8). `name` is
            /// copied. A constructor, unless null, makes each object ready when its slab is made, not when it is handed
            /// out: an object is freed in the state it is to be found in. Null for a null or used name, size 0, another
            /// alignment, an unknown flag, and when there is no memory.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_kmem_cache_create(
                name: *const c_char,
                size: usize,
                align: usize,
                flags: u32,
                constructor: Option<unsafe extern "C" fn(object: *mut c_void)>,
            ) -> *mut rtmm_cache {
                // SAFETY: by the caller.
                unsafe { calls::kmem_cache_create($manager, name, size, align, flags, constructor) }
            }

            /// An object of a cache, or null. A pointer that is no cache is told to `bug`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kmem_cache_alloc(cache: *mut rtmm_cache, flags: u32) -> *mut c_void {
                calls::kmem_cache_alloc($manager, cache, flags)
            }

            /// Gives an object back to its cache. Null is fine; anything else wrong is told to `bug`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kmem_cache_free(cache: *mut rtmm_cache, object: *const c_void) {
                calls::kmem_cache_free($manager, cache, object)
            }

            /// Fills `objects` with `count` objects: their number, or 0 when they are not all to be had (then the array
            /// holds null), and for a null array or what is no cache.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_kmem_cache_alloc_bulk(
                cache: *mut rtmm_cache,
                flags: u32,
                count: usize,
                objects: *mut *mut c_void,
            ) -> i32 {
                // SAFETY: by the caller.
                unsafe { calls::kmem_cache_alloc_bulk($manager, cache, flags, count, objects) }
            }

            /// Gives objects back. One that is refused is told to `bug`, and the others are freed all the same.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_kmem_cache_free_bulk(
                cache: *mut rtmm_cache,
                count: usize,
                objects: *const *mut c_void,
            ) {
                // SAFETY: by the caller.
                unsafe { calls::kmem_cache_free_bulk($manager, cache, count, objects) }
            }

            /// Gives back the slabs a cache keeps empty: 0, or `-EINVAL` for what is no cache.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kmem_cache_shrink(cache: *mut rtmm_cache) -> i32 {
                calls::kmem_cache_shrink($manager, cache)
            }

            /// A pool with `min` objects of `size` bytes set aside, 1 to 64; null for other numbers, and when there is
            /// no memory.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_mempool_create_kmalloc_pool(min: i32, size: usize) -> *mut rtmm_mempool {
                calls::mempool_create_kmalloc_pool($manager, min, size)
            }

            /// The same of a cache's objects. The cache must outlive the pool.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_mempool_create_slab_pool(min: i32, cache: *mut rtmm_cache) -> *mut rtmm_mempool {
                calls::mempool_create_slab_pool($manager, min, cache)
            }

            /// The same of blocks of `1 << order` pages. Its elements are frame numbers in the shape of pointers.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_mempool_create_page_pool(min: i32, order: i32) -> *mut rtmm_mempool {
                calls::mempool_create_page_pool($manager, min, order)
            }

            /// The same of whatever `alloc` gives and `free` takes back; both are handed `data`, and may not be null.
            /// They are called with no lock held, in the context of the pool's user, `alloc` with flags that may wait
            /// only where those the user gave do; null from `alloc` means that it has none. What is no element of
            /// theirs only they can tell: here a second free is noticed only while the element is among those set
            /// aside, or none is out.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_mempool_create(
                min: i32,
                alloc: Option<unsafe extern "C" fn(flags: u32, data: *mut c_void) -> *mut c_void>,
                free: Option<unsafe extern "C" fn(element: *mut c_void, data: *mut c_void)>,
                data: *mut c_void,
            ) -> *mut rtmm_mempool {
                // SAFETY: by the caller.
                unsafe { calls::mempool_create($manager, min, alloc, free, data) }
            }

            /// An element: of the allocator, or when it has none of those set aside; else null. A pointer that is no
            /// pool is told to `bug`. `__GFP_ZERO` gives null for a pool of the caller's own functions.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_mempool_alloc(pool: *mut rtmm_mempool, flags: u32) -> *mut c_void {
                calls::mempool_alloc($manager, pool, flags)
            }

            /// Gives an element back to its pool. Null is fine; anything else wrong is told to `bug`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_mempool_free(element: *mut c_void, pool: *mut rtmm_mempool) {
                calls::mempool_free($manager, element, pool)
            }

            /// Changes how many elements are set aside: 0, `-EINVAL` or `-ENOMEM`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_mempool_resize(pool: *mut rtmm_mempool, min: i32) -> i32 {
                calls::mempool_resize($manager, pool, min)
            }

            /// Destroys a pool. Null is fine. One with elements out stays as it is, and is told to `bug`, as is a
            /// pointer that is no pool.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_mempool_destroy(pool: *mut rtmm_mempool) {
                calls::mempool_destroy($manager, pool)
            }

            /// The size a cache was made for; 0 for what is no cache.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kmem_cache_size(cache: *const rtmm_cache) -> u32 {
                calls::kmem_cache_size($manager, cache)
            }

            /// Destroys a cache. Null is fine. One with live objects stays as it is, and is told to `bug`, as is a
            /// pointer that is no cache.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kmem_cache_destroy(cache: *mut rtmm_cache) {
                calls::kmem_cache_destroy($manager, cache)
            }

            /// Registers somebody who gives memory back when it is short: `count` says how many things it could free,
            /// `scan` looks at up to `request->scan` of them, frees what it can, and says how many those were; 0 says
            /// that there is no use in asking again. Both are handed `arg`; they run in a task that asked for memory
            /// with a flag that may wait, with no lock held, may allocate and free, and are asked at most four times
            /// for a request. Null when a function is null, when there are eight, and when there is no memory.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_shrinker_create(
                count: Option<unsafe extern "C" fn(arg: *mut c_void, request: *const rtmm_shrink_request) -> usize>,
                scan: Option<unsafe extern "C" fn(arg: *mut c_void, request: *const rtmm_shrink_request) -> usize>,
                arg: *mut c_void,
            ) -> *mut rtmm_shrinker {
                // SAFETY: by the caller.
                unsafe { calls::shrinker_create($manager, count, scan, arg) }
            }

            /// Takes a shrinker out: with 0 it does not run and will not be asked again. Null is fine. `-EBUSY` while
            /// it runs, so always when it asks this itself; `-EINVAL` for what is no shrinker.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_shrinker_destroy(shrinker: *mut rtmm_shrinker) -> i32 {
                calls::shrinker_destroy($manager, shrinker)
            }

            /// log2 of the page size.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_page_shift() -> u32 {
                calls::page_shift($manager)
            }

            /// The largest order.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_max_order() -> u32 {
                calls::max_order($manager)
            }

            /// Whether vmalloc maps scattered pages between guards. Without, it gives contiguous pages.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_has_mmu() -> bool {
                calls::has_mmu($manager)
            }

            /// How many pages are free. Caches keep some that `rtmm_drain` gives back.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_nr_free_pages() -> usize {
                calls::nr_free_pages($manager)
            }

            /// Gives back everything the manager keeps in its caches. For tasks.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_drain() {
                calls::drain($manager)
            }

            /// Scans all of the manager's data: 0, or `-EUCLEAN` when it contradicts itself. Slow; for tests.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_check() -> i32 {
                calls::check($manager)
            }
        }
    };
}
