//! Whether an allocator keeps its word on a workload: no overlap, aligned, and nothing lost that was written.

use bench_peers::{Frames, Heap};
use std::collections::BTreeMap;
use std::ptr::NonNull;

/// A heap that is watched.
pub struct CheckedHeap<H> {
    inner: H,
    live: BTreeMap<usize, usize>,
    /// What it did wrong first.
    pub wrong: Option<String>,
}

impl<H: Heap> CheckedHeap<H> {
    /// Watches `inner`.
    pub fn new(inner: H) -> Self {
        CheckedHeap { inner, live: BTreeMap::new(), wrong: None }
    }

    fn blame(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }
}

// SAFETY: it is the heap it watches.
unsafe impl<H: Heap> Heap for CheckedHeap<H> {
    fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        let ptr = self.inner.alloc(size, align);
        if ptr.is_null() {
            return ptr;
        }
        let at = ptr.addr();
        if !at.is_multiple_of(align) {
            self.blame(format!("{size} bytes at {at:#x} are not aligned to {align}"));
        }
        let overlaps = overlap(&self.live, at, size);
        if let Some((other, len)) = overlaps {
            self.blame(format!("{size} bytes at {at:#x} overlap {len} bytes at {other:#x}"));
        } else {
            // SAFETY: the bytes are the caller's by now, and nobody else's.
            unsafe { ptr.write_bytes(tag(at), size.min(16)) };
        }
        self.live.insert(at, size);
        ptr
    }

    unsafe fn free(&mut self, ptr: NonNull<u8>, size: usize, align: usize) {
        let at = ptr.addr().get();
        self.live.remove(&at);
        // SAFETY: the object is live still.
        let first = unsafe { ptr.read() };
        // SAFETY: as above.
        let last = unsafe { ptr.add(size.min(16) - 1).read() };
        if first != tag(at) || last != tag(at) {
            self.blame(format!("what was written to {size} bytes at {at:#x} is not there any more"));
        }
        // SAFETY: by the caller.
        unsafe { self.inner.free(ptr, size, align) }
    }
}

/// An allocator of pages that is watched.
pub struct CheckedFrames<F> {
    inner: F,
    live: BTreeMap<usize, usize>,
    /// What it did wrong first.
    pub wrong: Option<String>,
}

impl<F: Frames> CheckedFrames<F> {
    /// Watches `inner`.
    pub fn new(inner: F) -> Self {
        CheckedFrames { inner, live: BTreeMap::new(), wrong: None }
    }
}

impl<F: Frames> Frames for CheckedFrames<F> {
    const PER_FRAME: usize = F::PER_FRAME;

    fn alloc(&mut self, order: usize) -> Option<usize> {
        let first = self.inner.alloc(order)?;
        let len = F::PER_FRAME << order;
        if !first.is_multiple_of(len) {
            self.wrong.get_or_insert(format!("a block of order {order} at {first:#x} is not aligned"));
        }
        if let Some((other, len)) = overlap(&self.live, first, len) {
            self.wrong.get_or_insert(format!("order {order} at {first:#x} overlaps {len} at {other:#x}"));
        }
        self.live.insert(first, len);
        Some(first)
    }

    fn free(&mut self, first: usize, order: usize) {
        self.live.remove(&first);
        self.inner.free(first, order);
    }
}

/// What is live in `len` from `at` on.
fn overlap(live: &BTreeMap<usize, usize>, at: usize, len: usize) -> Option<(usize, usize)> {
    let (&other, &other_len) = live.range(..at + len).next_back()?;
    (other + other_len > at).then_some((other, other_len))
}

/// What is written into the object at `at`.
fn tag(at: usize) -> u8 {
    (at >> 3) as u8 ^ 0xa5
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the same bytes again and again.
    struct Same([u64; 8]);

    // SAFETY: it is not, and that is the point: the test never uses both objects.
    unsafe impl Heap for Same {
        fn alloc(&mut self, _: usize, _: usize) -> *mut u8 {
            self.0.as_mut_ptr().cast()
        }
        unsafe fn free(&mut self, _: NonNull<u8>, _: usize, _: usize) {}
    }

    #[test]
    fn overlap_and_misalignment_are_seen() {
        let mut heap = CheckedHeap::new(Same([0; 8]));
        assert!(!heap.alloc(16, 8).is_null() && heap.wrong.is_none());
        heap.alloc(16, 8);
        assert!(heap.wrong.as_ref().is_some_and(|wrong| wrong.contains("overlap")), "{:?}", heap.wrong);
        let mut heap = CheckedHeap::new(Same([0; 8]));
        heap.alloc(16, 1 << 40);
        assert!(heap.wrong.is_some_and(|wrong| wrong.contains("aligned")));
    }

    #[test]
    fn damage_is_seen() {
        let mut heap = CheckedHeap::new(Same([0; 8]));
        let ptr = NonNull::new(heap.alloc(16, 8)).unwrap();
        // SAFETY: sixteen bytes are there.
        unsafe { ptr.add(15).write(0) };
        // SAFETY: allocated above.
        unsafe { heap.free(ptr, 16, 8) };
        assert!(heap.wrong.is_some());
    }
}
