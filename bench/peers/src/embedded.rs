//! Those for machines without an operating system: they build for every board.

use crate::{Heap, HeapVisitor, layout, or_null};
use core::ptr::NonNull;

pub(crate) fn visit(visitor: &mut impl HeapVisitor) {
    visitor.visit("rlsf", Rlsf::new);
    visitor.visit("embedded-alloc", Embedded::new);
    visitor.visit("linked_list_allocator", LinkedList::new);
    visitor.visit("buddy_system_allocator", Buddy::new);
}

/// The shape that `rlsf` uses for its own global allocator, on a 64-bit machine.
type Tlsf = rlsf::Tlsf<'static, usize, usize, { usize::BITS as usize }, { usize::BITS as usize }>;

/// `rlsf`, in the shape of its own global allocator.
pub struct Rlsf(Tlsf);

impl Rlsf {
    /// Takes over an arena.
    ///
    /// # Safety
    /// The `len` bytes at `arena` are nobody else's as long as it lives.
    pub unsafe fn new(arena: NonNull<u8>, len: usize) -> Self {
        let mut tlsf = Tlsf::new();
        // SAFETY: by the caller.
        unsafe { tlsf.insert_free_block_ptr(NonNull::slice_from_raw_parts(arena, len)) };
        Rlsf(tlsf)
    }
}

// SAFETY: it is an allocator.
unsafe impl Heap for Rlsf {
    #[inline(always)]
    fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        or_null(self.0.allocate(layout(size, align)))
    }

    #[inline(always)]
    unsafe fn free(&mut self, ptr: NonNull<u8>, _size: usize, align: usize) {
        // SAFETY: by the caller.
        unsafe { self.0.deallocate(ptr, align) }
    }
}

struct Embedded(embedded_alloc::TlsfHeap);

impl Embedded {
    unsafe fn new(arena: NonNull<u8>, len: usize) -> Self {
        let heap = embedded_alloc::TlsfHeap::empty();
        // SAFETY: by the caller, and this is the first call.
        unsafe { heap.init(arena.as_ptr().expose_provenance(), len) };
        Embedded(heap)
    }
}

// SAFETY: it is an allocator.
unsafe impl Heap for Embedded {
    #[inline(always)]
    fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the size is not 0.
        unsafe { core::alloc::GlobalAlloc::alloc(&self.0, layout(size, align)) }
    }

    #[inline(always)]
    unsafe fn free(&mut self, ptr: NonNull<u8>, size: usize, align: usize) {
        // SAFETY: by the caller.
        unsafe { core::alloc::GlobalAlloc::dealloc(&self.0, ptr.as_ptr(), layout(size, align)) }
    }
}

struct LinkedList(linked_list_allocator::Heap);

impl LinkedList {
    unsafe fn new(arena: NonNull<u8>, len: usize) -> Self {
        // SAFETY: by the caller.
        LinkedList(unsafe { linked_list_allocator::Heap::new(arena.as_ptr(), len) })
    }
}

// SAFETY: it is an allocator.
unsafe impl Heap for LinkedList {
    #[inline(always)]
    fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        or_null(self.0.allocate_first_fit(layout(size, align)).ok())
    }

    #[inline(always)]
    unsafe fn free(&mut self, ptr: NonNull<u8>, size: usize, align: usize) {
        // SAFETY: by the caller.
        unsafe { self.0.deallocate(ptr, layout(size, align)) }
    }
}

struct Buddy(buddy_system_allocator::Heap<32>);

impl Buddy {
    unsafe fn new(arena: NonNull<u8>, len: usize) -> Self {
        let mut heap = buddy_system_allocator::Heap::new();
        // SAFETY: by the caller.
        unsafe { heap.init(arena.as_ptr().expose_provenance(), len) };
        Buddy(heap)
    }
}

// SAFETY: it is an allocator.
unsafe impl Heap for Buddy {
    #[inline(always)]
    fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        or_null(self.0.alloc(layout(size, align)).ok())
    }

    #[inline(always)]
    unsafe fn free(&mut self, ptr: NonNull<u8>, size: usize, align: usize) {
        // SAFETY: by the caller.
        unsafe { self.0.dealloc(ptr, layout(size, align)) }
    }
}
