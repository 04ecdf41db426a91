//! Shrinkers. As with caches, C holds one by a pointer to a record of ours in an object of `kmalloc`.

use super::records;
use crate::{EINVAL, rtmm_shrink_request, rtmm_shrinker};
use core::ffi::c_void;
use core::ptr;
use mm_core::{Manager, ShrinkRequest, Shrinker, ShrinkerId};

/// A function of a shrinker in C: how many things there are, or were freed.
pub type ShrinkFn = unsafe extern "C" fn(arg: *mut c_void, request: *const rtmm_shrink_request) -> usize;

/// The functions of one shrinker.
struct Functions {
    count: ShrinkFn,
    scan: ShrinkFn,
    arg: *mut c_void,
}

// SAFETY: the functions and what `arg` leads to may be used by any task, as `rtmm_shrinker_create` demands.
unsafe impl Sync for Functions {}

fn as_c(request: &ShrinkRequest) -> rtmm_shrink_request {
    let flags = request.flags.intersection(mm_core::Gfp::KNOWN).bits();
    rtmm_shrink_request { flags, reserved: 0, pages: request.pages, scan: request.scan }
}

impl Shrinker for Functions {
    fn count(&self, request: &ShrinkRequest) -> usize {
        // SAFETY: the caller of `shrinker_create` vouches for the function; no lock is held.
        unsafe { (self.count)(self.arg, &as_c(request)) }
    }

    fn scan(&self, request: &ShrinkRequest) -> usize {
        // SAFETY: as above.
        unsafe { (self.scan)(self.arg, &as_c(request)) }
    }
}

/// What a `struct rtmm_shrinker *` points to.
#[repr(C)]
struct Record {
    /// [`MARK`] mixed with the record's own address, while the shrinker is registered.
    mark: usize,
    id: Option<ShrinkerId>,
    functions: Functions,
}

/// Tells a live record from other objects of `kmalloc`.
const MARK: usize = 0x6b6e_7268;

/// The record behind a pointer that C gave, which may be anything.
fn record<M: Manager>(m: M, shrinker: *mut rtmm_shrinker) -> Option<*mut Record> {
    let record = records::place::<Record, M>(m, shrinker.cast())?;
    // SAFETY: RAM of this manager, aligned and inside one object; any value is a valid `usize`.
    let mark = unsafe { (&raw const (*record).mark).read() };
    (mark == MARK ^ record.addr()).then_some(record)
}

/// See `rtmm_shrinker_create`.
///
/// # Safety
/// The functions are null, or may be called by any task with `arg` and a request, until the shrinker is destroyed.
pub unsafe fn shrinker_create<M: Manager>(
    m: M,
    count: Option<ShrinkFn>,
    scan: Option<ShrinkFn>,
    arg: *mut c_void,
) -> *mut rtmm_shrinker {
    let (Some(count), Some(scan)) = (count, scan) else { return ptr::null_mut() };
    let Some(memory) = records::room(m, size_of::<Record>()) else { return ptr::null_mut() };
    let record = memory.cast::<Record>().as_ptr();
    // SAFETY: the room is new, long enough and aligned to 8 bytes at least.
    unsafe { record.write(Record { mark: 0, id: None, functions: Functions { count, scan, arg } }) };
    // SAFETY: the record stays until the shrinker was taken out, and these members are not changed before.
    let functions: &'static Functions = unsafe { &(*record).functions };
    match m.mm().register_shrinker(functions) {
        Ok(id) => {
            // SAFETY: the record is ours; nobody else has its address yet, but for the functions.
            unsafe {
                (&raw mut (*record).id).write(Some(id));
                (&raw mut (*record).mark).write(MARK ^ record.addr());
            }
            record.cast()
        }
        Err(_) => {
            records::give(m, memory.as_ptr().cast());
            ptr::null_mut()
        }
    }
}

/// See `rtmm_shrinker_destroy`.
pub fn shrinker_destroy<M: Manager>(m: M, shrinker: *mut rtmm_shrinker) -> i32 {
    if shrinker.is_null() {
        return 0;
    }
    let Some(record) = record(m, shrinker) else { return EINVAL };
    // SAFETY: a live record, whose number does not change.
    let Some(id) = (unsafe { (&raw const (*record).id).read() }) else { return EINVAL };
    if let Err(error) = m.mm().unregister_shrinker(id) {
        return -error.errno();
    }
    // SAFETY: it is not registered any more, so nobody but the caller has the record.
    unsafe { (&raw mut (*record).mark).write(0) };
    records::give(m, shrinker.cast());
    0
}
