//! Other allocators behind one door, so that each is given the same calls in the same way.
//!
//! None of them is locked here and none checks its frees, except that `embedded-alloc` always takes a critical section.
#![no_std]

#[cfg(feature = "hosted")]
extern crate alloc;

#[cfg(feature = "compiled")]
mod compiled;
mod embedded;
#[cfg(feature = "hosted")]
mod hosted;
mod pages;
#[cfg(feature = "hosted")]
mod slab_and_buddy;

use core::ptr::NonNull;

/// An allocator of bytes.
///
/// # Safety
/// What `alloc` gives is not null unless it failed, aligned, `size` bytes long, and nobody else's until it is freed.
pub unsafe trait Heap {
    /// Allocates; null when there is none.
    fn alloc(&mut self, size: usize, align: usize) -> *mut u8;

    /// Frees.
    ///
    /// # Safety
    /// `ptr` came from `alloc` of this heap with the same size and alignment, and was not freed since.
    unsafe fn free(&mut self, ptr: NonNull<u8>, size: usize, align: usize);
}

/// An allocator of pages, by frame number or address.
pub trait Frames {
    /// By how much two frames that are neighbours differ in what `alloc` gives.
    const PER_FRAME: usize;

    /// Names the first of `1 << order` frames, aligned to their number; `None` when there are none.
    fn alloc(&mut self, order: usize) -> Option<usize>;

    /// Frees them.
    fn free(&mut self, first: usize, order: usize);
}

/// Something to be done with each heap.
pub trait HeapVisitor {
    /// `make` takes over an arena, which is aligned to 64 KiB and outlives the heap.
    fn visit<H: Heap>(&mut self, name: &'static str, make: unsafe fn(arena: NonNull<u8>, len: usize) -> H);
}

/// Something to be done with each allocator of pages.
pub trait FramesVisitor {
    /// `make` starts with frames 0 to `frames`, all free.
    fn visit<F: Frames>(&mut self, name: &'static str, make: fn(frames: usize) -> F);
}

/// Shows `visitor` every heap that this build has.
pub fn visit_heaps(visitor: &mut impl HeapVisitor) {
    embedded::visit(visitor);
    #[cfg(feature = "hosted")]
    {
        hosted::visit(visitor);
        slab_and_buddy::visit(visitor);
    }
    #[cfg(feature = "compiled")]
    compiled::visit(visitor);
}

/// Shows `visitor` every allocator of pages that this build has.
pub fn visit_frames(visitor: &mut impl FramesVisitor) {
    pages::visit(visitor);
}

pub use embedded::Rlsf;
/// The names of what feature `compiled` adds, for a table that has to say that it was not built.
pub const COMPILED: [&str; 2] = ["mimalloc", "snmalloc"];

/// The layout of a request; sizes and alignments of workloads are always good for one.
#[inline(always)]
fn layout(size: usize, align: usize) -> core::alloc::Layout {
    debug_assert!(align.is_power_of_two() && size <= isize::MAX as usize - align);
    // SAFETY: the workloads ask for a few MiB at most and for powers of two.
    unsafe { core::alloc::Layout::from_size_align_unchecked(size, align) }
}

/// The pointer, or null.
#[inline(always)]
fn or_null(ptr: Option<NonNull<u8>>) -> *mut u8 {
    ptr.map_or(core::ptr::null_mut(), NonNull::as_ptr)
}
