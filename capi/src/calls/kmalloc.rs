//! kmalloc and its kin.

use super::{refused, report};
use crate::gfp::RTMM_ZERO_SIZE_PTR;
use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::time::Duration;
use mm_core::{AllocError, FreeError, Gfp, Manager};

/// A pointer; null for an error, and for size 0 the sentinel that `kfree` accepts.
#[inline(always)]
fn object(result: Result<NonNull<u8>, AllocError>) -> *mut c_void {
    match result {
        Ok(pointer) => pointer.as_ptr().cast(),
        Err(AllocError::ZeroSize) => ptr::without_provenance_mut(RTMM_ZERO_SIZE_PTR),
        Err(_) => ptr::null_mut(),
    }
}

/// See `rtmm_kmalloc`.
#[inline]
pub fn kmalloc<M: Manager>(m: M, size: usize, flags: u32) -> *mut c_void {
    object(m.mm().kmalloc(size, Gfp(flags)))
}

/// See `rtmm_kmalloc_deadline`.
pub fn kmalloc_deadline<M: Manager>(m: M, size: usize, flags: u32, until: u64) -> *mut c_void {
    object(m.mm().kmalloc_deadline(size, Gfp(flags), Duration::from_nanos(until)))
}

/// See `rtmm_kzalloc`.
#[inline]
pub fn kzalloc<M: Manager>(m: M, size: usize, flags: u32) -> *mut c_void {
    object(m.mm().kzalloc(size, Gfp(flags)))
}

/// See `rtmm_kcalloc`.
#[inline]
pub fn kcalloc<M: Manager>(m: M, n: usize, size: usize, flags: u32) -> *mut c_void {
    object(m.mm().kcalloc(n, size, Gfp(flags)))
}

/// See `rtmm_kmalloc_array`.
#[inline]
pub fn kmalloc_array<M: Manager>(m: M, n: usize, size: usize, flags: u32) -> *mut c_void {
    match n.checked_mul(size) {
        Some(bytes) => object(m.mm().kmalloc(bytes, Gfp(flags))),
        None => ptr::null_mut(),
    }
}

/// See `rtmm_krealloc`.
pub fn krealloc<M: Manager>(m: M, object: *mut c_void, size: usize, flags: u32) -> *mut c_void {
    let old = if object.addr() == RTMM_ZERO_SIZE_PTR { ptr::null_mut() } else { object.cast::<u8>() };
    match m.mm().krealloc(old, size, Gfp(flags)) {
        Ok(Some(pointer)) => pointer.as_ptr().cast(),
        Ok(None) => ptr::without_provenance_mut(RTMM_ZERO_SIZE_PTR),
        Err(AllocError::BadPointer) => {
            let error = m.mm().ksize(old).err().unwrap_or(FreeError::DoubleFree);
            refused(m, old.addr(), error);
            ptr::null_mut()
        }
        Err(_) => ptr::null_mut(),
    }
}

/// See `rtmm_kmemdup`.
///
/// # Safety
/// `src` is null or good for reads of `len` bytes.
pub unsafe fn kmemdup<M: Manager>(m: M, src: *const c_void, len: usize, flags: u32) -> *mut c_void {
    if src.is_null() {
        return ptr::null_mut();
    }
    let copy = object(m.mm().kmalloc(len, Gfp(flags)));
    if len != 0 && !copy.is_null() {
        // SAFETY: the source by the caller; the copy is new and that long.
        unsafe { copy.cast::<u8>().copy_from_nonoverlapping(src.cast(), len) };
    }
    copy
}

/// See `rtmm_kstrdup`.
///
/// # Safety
/// `text` is null or a string ended by a zero.
pub unsafe fn kstrdup<M: Manager>(m: M, text: *const core::ffi::c_char, flags: u32) -> *mut core::ffi::c_char {
    if text.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: by the caller.
    let bytes = unsafe { core::ffi::CStr::from_ptr(text) }.count_bytes() + 1;
    // SAFETY: the string and its zero.
    unsafe { kmemdup(m, text.cast(), bytes, flags) }.cast()
}

/// See `rtmm_kfree`.
#[inline]
pub fn kfree<M: Manager>(m: M, object: *const c_void) {
    if object.addr() != RTMM_ZERO_SIZE_PTR {
        report(m, object.addr(), m.mm().kfree(object.cast()));
    }
}

/// See `rtmm_ksize`.
pub fn ksize<M: Manager>(m: M, object: *const c_void) -> usize {
    if object.addr() == RTMM_ZERO_SIZE_PTR {
        return 0;
    }
    m.mm().ksize(object.cast()).unwrap_or_else(|error| {
        refused(m, object.addr(), error);
        0
    })
}

/// See `rtmm_kvmalloc`.
pub fn kvmalloc<M: Manager>(m: M, size: usize, flags: u32) -> *mut c_void {
    object(m.mm().kvmalloc(size, Gfp(flags)))
}

/// See `rtmm_kvcalloc`.
pub fn kvcalloc<M: Manager>(m: M, n: usize, size: usize, flags: u32) -> *mut c_void {
    object(m.mm().kvcalloc(n, size, Gfp(flags)))
}

/// See `rtmm_kvfree`.
pub fn kvfree<M: Manager>(m: M, object: *const c_void) {
    if object.addr() != RTMM_ZERO_SIZE_PTR {
        report(m, object.addr(), m.mm().kvfree(object.cast()));
    }
}
