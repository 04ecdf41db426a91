//! Where the records lie that C holds by pointer.
//!
//! A record lies some bytes inside an object of `kmalloc`, so every free but its own takes C's pointer for one into the
//! middle of an object, and refuses it.

use core::ffi::c_void;
use core::ptr::NonNull;
use mm_core::{GFP_KERNEL, Manager};

/// Bytes from the object to the record. It keeps what alignment kmalloc gives, which is at most this for any record.
const LEAD: usize = 16;

/// Room for a record of `bytes`, uninitialised, aligned to 8 bytes at least.
#[track_caller]
pub(super) fn room<M: Manager>(m: M, bytes: usize) -> Option<NonNull<u8>> {
    let object = m.mm().kmalloc(LEAD + bytes, GFP_KERNEL).ok()?;
    // SAFETY: inside the object.
    Some(unsafe { object.add(LEAD) })
}

/// Where a record of this type would lie for a pointer that C gave, which may be anything: RAM of this manager, aligned,
/// and inside one object.
///
/// Whatever `ksize` knows is an object of `kmalloc`, so reading there is reading RAM of this manager. Whether it is a record
/// says the record's mark.
pub(super) fn place<R, M: Manager>(m: M, handle: *const c_void) -> Option<*mut R> {
    let size = m.mm().ksize(handle.wrapping_byte_sub(LEAD).cast()).ok()?;
    let record = handle.cast_mut().cast::<R>();
    (size >= LEAD + size_of::<R>() && record.is_aligned()).then_some(record)
}

/// Gives the room of a record back.
pub(super) fn give<M: Manager>(m: M, record: *const c_void) {
    super::report(m, record.addr(), m.mm().kfree(record.wrapping_byte_sub(LEAD).cast()));
}
