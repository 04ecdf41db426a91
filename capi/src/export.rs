//! The symbols, and what the header says of them.
//!
//! `cargo xtask c header` takes the functions out of the two macros and gives them to cbindgen: their documentation
//! is the header's.

/// Makes the C functions for a manager: `export_c!(MM)` or any other expression that is a [`Manager`](mm_core::Manager).
///
/// Once in a program, in the crate that links it.
#[macro_export]
macro_rules! export_c {
    ($manager:expr) => {
        /// The C interface of the program's manager.
        #[allow(missing_docs, clippy::missing_safety_doc)]
        mod rtmm_c_calls {
            use super::*;
            use ::core::ffi::{c_char, c_void};
            use $crate::{calls, rtmm_cache, rtmm_mempool, rtmm_shrink_request, rtmm_shrinker, uintptr_t};

            /// Allocates `size` bytes, aligned to the largest power of two that divides `size` and to 8 at least. Size
            /// 0 gives `ZERO_SIZE_PTR`. Null when there is no memory, for a size above the largest block, for an
            /// unknown flag, and before set-up.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kmalloc(size: usize, flags: u32) -> *mut c_void {
                calls::kmalloc($manager, size, flags)
            }

            /// `rtmm_kmalloc` that waits until `until` at most, in nanoseconds of the callback `now`. A time that is over does
            /// not wait, nor does a kernel without that callback.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kmalloc_deadline(size: usize, flags: u32, until: u64) -> *mut c_void {
                calls::kmalloc_deadline($manager, size, flags, until)
            }

            /// `rtmm_kmalloc`, zeroed to the full `rtmm_ksize`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kzalloc(size: usize, flags: u32) -> *mut c_void {
                calls::kzalloc($manager, size, flags)
            }

            /// A zeroed array of `n` elements of `size` bytes; null when the product overflows.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kcalloc(n: usize, size: usize, flags: u32) -> *mut c_void {
                calls::kcalloc($manager, n, size, flags)
            }

            /// An array of `n` elements of `size` bytes; null when the product overflows.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kmalloc_array(n: usize, size: usize, flags: u32) -> *mut c_void {
                calls::kmalloc_array($manager, n, size, flags)
            }

            /// Changes the size of an object, moving it if it must. Null allocates; size 0 frees and gives
            /// `ZERO_SIZE_PTR`. Null when it failed: the old object is then as it was. A pointer that is no live object
            /// is told to `bug`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_krealloc(object: *mut c_void, size: usize, flags: u32) -> *mut c_void {
                calls::krealloc($manager, object, size, flags)
            }

            /// A copy of `len` bytes at `src`; null for null.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_kmemdup(src: *const c_void, len: usize, flags: u32) -> *mut c_void {
                // SAFETY: by the caller.
                unsafe { calls::kmemdup($manager, src, len, flags) }
            }

            /// A copy of a string; null for null.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_kstrdup(text: *const c_char, flags: u32) -> *mut c_char {
                // SAFETY: by the caller.
                unsafe { calls::kstrdup($manager, text, flags) }
            }

            /// Frees an object of `rtmm_kmalloc` and its kin. Null and `ZERO_SIZE_PTR` are fine. Any other pointer that
            /// is no live object is told to `bug`, and nothing changes.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kfree(object: *const c_void) {
                calls::kfree($manager, object)
            }

            /// The bytes an object may really use; 0 for null and `ZERO_SIZE_PTR`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_ksize(object: *const c_void) -> usize {
                calls::ksize($manager, object)
            }

            /// `rtmm_kmalloc`, or when that finds nothing, `size` is above a page and `flags` may wait: `rtmm_vmalloc`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kvmalloc(size: usize, flags: u32) -> *mut c_void {
                calls::kvmalloc($manager, size, flags)
            }

            /// A zeroed array by `rtmm_kvmalloc`; null when the product overflows.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kvcalloc(n: usize, size: usize, flags: u32) -> *mut c_void {
                calls::kvcalloc($manager, n, size, flags)
            }

            /// Frees what `rtmm_kvmalloc`, `rtmm_kmalloc` or `rtmm_vmalloc` gave.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kvfree(object: *const c_void) {
                calls::kvfree($manager, object)
            }

            /// The address of `1 << order` contiguous pages, aligned to their size; 0 when there are none, for an order
            /// above the largest, for an unknown flag, and before set-up.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_get_free_pages(flags: u32, order: u32) -> uintptr_t {
                calls::get_free_pages($manager, flags, order)
            }

            /// `rtmm_get_free_pages` that waits until `until` at most, as `rtmm_kmalloc_deadline`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_get_free_pages_deadline(flags: u32, order: u32, until: u64) -> uintptr_t {
                calls::get_free_pages_deadline($manager, flags, order, until)
            }

            /// The address of a page of zeroes, or 0.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_get_zeroed_page(flags: u32) -> uintptr_t {
                calls::get_zeroed_page($manager, flags)
            }

            /// Frees pages of the same order. Address 0 is fine; anything else wrong is told to `bug`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_free_pages(addr: uintptr_t, order: u32) {
                calls::free_pages($manager, addr, order)
            }

            /// Exactly the pages that hold `size` bytes; null for size 0 and above the largest block.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_alloc_pages_exact(size: usize, flags: u32) -> *mut c_void {
                calls::alloc_pages_exact($manager, size, flags)
            }

            /// Frees what `rtmm_alloc_pages_exact` gave for the same size. Null is fine.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_free_pages_exact(start: *const c_void, size: usize) {
                calls::free_pages_exact($manager, start, size)
            }

            /// The number of the first of `1 << order` contiguous frames, or 0, which is never a frame that is handed
            /// out. With `__GFP_HIGHMEM` it may have no address.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_alloc_pages(flags: u32, order: u32) -> usize {
                calls::alloc_pages($manager, flags, order)
            }

            /// `rtmm_alloc_pages` that waits until `until` at most, as `rtmm_kmalloc_deadline`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_alloc_pages_deadline(flags: u32, order: u32, until: u64) -> usize {
                calls::alloc_pages_deadline($manager, flags, order, until)
            }

            /// Frees frames of `rtmm_alloc_pages`. Frame 0 is fine.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_free_pages_frame(pfn: usize, order: u32) {
                calls::free_pages_frame($manager, pfn, order)
            }

            /// The kernel address of a frame of RAM; null for one that has none, and for what is no RAM.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_page_address(pfn: usize) -> *mut c_void {
                calls::page_address($manager, pfn)
            }

            /// The frame an address of the direct map lies in; 0 for any other address.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_virt_to_pfn(addr: *const c_void) -> usize {
                calls::virt_to_pfn($manager, addr)
            }

            /// Fills the entries of `frames` that are 0 with single frames, first to last; gives how many entries from the
            /// start on are filled then. Fewer than `count` when memory is short; 0 for a null array.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_alloc_pages_bulk(flags: u32, count: usize, frames: *mut uintptr_t) -> usize {
                // SAFETY: by the caller.
                unsafe { calls::alloc_pages_bulk($manager, flags, count, frames) }
            }

            /// Makes a block of `1 << order` frames as many of single frames: 0, `-EINVAL` for what is no such block,
            /// `-EBUSY` for a compound one that others hold too.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_split_page(pfn: usize, order: u32) -> i32 {
                calls::split_page($manager, pfn, order)
            }

            /// Takes a reference on a page in use; false for any other frame, and for the 256th.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_get_page(pfn: usize) -> bool {
                calls::get_page($manager, pfn)
            }

            /// Gives a reference back, the owner's too: with the last one the memory goes back. Told to `bug` for what is
            /// no page in use.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_put_page(pfn: usize) {
                calls::put_page($manager, pfn)
            }

            /// How many hold a page, its owner included; 0 for what is free or no page of this kind.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_page_count(pfn: usize) -> i32 {
                calls::page_count($manager, pfn)
            }

            /// `size` bytes of virtually contiguous memory, in whole pages; null for size 0 and above all memory.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vmalloc(size: usize) -> *mut c_void {
                calls::vmalloc($manager, size)
            }

            /// `rtmm_vmalloc`, zeroed.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vzalloc(size: usize) -> *mut c_void {
                calls::vzalloc($manager, size)
            }

            /// `rtmm_vzalloc`, for memory that users will see.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vmalloc_user(size: usize) -> *mut c_void {
                calls::vmalloc_user($manager, size)
            }

            /// `rtmm_vmalloc` from frames below 4 GiB.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vmalloc_32(size: usize) -> *mut c_void {
                calls::vmalloc_32($manager, size)
            }

            /// `rtmm_vmalloc` near a NUMA node: -1 and 0 are the one there is, and any other gives null.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vmalloc_node(size: usize, node: i32) -> *mut c_void {
                calls::vmalloc_node($manager, size, node)
            }

            /// Changes the size of an area, moving it if it must. Null allocates; size 0 frees and gives null. Null also when
            /// it failed: the old area is then as it was. A pointer that is no area is told to `bug`.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_vrealloc(area: *mut c_void, size: usize, flags: u32) -> *mut c_void {
                // SAFETY: by the caller.
                unsafe { calls::vrealloc($manager, area, size, flags) }
            }

            /// Reads `count` bytes of the vmalloc addresses from `addr` on; what is no area reads as zeroes. Gives how many
            /// bytes, ending with the last of an area, the range has to do with areas.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_vread(into: *mut c_char, addr: *const c_void, count: usize) -> usize {
                // SAFETY: by the caller.
                unsafe { calls::vread($manager, into, addr, count) }
            }

            /// Writes `count` bytes to the vmalloc addresses from `addr` on, leaving out what is no area. Gives what
            /// `rtmm_vread` would.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_vwrite(from: *const c_char, addr: *const c_void, count: usize) -> usize {
                // SAFETY: by the caller.
                unsafe { calls::vwrite($manager, from, addr, count) }
            }

            /// Changes what pages of an area allow, one of `RTMM_PROT_*`: 0, or `-EINVAL`, `-ENOMEM`, `-EOPNOTSUPP`
            /// without an MMU.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_set_memory(addr: uintptr_t, pages: usize, prot: u32) -> i32 {
                calls::set_memory($manager, addr, pages, prot)
            }

            /// Maps frames the caller has, one after the other; they stay the caller's. `prot` is one of `RTMM_PROT_*`. Null
            /// for no frames, one twice, one that is no RAM, and when there is no room. Without an MMU only neighbours
            /// can be mapped, for reading and writing.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_vmap(frames: *const uintptr_t, count: usize, prot: u32) -> *mut c_void {
                // SAFETY: by the caller.
                unsafe { calls::vmap($manager, frames, count, prot) }
            }

            /// Takes back an `rtmm_vmap`. Null is fine; anything else wrong is told to `bug`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vunmap(addr: *const c_void) {
                calls::vunmap($manager, addr)
            }

            /// `rtmm_vmap` for a short time, for reading and writing.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_vm_map_ram(frames: *const uintptr_t, count: usize) -> *mut c_void {
                // SAFETY: by the caller.
                unsafe { calls::vm_map_ram($manager, frames, count) }
            }

            /// Takes back an `rtmm_vm_map_ram` of as many frames.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vm_unmap_ram(addr: *const c_void, count: usize) {
                calls::vm_unmap_ram($manager, addr, count)
            }

            /// Frees an area of `rtmm_vmalloc`. Null is fine; anything else wrong is told to `bug`. With an MMU nothing
            /// is used again before its translations are flushed.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vfree(addr: *const c_void) {
                calls::vfree($manager, addr)
            }

            /// The frame behind an address of an area; 0 elsewhere.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vmalloc_to_pfn(addr: *const c_void) -> usize {
                calls::vmalloc_to_pfn($manager, addr)
            }

            /// Whether an address belongs to vmalloc: with an MMU the whole window, without one a live area.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_is_vmalloc_addr(addr: *const c_void) -> bool {
                calls::is_vmalloc_addr($manager, addr)
            }

            /// Makes `size` bytes of device registers at `phys` reachable, uncached; without an MMU `phys` itself. Null
            /// for size 0, a range that wraps or is RAM, and when there is no room.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_ioremap(phys: u64, size: usize) -> *mut c_void {
                calls::ioremap($manager, phys, size)
            }

            /// `rtmm_ioremap`, write-combining. Null also when part of the range is mapped with another cache mode.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_ioremap_wc(phys: u64, size: usize) -> *mut c_void {
                calls::ioremap_wc($manager, phys, size)
            }

            /// `rtmm_ioremap`, write-through. Null also when part of the range is mapped with another cache mode.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_ioremap_wt(phys: u64, size: usize) -> *mut c_void {
                calls::ioremap_wt($manager, phys, size)
            }

            /// `rtmm_ioremap`, cached as memory is. Null also when part of the range is mapped with another cache mode.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_ioremap_cache(phys: u64, size: usize) -> *mut c_void {
                calls::ioremap_cache($manager, phys, size)
            }

            /// Takes back an `rtmm_ioremap`. Null is fine; anything else wrong is told to `bug`.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_iounmap(addr: *const c_void) {
                calls::iounmap($manager, addr)
            }

            /// Makes a cache of objects of `size` bytes, aligned to `align` (a power of two, or 0 for 8). `name` is copied.
            /// A constructor, unless null, makes each object ready when its slab is made, not when it is handed out: an
            /// object is freed in the state it is to be found in.
            /// Null for a null or used name, size 0, another alignment, an unknown flag, and when there is no memory.
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

            /// A pool with `min` objects of `size` bytes set aside, 1 to 64; null for other numbers, and when there is no
            /// memory.
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

            /// The same of whatever `alloc` gives and `free` takes back; both are handed `data`, and may not be null. They are
            /// called with no lock held, in the context of the pool's user, `alloc` with flags that may wait only where
            /// those the user gave do; null from `alloc` means that it has none. What is no element of theirs only they
            /// can tell: here a second free is noticed only while the element is among those set aside, or none is out.
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

            /// Destroys a cache. Null is fine. One with live objects stays as it is, and is told to `bug`, as is a pointer
            /// that is no cache.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kmem_cache_destroy(cache: *mut rtmm_cache) {
                calls::kmem_cache_destroy($manager, cache)
            }

            /// Registers somebody who gives memory back when it is short: `count` says how many things it could free, `scan`
            /// looks at up to `request->scan` of them, frees what it can, and says how many those were; 0 says that there is
            /// no use in asking again. Both are handed `arg`; they run in a task that asked for memory with a flag that
            /// may wait, with no lock held, may allocate and free, and are asked at most four times for a request. Null
            /// when a function is null, when there are eight, and when there is no memory.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_shrinker_create(
                count: Option<unsafe extern "C" fn(arg: *mut c_void, request: *const rtmm_shrink_request) -> usize>,
                scan: Option<unsafe extern "C" fn(arg: *mut c_void, request: *const rtmm_shrink_request) -> usize>,
                arg: *mut c_void,
            ) -> *mut rtmm_shrinker {
                // SAFETY: by the caller.
                unsafe { calls::shrinker_create($manager, count, scan, arg) }
            }

            /// Takes a shrinker out: with 0 it does not run and will not be asked again. Null is fine. `-EBUSY` while it
            /// runs, so always when it asks this itself; `-EINVAL` for what is no shrinker.
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

/// Makes `rtmm_init` for a `&'static Mm` over [`CallbackPlatform`](crate::platform::CallbackPlatform).
#[macro_export]
macro_rules! export_setup {
    ($manager:expr) => {
        /// The C interface of set-up.
        #[allow(missing_docs, clippy::missing_safety_doc)]
        mod rtmm_c_setup {
            use super::*;
            use $crate::rtmm_config;

            /// Sets the manager up, once. 0, or a negative errno value: `-EINVAL` for a null, misaligned or senseless
            /// configuration (size, version, page size, flags, a required callback, an array, a zone, the window), `-E2BIG` for too
            /// many entries, `-EEXIST` when it was called before, `-ENOMEM` for RAM without a usable page or in too many
            /// pieces. After an error other than `-EEXIST` that `config` alone shows, it may be called again.
            ///
            /// The callbacks are used from here on, and must do what `struct rtmm_config` says. The RAM less what is
            /// reserved must be memory that nothing else uses, reached at its physical address, or on x86-64 at
            /// 0xffff888000000000 plus its physical address, as under Linux.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_init(config: *const rtmm_config) -> i32 {
                // SAFETY: by the caller.
                unsafe { $crate::calls::init($manager, config) }
            }
        }
    };
}
