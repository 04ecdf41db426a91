//! What a platform hears of, as C reads it.

use crate::uintptr_t;
use core::ffi::{CStr, c_char};
use mm_core::{Bug, FreeError};

/// A wrong free: refused, and nothing was changed. `reason` says why.
pub const RTMM_BUG_BAD_FREE: u32 = 1;
/// A flag that may wait was used where waiting is impossible; told once for each function, and the call went on.
pub const RTMM_BUG_MAY_WAIT_IN_ATOMIC: u32 = 2;
/// A cache was destroyed while objects were live; it stays. `address` is their number.
pub const RTMM_BUG_CACHE_BUSY: u32 = 3;
/// The manager's own data contradicts itself. `address` is where.
pub const RTMM_BUG_DAMAGE: u32 = 4;
/// Another CPU did not acknowledge a TLB shootdown. `address` is its number.
pub const RTMM_BUG_NO_ACKNOWLEDGEMENT: u32 = 5;
/// The library itself panicked, which no input should bring about; the call never returns.
pub const RTMM_BUG_PANIC: u32 = 6;
/// A pool was destroyed while elements were out; it stays. `address` is their number.
pub const RTMM_BUG_POOL_BUSY: u32 = 8;
/// Something newer than this list.
pub const RTMM_BUG_OTHER: u32 = 7;

/// The manager is not set up.
pub const RTMM_FREE_NOT_READY: u32 = 1;
/// It is free already.
pub const RTMM_FREE_DOUBLE: u32 = 2;
/// It points inside an allocation.
pub const RTMM_FREE_INTERIOR: u32 = 3;
/// No memory of this manager.
pub const RTMM_FREE_FOREIGN: u32 = 4;
/// A reserved, boot or metadata page.
pub const RTMM_FREE_RESERVED: u32 = 5;
/// Not aligned as anything allocated would be.
pub const RTMM_FREE_MISALIGNED: u32 = 6;
/// Allocated with another order or size.
pub const RTMM_FREE_WRONG_ORDER: u32 = 7;
/// Allocated by another call.
pub const RTMM_FREE_WRONG_ALLOCATOR: u32 = 8;
/// An object of another cache, or a cache that is none.
pub const RTMM_FREE_WRONG_CACHE: u32 = 9;
/// Something newer than this list.
pub const RTMM_FREE_OTHER: u32 = 10;

/// What the callback `bug` is told. The manager is consistent and holds no lock; the callback may allocate and free.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rtmm_bug {
    /// One of `RTMM_BUG_*`; there may be more one day.
    pub kind: u32,
    /// For a wrong free one of `RTMM_FREE_*`, else 0.
    pub reason: u32,
    /// The address in question, or what `kind` says.
    pub address: uintptr_t,
    /// What happened, in English, ended by a zero; it stays valid.
    pub text: *const c_char,
}

impl rtmm_bug {
    pub(crate) fn new(kind: u32, reason: u32, address: usize, text: &'static CStr) -> rtmm_bug {
        rtmm_bug { kind, reason, address, text: text.as_ptr() }
    }
}

impl From<&Bug> for rtmm_bug {
    fn from(bug: &Bug) -> rtmm_bug {
        match *bug {
            Bug::BadFree { addr, error } => {
                let (reason, text) = refusal(error);
                rtmm_bug::new(RTMM_BUG_BAD_FREE, reason, addr, text)
            }
            Bug::MayWaitInAtomic { .. } => {
                rtmm_bug::new(RTMM_BUG_MAY_WAIT_IN_ATOMIC, 0, 0, c"a flag that may wait, in atomic context")
            }
            Bug::CacheBusy { objects } => {
                rtmm_bug::new(RTMM_BUG_CACHE_BUSY, 0, objects, c"a cache destroyed with live objects")
            }
            Bug::PoolBusy { elements } => {
                rtmm_bug::new(RTMM_BUG_POOL_BUSY, 0, elements, c"a pool destroyed with elements out")
            }
            Bug::Damage { at, .. } => rtmm_bug::new(RTMM_BUG_DAMAGE, 0, at, c"damaged metadata"),
            Bug::NoAcknowledgement { cpu } => {
                rtmm_bug::new(RTMM_BUG_NO_ACKNOWLEDGEMENT, 0, cpu, c"no acknowledgement of a TLB shootdown")
            }
            _ => rtmm_bug::new(RTMM_BUG_OTHER, 0, 0, c"something this interface has no number for"),
        }
    }
}

fn refusal(error: FreeError) -> (u32, &'static CStr) {
    match error {
        FreeError::NotReady => (RTMM_FREE_NOT_READY, c"bad free: the memory manager is not set up"),
        FreeError::DoubleFree => (RTMM_FREE_DOUBLE, c"bad free: already free"),
        FreeError::Interior => (RTMM_FREE_INTERIOR, c"bad free: points inside an allocation"),
        FreeError::Foreign => (RTMM_FREE_FOREIGN, c"bad free: not memory of this manager"),
        FreeError::Reserved => (RTMM_FREE_RESERVED, c"bad free: reserved memory"),
        FreeError::Misaligned => (RTMM_FREE_MISALIGNED, c"bad free: not aligned to a page"),
        FreeError::WrongOrder => (RTMM_FREE_WRONG_ORDER, c"bad free: allocated with another order"),
        FreeError::WrongAllocator => (RTMM_FREE_WRONG_ALLOCATOR, c"bad free: allocated by another call"),
        FreeError::WrongCache => (RTMM_FREE_WRONG_CACHE, c"bad free: an object of another cache"),
        _ => (RTMM_FREE_OTHER, c"bad free"),
    }
}
