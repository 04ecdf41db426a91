//! The counted workloads by their names.

use crate::check::{CheckedFrames, CheckedHeap};
use crate::figures::{Costs, Figures, Nowhere};
use crate::step::{Plain, Stepper};
use anyhow::{Context, Result, bail};
use bench_peers::{Frames, Heap};
use bench_subject::{HeapCalls, Meter, PageCalls, Sink};
use bench_traces::{self as traces, Bytes, FreeOrder, Order};

/// The workloads of heaps, in the order of tables.
pub const HEAP_WORK: [&str; 10] = ["W1", "W1w", "W2l", "W2f", "W2r", "W3", "W4", "W4p", "WC", "kernel"];
/// The workloads of allocators of pages.
pub const PAGE_WORK: [&str; 3] = ["P1", "P2", "P3"];
/// The arena of the counted workloads.
pub const ARENA: usize = 64 << 20;

/// How long the counted part is.
#[derive(Clone, Copy)]
pub struct Length {
    /// Pairs and replaces are divided by this.
    pub shorter: usize,
}

/// All of it.
pub const WHOLE: Length = Length { shorter: 1 };
/// A tenth, to check an allocator with.
pub const TENTH: Length = Length { shorter: 10 };

const PAIR: Bytes = Bytes::of(64);

/// Runs a workload of heaps; returns how many allocations failed.
///
/// # Errors
/// When there is no such workload.
pub fn heap_work<H: Heap>(
    work: &str,
    heap: &mut H,
    meter: impl Meter,
    sink: &mut impl Sink,
    length: Length,
) -> Result<usize> {
    let mut calls = HeapCalls { heap, meter, sink };
    let small = |rng: &mut traces::SplitMix64| Bytes::of(traces::size_small(rng));
    let many = traces::MANY / length.shorter;
    let batches = (traces::BATCHES / length.shorter).max(2);
    let empty = |n: usize| (0..n).map(|_| None).collect::<Vec<_>>();
    let mut live = empty(traces::SMALL_LIVE);
    let mut batch = |order| {
        let mut slots = empty(traces::BATCH.0);
        let mut places = vec![0; traces::BATCH.0];
        traces::batches(&mut calls, batches, PAIR, order, &mut slots, &mut places)
    };
    let failures = match work {
        "W2l" => batch(FreeOrder::Lifo),
        "W2f" => batch(FreeOrder::Fifo),
        "W2r" => batch(FreeOrder::Shuffled),
        "W1" => traces::pairs(&mut calls, many, PAIR),
        "W1w" => traces::replaces_then_pairs(&mut calls, (traces::SMALL_WARM, many), PAIR, &mut live, small),
        "W3" => traces::replaces(&mut calls, (traces::SMALL_WARM, many), &mut live, small),
        "W4" | "W4p" => {
            let align = if work == "W4" { 8 } else { 4096 };
            let large = |rng: &mut traces::SplitMix64| Bytes { size: traces::size_large(rng), align };
            let (warm, count) = traces::LARGE;
            traces::replaces(&mut calls, (warm, count / length.shorter), &mut empty(traces::LARGE_LIVE), large)
        }
        "WC" => traces::cold(&mut calls, &mut live, small),
        "kernel" => traces::kernel_mixed(&mut calls, 200_000 / length.shorter, &mut live),
        other => bail!("there is no workload {other}"),
    };
    Ok(failures)
}

/// Runs a workload of allocators of pages; returns how many allocations failed.
///
/// # Errors
/// When there is no such workload.
pub fn page_work<F: Frames>(
    work: &str,
    frames: &mut F,
    meter: impl Meter,
    sink: &mut impl Sink,
    length: Length,
) -> Result<usize> {
    let mut calls = PageCalls { frames, meter, sink };
    let empty = |n: usize| (0..n).map(|_| None).collect::<Vec<_>>();
    let failures = match work {
        "P1" => traces::pairs(&mut calls, traces::MANY / length.shorter, Order(0)),
        "P2" => {
            let (mut slots, mut places) = (empty(traces::BATCH.1), vec![0; traces::BATCH.1]);
            let count = (traces::BATCHES / length.shorter).max(2);
            traces::batches(&mut calls, count, Order(0), FreeOrder::Shuffled, &mut slots, &mut places)
        }
        "P3" => {
            let (warm, count) = traces::BLOCKS;
            let mut slots = empty(traces::BLOCKS_LIVE);
            traces::replaces(&mut calls, (warm, count / length.shorter), &mut slots, |rng| Order(traces::order(rng)))
        }
        other => bail!("there is no workload {other}"),
    };
    Ok(failures)
}

/// What one allocator did with one workload.
pub struct Outcome {
    /// Instructions.
    pub figures: Figures,
    /// Allocations that failed in the counted run.
    pub failures: usize,
}

/// Checks a heap on a tenth of a workload; returns how many allocations failed.
///
/// # Errors
/// What it did wrong.
pub fn check_heap<H: Heap>(work: &str, heap: H) -> Result<usize> {
    let mut checked = CheckedHeap::new(heap);
    let failures = heap_work(work, &mut checked, Plain, &mut Nowhere, TENTH)?;
    match checked.wrong {
        Some(wrong) => bail!("wrong: {wrong}"),
        None => Ok(failures),
    }
}

/// Checks an allocator of pages on a tenth of a workload; returns how many allocations failed.
///
/// # Errors
/// What it did wrong.
pub fn check_frames<F: Frames>(work: &str, frames: F) -> Result<usize> {
    let mut checked = CheckedFrames::new(frames);
    let failures = page_work(work, &mut checked, Plain, &mut Nowhere, TENTH)?;
    match checked.wrong {
        Some(wrong) => bail!("wrong: {wrong}"),
        None => Ok(failures),
    }
}

/// Counts a heap on a workload, until `steps` instructions were spent.
///
/// # Errors
/// When nothing could be counted.
pub fn count_heap<H: Heap>(work: &str, heap: &mut H, steps: u64) -> Result<Outcome> {
    let mut costs = Costs::default();
    let failures = heap_work(work, heap, Stepper::new(steps), &mut costs, WHOLE)?;
    Ok(Outcome { figures: costs.figures().context("nothing was counted")?, failures })
}
