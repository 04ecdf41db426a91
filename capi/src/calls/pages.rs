//! Whole pages.

use super::{or_null, report};
use core::ffi::c_void;
use mm_core::{Backend, Gfp, Manager, Pfn};

/// See `rtmm_get_free_pages`.
#[inline]
pub fn get_free_pages<M: Manager>(m: M, flags: u32, order: u32) -> usize {
    m.mm().get_free_pages(Gfp(flags), order as usize).map_or(0, |pointer| pointer.as_ptr().expose_provenance())
}

/// See `rtmm_get_zeroed_page`.
#[inline]
pub fn get_zeroed_page<M: Manager>(m: M, flags: u32) -> usize {
    m.mm().get_zeroed_page(Gfp(flags)).map_or(0, |pointer| pointer.as_ptr().expose_provenance())
}

/// See `rtmm_free_pages`.
#[inline]
pub fn free_pages<M: Manager>(m: M, addr: usize, order: u32) {
    report(m, addr, m.mm().free_pages(core::ptr::without_provenance(addr), order as usize));
}

/// See `rtmm_alloc_pages_exact`.
#[inline]
pub fn alloc_pages_exact<M: Manager>(m: M, size: usize, flags: u32) -> *mut c_void {
    or_null(m.mm().alloc_pages_exact(size, Gfp(flags)))
}

/// See `rtmm_free_pages_exact`.
#[inline]
pub fn free_pages_exact<M: Manager>(m: M, start: *const c_void, size: usize) {
    report(m, start.addr(), m.mm().free_pages_exact(start.cast(), size));
}

/// See `rtmm_alloc_pages`.
#[inline]
pub fn alloc_pages<M: Manager>(m: M, flags: u32, order: u32) -> usize {
    m.mm().alloc_pages(Gfp(flags), order as usize).map_or(0, |pfn| pfn.0 as usize)
}

/// See `rtmm_free_pages_frame`.
#[inline]
pub fn free_pages_frame<M: Manager>(m: M, pfn: usize, order: u32) {
    if pfn != 0 {
        let at = (pfn as u64) << M::Backend::PAGE_SHIFT;
        report(m, at as usize, m.mm().free_pages_frame(frame(pfn), order as usize));
    }
}

/// See `rtmm_page_address`.
#[inline]
pub fn page_address<M: Manager>(m: M, pfn: usize) -> *mut c_void {
    m.mm().page_address(frame(pfn)).map_or(core::ptr::null_mut(), |pointer| pointer.as_ptr().cast())
}

/// See `rtmm_virt_to_pfn`.
#[inline]
pub fn virt_to_pfn<M: Manager>(m: M, addr: *const c_void) -> usize {
    m.mm().pfn_of(addr.cast()).map_or(0, |pfn| pfn.0 as usize)
}

/// A frame number of C, which may be anything. One that does not fit is no frame of any RAM, as the last one is.
fn frame(pfn: usize) -> Pfn {
    Pfn(u32::try_from(pfn).unwrap_or(u32::MAX))
}
