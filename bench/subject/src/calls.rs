//! The one call, never inlined, through which every allocator is reached.
//!
//! Size and alignment are values the compiler knows nothing of. What an empty call costs is measured in the same way
//! and taken off, so that a figure is what the allocator itself takes.

use bench_peers::{Frames, Heap};
use core::ptr::NonNull;

/// A call on `subject`, with up to three numbers.
pub type Call<T> = unsafe extern "C" fn(subject: *mut T, usize, usize, usize) -> usize;

/// Allocates `size` bytes aligned to `align`; 0 when there are none.
///
/// # Safety
/// `heap` is valid and nobody else's during the call.
#[inline(never)]
pub unsafe extern "C" fn alloc_bytes<H: Heap>(heap: *mut H, size: usize, align: usize, _: usize) -> usize {
    // SAFETY: by the caller.
    unsafe { &mut *heap }.alloc(size, align).expose_provenance()
}

/// Frees the bytes at `addr`.
///
/// # Safety
/// `heap` is valid and nobody else's during the call, and allocated the object with these numbers.
#[inline(never)]
pub unsafe extern "C" fn free_bytes<H: Heap>(heap: *mut H, addr: usize, size: usize, align: usize) -> usize {
    // SAFETY: by the caller; objects are not null.
    unsafe { (*heap).free(NonNull::new_unchecked(core::ptr::with_exposed_provenance_mut(addr)), size, align) };
    0
}

/// Allocates `1 << order` pages; `usize::MAX` when there are none.
///
/// # Safety
/// `frames` is valid and nobody else's during the call.
#[inline(never)]
pub unsafe extern "C" fn alloc_pages<F: Frames>(frames: *mut F, order: usize, _: usize, _: usize) -> usize {
    // SAFETY: by the caller.
    unsafe { &mut *frames }.alloc(order).unwrap_or(usize::MAX)
}

/// Frees pages.
///
/// # Safety
/// `frames` is valid and nobody else's during the call.
#[inline(never)]
pub unsafe extern "C" fn free_pages<F: Frames>(frames: *mut F, first: usize, order: usize, _: usize) -> usize {
    // SAFETY: by the caller.
    unsafe { &mut *frames }.free(first, order);
    0
}

/// The call that does nothing.
///
/// # Safety
/// None is needed.
#[inline(never)]
pub unsafe extern "C" fn nothing<T>(_: *mut T, first: usize, _: usize, _: usize) -> usize {
    first
}

/// How one call is made, and what is learnt of it.
pub trait Meter {
    /// Makes a call that is measured.
    ///
    /// # Safety
    /// Those of the call.
    unsafe fn measure<T>(&mut self, call: Call<T>, subject: *mut T, numbers: [usize; 3]) -> (usize, u32);

    /// True when there were as many as can be afforded.
    fn enough(&self) -> bool {
        false
    }
}
