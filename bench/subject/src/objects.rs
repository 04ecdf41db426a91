//! The calls of a workload, made through a [`Meter`], and what was learnt of them.

use crate::calls::{self, Meter};
use bench_peers::{Frames, Heap};
use bench_traces::{Bytes, Calls, Order, Phase};
use core::num::NonZeroUsize;
use core::ptr::NonNull;

/// Bytes that were allocated, with what their free has to be told.
#[derive(Debug)]
pub struct Object {
    /// The first.
    pub ptr: NonNull<u8>,
    /// How many were asked for.
    pub size: u32,
    /// Their alignment.
    pub align: u32,
}

/// Pages that were allocated.
#[derive(Debug)]
pub struct Block {
    /// One more than what names the first, so that no block is as small as one.
    above: NonZeroUsize,
    /// `1 << order` of them.
    order: u32,
}

/// Which of the two calls a figure is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// An allocation.
    Alloc,
    /// An allocation that found nothing.
    Refused,
    /// A free.
    Free,
}

/// Hears what each counted call took.
pub trait Sink {
    /// A call of `side` took `cost`.
    fn put(&mut self, side: Side, cost: u32);
}

/// The calls of a workload on a heap.
pub struct HeapCalls<'a, H, M, S> {
    /// The heap.
    pub heap: &'a mut H,
    /// How counted calls are measured.
    pub meter: M,
    /// Where their cost goes.
    pub sink: &'a mut S,
}

impl<H: Heap, M: Meter, S: Sink> Calls for HeapCalls<'_, H, M, S> {
    type Request = Bytes;
    type Object = Object;

    fn alloc(&mut self, phase: Phase, request: Bytes) -> Option<Object> {
        let Bytes { size, align } = request;
        let heap: *mut H = self.heap;
        let addr = match phase {
            // SAFETY: the pointer is an exclusive reference's.
            Phase::Setup => unsafe { calls::alloc_bytes(heap, size, align, 0) },
            Phase::Counted => {
                // SAFETY: as above.
                let (addr, cost) = unsafe { self.meter.measure(calls::alloc_bytes::<H>, heap, [size, align, 0]) };
                self.sink.put(if addr == 0 { Side::Refused } else { Side::Alloc }, cost);
                addr
            }
        };
        let ptr = NonNull::new(core::ptr::with_exposed_provenance_mut(addr))?;
        Some(Object { ptr, size: size as u32, align: align as u32 })
    }

    fn free(&mut self, phase: Phase, object: Object) {
        let numbers = [object.ptr.addr().get(), object.size as usize, object.align as usize];
        let heap: *mut H = self.heap;
        match phase {
            Phase::Setup => {
                // SAFETY: the pointer is an exclusive reference's, and the object is that of one allocation.
                unsafe { calls::free_bytes(heap, numbers[0], numbers[1], numbers[2]) };
            }
            Phase::Counted => {
                // SAFETY: as above.
                let (_, cost) = unsafe { self.meter.measure(calls::free_bytes::<H>, heap, numbers) };
                self.sink.put(Side::Free, cost);
            }
        }
    }

    fn enough(&self) -> bool {
        self.meter.enough()
    }
}

/// The calls of a workload on an allocator of pages.
pub struct PageCalls<'a, F, M, S> {
    /// The allocator.
    pub frames: &'a mut F,
    /// How counted calls are measured.
    pub meter: M,
    /// Where their cost goes.
    pub sink: &'a mut S,
}

impl<F: Frames, M: Meter, S: Sink> Calls for PageCalls<'_, F, M, S> {
    type Request = Order;
    type Object = Block;

    fn alloc(&mut self, phase: Phase, Order(order): Order) -> Option<Block> {
        let frames: *mut F = self.frames;
        let first = match phase {
            // SAFETY: the pointer is an exclusive reference's.
            Phase::Setup => unsafe { calls::alloc_pages(frames, order, 0, 0) },
            Phase::Counted => {
                // SAFETY: as above.
                let (first, cost) = unsafe { self.meter.measure(calls::alloc_pages::<F>, frames, [order, 0, 0]) };
                self.sink.put(if first == usize::MAX { Side::Refused } else { Side::Alloc }, cost);
                first
            }
        };
        Some(Block { above: NonZeroUsize::new(first.wrapping_add(1))?, order: order as u32 })
    }

    fn free(&mut self, phase: Phase, block: Block) {
        let frames: *mut F = self.frames;
        let numbers = [block.above.get() - 1, block.order as usize, 0];
        match phase {
            Phase::Setup => {
                // SAFETY: the pointer is an exclusive reference's.
                unsafe { calls::free_pages(frames, numbers[0], numbers[1], 0) };
            }
            Phase::Counted => {
                // SAFETY: as above.
                let (_, cost) = unsafe { self.meter.measure(calls::free_pages::<F>, frames, numbers) };
                self.sink.put(Side::Free, cost);
            }
        }
    }

    fn enough(&self) -> bool {
        self.meter.enough()
    }
}
