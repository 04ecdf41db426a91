//! The symbols of objects and pages.

/// The part of [`export_c!`](crate::export_c) for objects and pages.
#[doc(hidden)]
#[macro_export]
macro_rules! export_memory {
    ($manager:expr) => {
        #[allow(missing_docs, clippy::missing_safety_doc)]
        mod rtmm_c_memory {
            use super::*;
            use ::core::ffi::{c_char, c_void};
            use $crate::{calls, uintptr_t};

            /// Allocates `size` bytes, aligned to the largest power of two that divides `size` and to 8 at least. Size
            /// 0 gives `ZERO_SIZE_PTR`. Null when there is no memory, for a size above the largest block, for an
            /// unknown flag, and before set-up.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_kmalloc(size: usize, flags: u32) -> *mut c_void {
                calls::kmalloc($manager, size, flags)
            }

            /// `rtmm_kmalloc` that waits until `until` at most, in nanoseconds of the callback `now`. A time that is
            /// over does not wait, nor does a kernel without that callback.
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

            /// The bytes an object may really use; 0 for null and `ZERO_SIZE_PTR`, and for what is no object, which is
            /// told to `bug`. That an object is free already is not always noticed.
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

            /// Fills the entries of `frames` that are 0 with single frames, first to last; gives how many entries from
            /// the start on are filled then. Fewer than `count` when memory is short; 0 for a null array.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_alloc_pages_bulk(flags: u32, count: usize, frames: *mut uintptr_t) -> usize {
                // SAFETY: by the caller.
                unsafe { calls::alloc_pages_bulk($manager, flags, count, frames) }
            }

            /// Makes a block of `1 << order` frames as many of single frames: 0, `-EINVAL` for what is no such block,
            /// `-EBUSY` for a compound one that others hold too, `-EAGAIN` before set-up.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_split_page(pfn: usize, order: u32) -> i32 {
                calls::split_page($manager, pfn, order)
            }

            /// Takes a reference on a page in use; false for any other frame, and for the 256th.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_get_page(pfn: usize) -> bool {
                calls::get_page($manager, pfn)
            }

            /// Gives a reference back, the owner's too: with the last one the memory goes back. Told to `bug` for what
            /// is no page in use.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_put_page(pfn: usize) {
                calls::put_page($manager, pfn)
            }

            /// How many hold a page, its owner included; 0 for what is free or no page of this kind.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_page_count(pfn: usize) -> i32 {
                calls::page_count($manager, pfn)
            }
        }
    };
}
