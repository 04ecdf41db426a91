//! The symbols of areas and mappings.

/// The part of [`export_c!`](crate::export_c) for areas and mappings.
#[doc(hidden)]
#[macro_export]
macro_rules! export_areas {
    ($manager:expr) => {
        #[allow(missing_docs, clippy::missing_safety_doc)]
        mod rtmm_c_areas {
            use super::*;
            use ::core::ffi::{c_char, c_void};
            use $crate::{calls, uintptr_t};

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

            /// `rtmm_vmalloc_user` from frames below 4 GiB.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vmalloc_32_user(size: usize) -> *mut c_void {
                calls::vmalloc_32_user($manager, size)
            }

            /// `rtmm_vmalloc` near a NUMA node: -1 and 0 are the one there is, and any other gives null.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vmalloc_node(size: usize, node: i32) -> *mut c_void {
                calls::vmalloc_node($manager, size, node)
            }

            /// `size` bytes as `rtmm_vmalloc` gives them, in the caller's way. `flags` say where the pages may come
            /// from and whether they are zeroed; `prot`, one of `RTMM_PROT_*`, what the area allows at first; `align`,
            /// 0 or a power of two, what its address is a multiple of, at least a page; `options`, any of
            /// `RTMM_AREA_*`, which guards it has, how long it lives, and which entries map it. Null also for an
            /// unknown value, for an alignment above the largest block, and for guards or a protection that the machine
            /// cannot give.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_vmalloc_with(
                size: usize,
                flags: u32,
                prot: u32,
                align: usize,
                options: u32,
            ) -> *mut c_void {
                calls::vmalloc_with($manager, size, flags, prot, align, options)
            }

            /// Changes the size of an area, moving it if it must. Null allocates; size 0 frees and gives null. Null
            /// also when it failed: the old area is then as it was. A pointer that is no area is told to `bug`.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_vrealloc(area: *mut c_void, size: usize, flags: u32) -> *mut c_void {
                // SAFETY: by the caller.
                unsafe { calls::vrealloc($manager, area, size, flags) }
            }

            /// Reads `count` bytes of the vmalloc addresses from `addr` on; what is no area reads as zeroes. Gives how
            /// many bytes, ending with the last of an area, the range has to do with areas.
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

            /// Calls `map` with `arg`, a number from 0 on and the frame of each page of an area of `rtmm_vmalloc_user`
            /// that `size` bytes, `offset` pages behind its start, touch: the kernel's side of Linux's
            /// `remap_vmalloc_range`. No lock is held then. 0; `-EINVAL` for what is no such area, size 0, a range that
            /// is not all inside, and null for `map`; or the first value but 0 that `map` gives, which ends it.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn rtmm_remap_vmalloc_range(
                area: *const c_void,
                offset: usize,
                size: usize,
                map: Option<unsafe extern "C" fn(arg: *mut c_void, page: usize, pfn: usize) -> i32>,
                arg: *mut c_void,
            ) -> i32 {
                // SAFETY: by the caller.
                unsafe { calls::remap_vmalloc_range($manager, area, offset, size, map, arg) }
            }

            /// Changes what pages of an area allow, one of `RTMM_PROT_*`: 0, or `-EINVAL`, `-ENOMEM`. Without an MMU
            /// `-EOPNOTSUPP`, but for a whole area that one region of an MPU or PMP can cover: then `-ENOSPC` when none
            /// is left.
            #[unsafe(no_mangle)]
            pub extern "C" fn rtmm_set_memory(addr: uintptr_t, pages: usize, prot: u32) -> i32 {
                calls::set_memory($manager, addr, pages, prot)
            }

            /// Maps frames the caller has, one after the other; they stay the caller's. `prot` is one of `RTMM_PROT_*`.
            /// Null for no frames, one twice, one that is no RAM, and when there is no room. Without an MMU only
            /// neighbours can be mapped, for reading and writing.
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
        }
    };
}
