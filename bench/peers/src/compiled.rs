//! Those of server processes. They take memory from the operating system, so the arena stays unused.

use crate::{Heap, HeapVisitor, layout};
use core::alloc::GlobalAlloc;
use core::ptr::NonNull;

pub(crate) fn visit(visitor: &mut impl HeapVisitor) {
    visitor.visit("mimalloc", |_, _| Process(mimalloc::MiMalloc));
    visitor.visit("snmalloc", |_, _| Process(snmalloc_rs::SnMalloc));
}

struct Process<A>(A);

// SAFETY: it is an allocator.
unsafe impl<A: GlobalAlloc> Heap for Process<A> {
    #[inline(always)]
    fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        // SAFETY: the size is not 0.
        unsafe { self.0.alloc(layout(size, align)) }
    }

    #[inline(always)]
    unsafe fn free(&mut self, ptr: NonNull<u8>, size: usize, align: usize) {
        // SAFETY: by the caller.
        unsafe { self.0.dealloc(ptr.as_ptr(), layout(size, align)) }
    }
}
