//! rtmm and every peer that builds without an operating system, on the whole workloads.
//!
//! Prints one `DATA {json}` line per allocator and workload. Wants a 64-bit board with some GiB of RAM.
#![no_std]
#![no_main]

extern crate alloc;

use bench_board::board::{self, Backend, ExitCode, Kernel as BoardKernel, MM, say};
use bench_board::{Counter, contiguous, kept, room};
use bench_peers::{Frames, FramesVisitor, Heap, HeapVisitor};
use bench_subject::{Block, HeapCalls, Histogram, Kernel, Object, PageCalls, Tally};
use bench_traces::{self as traces, Bytes, FreeOrder, Order, SplitMix64};
use core::ptr::NonNull;
use rtmm::Backend as _;

// Peers that keep lists of frames ask Rust's allocator for them.
#[global_allocator]
static ALLOCATOR: BoardKernel = BoardKernel;

/// The arena of the counted workloads.
const ARENA: usize = 64 << 20;
/// An allocator that takes more than this for one workload is slow enough to be judged by a part of it.
const PATIENCE: u64 = 300_000_000;
/// The workloads, in the order of tables.
const HEAP_WORK: [&str; 10] = ["W1", "W1w", "W2l", "W2f", "W2r", "W3", "W4", "W4p", "WC", "kernel"];
const PAGE_WORK: [&str; 3] = ["P1", "P2", "P3"];

board::entry!(main);

fn main() {
    let (Some(counter), Some(arena), Some(tally)) = (Counter::new(), contiguous(ARENA), kept()) else {
        say!("FAILED: {} does not count, or has too little memory", board::NAME);
        board::exit(ExitCode::Fail);
    };
    let objects = room::<Object>(traces::SMALL_LIVE);
    let blocks = room::<Block>(traces::BATCH.1);
    let mut all = All { counter, arena, objects, blocks, tally };
    all.heap("rtmm", |_| Kernel(&MM));
    bench_peers::visit_heaps(&mut all);
    all.frames("rtmm", || Kernel(&MM));
    bench_peers::visit_frames(&mut all);
    board::exit(ExitCode::Pass);
}

struct All {
    counter: Counter,
    arena: NonNull<u8>,
    objects: &'static mut [Option<Object>],
    blocks: &'static mut [Option<Block>],
    tally: &'static mut Tally,
}

impl HeapVisitor for All {
    fn visit<H: Heap>(&mut self, name: &'static str, make: unsafe fn(NonNull<u8>, usize) -> H) {
        // SAFETY: the arena is kept, and the heap before this one is gone.
        self.heap(name, |arena| unsafe { make(arena, ARENA) });
    }
}

impl FramesVisitor for All {
    fn visit<F: Frames>(&mut self, name: &'static str, make: fn(usize) -> F) {
        self.frames(name, || make(traces::FRAMES));
    }
}

impl All {
    fn heap<H: Heap>(&mut self, name: &str, make: impl Fn(NonNull<u8>) -> H) {
        for work in HEAP_WORK {
            let mut heap = make(self.arena);
            self.tally.clear();
            let meter = self.counter.at_most(PATIENCE);
            let mut calls = HeapCalls { heap: &mut heap, meter, sink: &mut *self.tally };
            let failures = heap_work(work, &mut calls, self.objects);
            print("heap", name, work, self.tally, failures);
        }
    }

    fn frames<F: Frames>(&mut self, name: &str, make: impl Fn() -> F) {
        for work in PAGE_WORK {
            let mut frames = make();
            self.tally.clear();
            let meter = self.counter.at_most(PATIENCE);
            let mut calls = PageCalls { frames: &mut frames, meter, sink: &mut *self.tally };
            let failures = page_work(work, &mut calls, self.blocks);
            print("pages", name, work, self.tally, failures);
        }
    }
}

fn heap_work<H: Heap>(
    work: &str,
    calls: &mut HeapCalls<'_, H, Counter, Tally>,
    objects: &mut [Option<Object>],
) -> usize {
    let pair = Bytes::of(64);
    let small = |rng: &mut SplitMix64| Bytes::of(traces::size_small(rng));
    let mut order = [0; traces::BATCH.0];
    let mut batch =
        |free| traces::batches(calls, traces::BATCHES, pair, free, &mut objects[..traces::BATCH.0], &mut order);
    match work {
        "W2l" => batch(FreeOrder::Lifo),
        "W2f" => batch(FreeOrder::Fifo),
        "W2r" => batch(FreeOrder::Shuffled),
        "W1" => traces::pairs(calls, traces::MANY, pair),
        "W1w" => traces::replaces_then_pairs(calls, (traces::SMALL_WARM, traces::MANY), pair, objects, small),
        "W3" => traces::replaces(calls, (traces::SMALL_WARM, traces::MANY), objects, small),
        "W4" | "W4p" => {
            let align = if work == "W4" { 8 } else { 4096 };
            let large = |rng: &mut SplitMix64| Bytes { size: traces::size_large(rng), align };
            traces::replaces(calls, traces::LARGE, &mut objects[..traces::LARGE_LIVE], large)
        }
        "WC" => traces::cold(calls, objects, small),
        _ => traces::kernel_mixed(calls, 200_000, objects),
    }
}

fn page_work<F: Frames>(
    work: &str,
    calls: &mut PageCalls<'_, F, Counter, Tally>,
    blocks: &mut [Option<Block>],
) -> usize {
    match work {
        "P1" => traces::pairs(calls, traces::MANY, Order(0)),
        "P2" => {
            let mut order = [0; traces::BATCH.1];
            traces::batches(calls, traces::BATCHES, Order(0), FreeOrder::Shuffled, blocks, &mut order)
        }
        _ => traces::replaces(calls, traces::BLOCKS, blocks, |rng| Order(traces::order(rng))),
    }
}

fn print(kind: &str, peer: &str, work: &str, tally: &Tally, failures: usize) {
    let Tally { alloc, free, pairs } = tally;
    let pair = &pairs.pair;
    say!(
        r#"DATA {{"kind":"{}","board":"{}","peer":"{}","work":"{}","result":{{"failures":{},"figures":{{"alloc":{},"free":{},"pair":{},"calls":{}}}}}}}"#,
        kind,
        board::NAME,
        peer,
        work,
        failures,
        Summary(alloc),
        Summary(free),
        Summary(pair),
        alloc.calls() + free.calls()
    );
}

/// A histogram as the host's figures are written.
struct Summary<'a>(&'a Histogram);

impl core::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mean = self.0.mean_tenths();
        let worst = self.0.worst();
        match self.0.median() {
            Some(median) => write!(f, r#"{{"median":{median},"#)?,
            None => write!(f, r#"{{"median":null,"#)?,
        }
        write!(f, r#""mean":{}.{},"worst":{worst}}}"#, mean / 10, mean % 10)
    }
}

const _: () = assert!(Backend::PAGE_SIZE == 4096, "the arena is aligned for peers that want pages of 4 KiB");
