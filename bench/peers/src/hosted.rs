//! Those of kernels written in Rust, and one that wants the crate `alloc`.

use crate::{Heap, HeapVisitor, layout, or_null};
use ax_allocator::{BaseAllocator as _, ByteAllocator as _};
use core::ptr::NonNull;

pub(crate) fn visit(visitor: &mut impl HeapVisitor) {
    visitor.visit("talc", Talc::new);
    visitor.visit("slab_allocator_rs", Slab::new);
    visitor.visit("ax-slab", AxSlab::new);
}

/// `talc`, with its default bins.
struct Talc(talc::base::Talc<talc::source::Manual, talc::DefaultBinning>);

impl Talc {
    unsafe fn new(arena: NonNull<u8>, len: usize) -> Self {
        let mut talc = talc::base::Talc::new(talc::source::Manual);
        // SAFETY: by the caller.
        unsafe { talc.claim(arena.as_ptr(), len) };
        Talc(talc)
    }
}

// SAFETY: it is an allocator.
unsafe impl Heap for Talc {
    #[inline(always)]
    fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the size is not 0.
        or_null(unsafe { self.0.allocate(layout(size, align)) })
    }

    #[inline(always)]
    unsafe fn free(&mut self, ptr: NonNull<u8>, size: usize, align: usize) {
        // SAFETY: by the caller.
        unsafe { self.0.deallocate(ptr.as_ptr(), layout(size, align)) }
    }
}

struct Slab(slab_allocator_rs::Heap);

impl Slab {
    unsafe fn new(arena: NonNull<u8>, len: usize) -> Self {
        // SAFETY: by the caller.
        Slab(unsafe { slab_allocator_rs::Heap::new(arena.as_ptr().expose_provenance(), len) })
    }
}

// SAFETY: it is an allocator.
unsafe impl Heap for Slab {
    #[inline(always)]
    fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        or_null(self.0.allocate(layout(size, align)).ok())
    }

    #[inline(always)]
    unsafe fn free(&mut self, ptr: NonNull<u8>, size: usize, align: usize) {
        // SAFETY: by the caller.
        unsafe { self.0.deallocate(ptr, layout(size, align)) }
    }
}

/// The slab allocator of ArceOS.
struct AxSlab(ax_allocator::SlabByteAllocator);

impl AxSlab {
    unsafe fn new(arena: NonNull<u8>, len: usize) -> Self {
        let mut slab = ax_allocator::SlabByteAllocator::new();
        slab.init(arena.as_ptr().expose_provenance(), len);
        AxSlab(slab)
    }
}

// SAFETY: it is an allocator.
unsafe impl Heap for AxSlab {
    #[inline(always)]
    fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        or_null(self.0.alloc(layout(size, align)).ok())
    }

    #[inline(always)]
    unsafe fn free(&mut self, ptr: NonNull<u8>, size: usize, align: usize) {
        self.0.dealloc(ptr, layout(size, align));
    }
}
