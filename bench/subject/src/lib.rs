//! rtmm as the workloads see it: the same door as its peers', on the host and on every board.
#![no_std]

mod calls;
mod cost;
mod masked;
mod objects;

pub use calls::{Call, Meter, nothing};
pub use cost::{Histogram, Pairs, Tally};
pub use masked::{Borrowed, Masked, MaskedPlatform, Spans, Tick};
pub use objects::{Block, HeapCalls, Object, PageCalls, Side, Sink};

use bench_peers::{Frames, Heap};
use core::ptr::NonNull;
use rtmm::{Backend, GFP_KERNEL, Mm, Platform};

/// A manager, asked for bytes by `kmalloc` and for pages by `get_free_pages`.
pub struct Kernel<'a, P: Platform, B: Backend>(pub &'a Mm<P, B>);

// SAFETY: objects are distinct and live until freed. What `kmalloc` gives is aligned to 8 bytes, and to a page from a
// page on, which are the alignments the workloads ask for.
unsafe impl<P: Platform, B: Backend> Heap for Kernel<'_, P, B> {
    #[inline(always)]
    fn alloc(&mut self, size: usize, _align: usize) -> *mut u8 {
        self.0.kmalloc(size, GFP_KERNEL).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    #[inline(always)]
    unsafe fn free(&mut self, ptr: NonNull<u8>, _size: usize, _align: usize) {
        if self.0.kfree(ptr.as_ptr()).is_err() {
            refused();
        }
    }
}

impl<P: Platform, B: Backend> Frames for Kernel<'_, P, B> {
    const PER_FRAME: usize = B::PAGE_SIZE;

    #[inline(always)]
    fn alloc(&mut self, order: usize) -> Option<usize> {
        self.0.get_free_pages(GFP_KERNEL, order).ok().map(|page| page.as_ptr().expose_provenance())
    }

    #[inline(always)]
    fn free(&mut self, first: usize, order: usize) {
        if self.0.free_pages(core::ptr::with_exposed_provenance(first), order).is_err() {
            refused();
        }
    }
}

/// Pages of exact numbers: an "order" is a number of pages here.
pub struct ExactPages<'a, P: Platform, B: Backend>(pub &'a Mm<P, B>);

impl<P: Platform, B: Backend> Frames for ExactPages<'_, P, B> {
    const PER_FRAME: usize = B::PAGE_SIZE;

    #[inline(always)]
    fn alloc(&mut self, pages: usize) -> Option<usize> {
        let pages = self.0.alloc_pages_exact(pages * B::PAGE_SIZE, GFP_KERNEL).ok()?;
        Some(pages.as_ptr().expose_provenance())
    }

    #[inline(always)]
    fn free(&mut self, first: usize, pages: usize) {
        if self.0.free_pages_exact(core::ptr::with_exposed_provenance(first), pages * B::PAGE_SIZE).is_err() {
            refused();
        }
    }
}

/// A free of what the manager gave was refused, which must not be.
#[cold]
#[inline(never)]
fn refused() {
    panic!("a free was refused");
}
