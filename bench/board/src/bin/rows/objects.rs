//! The rows of kmalloc.

use bench_board::board::{Backend, MM, say};
use bench_board::{Counter, PAIR, Row, room};
use bench_peers::{Heap, Rlsf};
use bench_subject::{HeapCalls, Kernel, Object, Pairs};
use bench_traces::{self as traces, Bytes, FreeOrder, SplitMix64};
use core::ptr::NonNull;
use rtmm::{Backend as _, GFP_KERNEL};

/// Pairs and replaces of a row.
const COUNT: usize = 100_000;
/// Batches.
const BATCHES: usize = 20;
/// Objects of a batch; a small board's stack has no room for a thousand numbers.
const BATCH: usize = if Backend::PAGE_SIZE < 4096 { 100 } else { traces::BATCH.0 };
/// Objects of the mixed loads; fewer where they would fill a quarter of memory.
const AVERAGE: usize = 256;
/// The average of a burst of large ones.
const AVERAGE_LARGE: usize = 37 << 10;
/// The peer that is measured on a stretch of the same memory.
const PEER: &str = "rlsf";

fn small(rng: &mut SplitMix64) -> Bytes {
    Bytes::of(traces::size_small(rng))
}

/// How many objects of the mixed loads the board has room for.
pub fn live() -> usize {
    (MM.free_page_count() * Backend::PAGE_SIZE / 4 / AVERAGE).min(traces::SMALL_LIVE)
}

/// kmalloc_64, kmalloc_mixed, kmalloc_kernel, kmalloc_worst.
pub fn rows(counter: Counter, pairs: &mut Pairs) -> Option<()> {
    let slots = room::<Object>(live());
    let mut own = Bench { counter, heap: Kernel(&MM), worst: 0 };
    // The peer's own lists are half of a small board's stack.
    let mut peer = if Backend::PAGE_SIZE < 4096 { None } else { on_peer(counter, slots.len()) };

    let (pair, worst) = own.run(pairs, |calls| traces::pairs(calls, COUNT, Bytes::of(64)))?;
    let other = peer.as_mut().and_then(|peer| peer.run(pairs, |calls| traces::pairs(calls, COUNT, Bytes::of(64))));
    let peer_of = |found: Option<((u32, u32), u32)>, mean: bool| {
        found.map(|((median, tenths), _)| (PEER, if mean { tenths } else { median * 10 }))
    };
    Row { id: "kmalloc_64", unit: PAIR, tenths: pair.0 * 10, worst: Some(worst), peer: peer_of(other, false) }.print();

    let warm = traces::SMALL_WARM.min(slots.len() * 5);
    let (pair, worst) = own.run(pairs, |calls| traces::replaces(calls, (warm, COUNT), slots, small))?;
    let other =
        peer.as_mut().and_then(|peer| peer.run(pairs, |calls| traces::replaces(calls, (warm, COUNT), slots, small)));
    let unit = "instructions per pair, mean";
    Row { id: "kmalloc_mixed", unit, tenths: pair.1, worst: Some(worst), peer: peer_of(other, true) }.print();

    let (pair, worst) = own.run(pairs, |calls| traces::kernel_mixed(calls, COUNT, slots))?;
    let other = peer.as_mut().and_then(|peer| peer.run(pairs, |calls| traces::kernel_mixed(calls, COUNT, slots)));
    Row { id: "kmalloc_kernel", unit, tenths: pair.1, worst: Some(worst), peer: peer_of(other, true) }.print();

    // The rest is for the worst call only, so that a small board may run out of memory.
    own.run(pairs, |calls| traces::cold(calls, slots, small));
    let batch = slots.len().min(BATCH);
    let mut order = [0; BATCH];
    let order = &mut order[..batch];
    for free in [FreeOrder::Lifo, FreeOrder::Fifo, FreeOrder::Shuffled] {
        let slots = &mut slots[..order.len()];
        own.run(pairs, |calls| traces::batches(calls, BATCHES, Bytes::of(64), free, slots, order));
    }
    let large = |rng: &mut SplitMix64| Bytes { size: traces::size_large(rng).min(largest()), align: 8 };
    let few = slots.len().min((live() / 32).clamp(1, traces::LARGE_LIVE));
    let few = &mut slots[..few];
    own.run(pairs, |calls| traces::replaces(calls, (1000, COUNT / 10), few, large));
    // A quarter of memory at most, so that what is measured is a call that finds its memory: bursts of large objects
    // would fill a small board, and the call that collects what lies about unused is another matter.
    let some = (slots.len() / 2).min(MM.free_page_count() * Backend::PAGE_SIZE / 4 / AVERAGE_LARGE);
    let hunts = if some == 0 { 0 } else { 8 };
    for seed in 0..hunts {
        let some = &mut slots[..some];
        own.run(pairs, |calls| traces::hunt_bytes(calls, traces::SEED + seed, 40, some).failures as usize);
    }
    say!("{} live objects; kmalloc_worst over W1, W2, W3, W4, WC, the kernel's mix and a hunt", slots.len());
    let worst = own.worst;
    Row { id: "kmalloc_worst", unit: "instructions", tenths: worst * 10, worst: Some(worst), peer: None }.print();
    Some(())
}

/// The largest object that is asked for: an eighth of a small board's memory.
fn largest() -> usize {
    MM.free_page_count() * Backend::PAGE_SIZE / 8
}

/// A peer in an arena of a quarter of memory, 4 MiB at most.
// Its lists stand in memory of their own: the stack has no room for a copy of them at each step.
#[inline(never)]
fn on_peer(counter: Counter, live: usize) -> Option<&'static mut Bench<Rlsf>> {
    let len = (live * AVERAGE * 2).next_power_of_two().min(Backend::PAGE_SIZE << Backend::MAX_ORDER);
    let arena: NonNull<u8> = MM.alloc_pages_exact(len, GFP_KERNEL).ok()?;
    // SAFETY: the pages are not given back.
    let heap = unsafe { Rlsf::new(arena, len) };
    Some(room(1).first_mut()?.insert(Bench { counter, heap, worst: 0 }))
}

struct Bench<H> {
    counter: Counter,
    heap: H,
    worst: u32,
}

impl<H: Heap> Bench<H> {
    /// Runs a workload; the median and the mean (in tenths) of its pairs, and its worst call. `None` when an
    /// allocation failed, though the worst call counts all the same.
    #[inline(never)]
    fn run(
        &mut self,
        pairs: &mut Pairs,
        work: impl FnOnce(&mut HeapCalls<'_, H, Counter, Pairs>) -> usize,
    ) -> Option<((u32, u32), u32)> {
        pairs.clear();
        let mut calls = HeapCalls { heap: &mut self.heap, meter: self.counter, sink: &mut *pairs };
        let failures = work(&mut calls);
        let worst = pairs.worst();
        self.worst = self.worst.max(worst);
        (failures == 0).then_some(((pairs.pair.median().unwrap_or(0), pairs.pair.mean_tenths()), worst))
    }
}
