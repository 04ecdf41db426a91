//! Virtually contiguous memory.

use super::{or_null, report};
use core::ffi::c_void;
use mm_core::Manager;

/// See `rtmm_vmalloc`.
pub fn vmalloc<M: Manager>(m: M, size: usize) -> *mut c_void {
    or_null(m.mm().vmalloc(size))
}

/// See `rtmm_vzalloc`.
pub fn vzalloc<M: Manager>(m: M, size: usize) -> *mut c_void {
    or_null(m.mm().vzalloc(size))
}

/// See `rtmm_vfree`.
pub fn vfree<M: Manager>(m: M, addr: *const c_void) {
    report(m, addr.addr(), m.mm().vfree(addr.cast()));
}

/// See `rtmm_vmalloc_to_pfn`.
pub fn vmalloc_to_pfn<M: Manager>(m: M, addr: *const c_void) -> usize {
    m.mm().vmalloc_to_page(addr.cast()).map_or(0, |pfn| pfn.0 as usize)
}

/// See `rtmm_is_vmalloc_addr`.
pub fn is_vmalloc_addr<M: Manager>(m: M, addr: *const c_void) -> bool {
    m.mm().is_vmalloc_addr(addr.cast())
}
