//! What each exported function does, for any manager.
//!
//! A function takes the manager, then what C gives. `export_c!` makes the symbols.

mod cache;
mod info;
mod io;
mod kmalloc;
mod mempool;
mod pages;
mod records;
mod shrink;
mod vmalloc;

pub use cache::*;
pub use info::*;
pub use io::*;
pub use kmalloc::*;
pub use mempool::*;
pub use pages::*;
pub use shrink::*;
pub use vmalloc::*;

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use mm_core::{Bug, FreeError, Manager, Platform};

/// A pointer, or null for an error.
#[inline(always)]
fn or_null<E>(result: Result<NonNull<u8>, E>) -> *mut c_void {
    match result {
        Ok(pointer) => pointer.as_ptr().cast(),
        Err(_) => ptr::null_mut(),
    }
}

/// Tells the platform of a free that was refused.
#[inline(always)]
fn report<M: Manager>(m: M, addr: usize, result: Result<(), FreeError>) {
    if let Err(error) = result {
        refused(m, addr, error);
    }
}

#[cold]
#[inline(never)]
fn refused<M: Manager>(m: M, addr: usize, error: FreeError) {
    m.mm().platform().bug(&Bug::BadFree { addr, error });
}
