//! Whole pages.

use super::{or_null, report};
use core::ffi::c_void;
use core::time::Duration;
use mm_core::{Backend, FreeError, Gfp, Manager, Pfn, RefError};

/// See `rtmm_get_free_pages`.
#[inline]
pub fn get_free_pages<M: Manager>(m: M, flags: u32, order: u32) -> usize {
    m.mm().get_free_pages(Gfp(flags), order as usize).map_or(0, |pointer| pointer.as_ptr().expose_provenance())
}

/// See `rtmm_get_free_pages_deadline`.
pub fn get_free_pages_deadline<M: Manager>(m: M, flags: u32, order: u32, until: u64) -> usize {
    let pages = m.mm().get_free_pages_deadline(Gfp(flags), order as usize, Duration::from_nanos(until));
    pages.map_or(0, |pointer| pointer.as_ptr().expose_provenance())
}

/// See `rtmm_alloc_pages_deadline`.
pub fn alloc_pages_deadline<M: Manager>(m: M, flags: u32, order: u32, until: u64) -> usize {
    m.mm().alloc_pages_deadline(Gfp(flags), order as usize, Duration::from_nanos(until)).map_or(0, |pfn| pfn.0 as usize)
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
    // Frame 0 may be RAM, but is never handed out, and is C's word for none.
    let address = if pfn == 0 { None } else { m.mm().page_address(frame(pfn)) };
    address.map_or(core::ptr::null_mut(), |pointer| pointer.as_ptr().cast())
}

/// See `rtmm_virt_to_pfn`.
#[inline]
pub fn virt_to_pfn<M: Manager>(m: M, addr: *const c_void) -> usize {
    m.mm().pfn_of(addr.cast()).map_or(0, |pfn| pfn.0 as usize)
}

/// See `rtmm_alloc_pages_bulk`.
///
/// # Safety
/// `frames` is null or good for `count` numbers.
pub unsafe fn alloc_pages_bulk<M: Manager>(m: M, flags: u32, count: usize, frames: *mut usize) -> usize {
    // More than an address space holds is no array.
    if frames.is_null() || !frames.is_aligned() || count > isize::MAX as usize / size_of::<usize>() {
        return 0;
    }
    // SAFETY: by the caller.
    let frames = unsafe { core::slice::from_raw_parts_mut(frames, count) };
    let mut filled = 0;
    for chunk in frames.chunks_mut(CHUNK) {
        let mut pages = [None; CHUNK];
        let pages = &mut pages[..chunk.len()];
        for (page, number) in pages.iter_mut().zip(&*chunk) {
            *page = (*number != 0).then(|| frame(*number));
        }
        let got = m.mm().alloc_pages_bulk(Gfp(flags), pages).unwrap_or(0);
        for (number, page) in chunk.iter_mut().zip(&*pages) {
            *number = page.map_or(0, |pfn| pfn.0 as usize);
        }
        filled += got;
        if got < chunk.len() {
            break;
        }
    }
    filled
}

/// Frames on the stack at a time.
const CHUNK: usize = 32;

/// See `rtmm_split_page`.
pub fn split_page<M: Manager>(m: M, pfn: usize, order: u32) -> i32 {
    m.mm().split_page(frame(pfn), order as usize).map_or_else(|error| -error.errno(), |()| 0)
}

/// See `rtmm_get_page`.
pub fn get_page<M: Manager>(m: M, pfn: usize) -> bool {
    m.mm().get_page(frame(pfn)).is_ok()
}

/// See `rtmm_put_page`.
pub fn put_page<M: Manager>(m: M, pfn: usize) {
    let at = ((pfn as u64) << M::Backend::PAGE_SHIFT) as usize;
    let error = match m.mm().put_page(frame(pfn)) {
        Ok(()) => return,
        // Nobody but the owner has it, so this is the owner: in C the last one to put a page frees it.
        Err(RefError::NotHeld) => {
            let orders = 0..=M::Backend::MAX_ORDER;
            let free = |order| m.mm().free_pages_frame(frame(pfn), order);
            let result = orders.map(free).find(|result| !matches!(result, Err(FreeError::WrongOrder)));
            return report(m, at, result.unwrap_or(Err(FreeError::WrongOrder)));
        }
        Err(RefError::NotReady) => FreeError::NotReady,
        Err(RefError::Free) => FreeError::DoubleFree,
        Err(RefError::Interior) => FreeError::Interior,
        Err(RefError::Reserved) => FreeError::Reserved,
        Err(RefError::WrongAllocator) => FreeError::WrongAllocator,
        Err(_) => FreeError::Foreign,
    };
    report(m, at, Err(error));
}

/// See `rtmm_page_count`.
pub fn page_count<M: Manager>(m: M, pfn: usize) -> i32 {
    m.mm().page_count(frame(pfn)) as i32
}

/// A frame number of C, which may be anything. One that does not fit is no frame of any RAM, as the last one is.
fn frame(pfn: usize) -> Pfn {
    Pfn(u32::try_from(pfn).unwrap_or(u32::MAX))
}
