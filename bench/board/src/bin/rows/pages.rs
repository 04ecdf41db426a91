//! The rows of pages.

use bench_board::board::{Backend, MM, say};
use bench_board::{Counter, PAIR, Row, room};
use bench_peers::Frames;
use bench_subject::{Block, ExactPages, Kernel, PageCalls, Pairs};
use bench_traces::{self as traces, FreeOrder, Order, SplitMix64};
use rtmm::Backend as _;

/// Pairs and replaces of a row.
const COUNT: usize = 100_000;
/// Pages of a batch; a small board has not as many.
const BATCH: usize = if Backend::PAGE_SIZE < 4096 { 64 } else { traces::BATCH.1 };
/// Batches.
const BATCHES: usize = 20;

/// page_0, page_mixed, page_worst, page_worst_exact.
pub fn rows(counter: Counter, pairs: &mut Pairs) -> Option<()> {
    let mut own = Bench { counter, frames: Kernel(&MM), worst: 0 };
    let (pair, worst) = own.run(pairs, |calls| traces::pairs(calls, COUNT, Order(0)))?;
    Row { id: "page_0", unit: PAIR, tenths: pair.0 * 10, worst: Some(worst), peer: None }.print();

    let pages = MM.free_page_count();
    let slots = room::<Block>((pages / 64).min(traces::BLOCKS_LIVE));
    let largest = (pages / 64).max(1).ilog2().min(9) as usize;
    let order = |rng: &mut SplitMix64| Order(traces::order(rng).min(largest));
    let some = slots.len().min((pages / 8) >> largest.min(3));
    let (pair, worst) =
        own.run(pairs, |calls| traces::replaces(calls, (COUNT / 10, COUNT), &mut slots[..some], order))?;
    if some < 8 {
        say!("no page_mixed, no page_worst: a quarter of the board's pages is too few");
        return Some(());
    }
    let unit = "instructions per pair, mean";
    Row { id: "page_mixed", unit, tenths: pair.1, worst: Some(worst), peer: None }.print();

    let mut order = [0; BATCH];
    let batch = slots.len().min(BATCH);
    let order = &mut order[..batch];
    // The rest is for the worst call only.
    own.run(pairs, |calls| traces::batches(calls, BATCHES, Order(0), FreeOrder::Shuffled, &mut slots[..batch], order));
    // As much as a quarter of memory, so that what is measured is a call that finds its pages.
    let largest = (pages / 128).max(1).ilog2().min(Backend::MAX_ORDER as u32) as usize;
    let some = slots.len().min((pages / 4) >> largest);
    for seed in 0..16 {
        let slots = &mut slots[..some];
        own.run(pairs, |calls| traces::hunt_pages(calls, traces::SEED + seed, 400, largest, slots).failures as usize);
    }
    let worst = own.worst;
    Row { id: "page_worst", unit: "instructions", tenths: worst * 10, worst: Some(worst), peer: None }.print();

    let mut exact = Bench { counter, frames: ExactPages(&MM), worst: 0 };
    for seed in 0..16 {
        let (most, slots) = (1 << largest, &mut slots[..some]);
        exact.run(pairs, |calls| traces::hunt_exact(calls, traces::SEED + seed, 400, most, slots).failures as usize);
    }
    let worst = exact.worst;
    Row { id: "page_worst_exact", unit: "instructions", tenths: worst * 10, worst: Some(worst), peer: None }.print();
    Some(())
}

struct Bench<F> {
    counter: Counter,
    frames: F,
    worst: u32,
}

impl<F: Frames> Bench<F> {
    /// Runs a workload; the median and the mean (in tenths) of its pairs, and its worst call. `None` when an
    /// allocation failed, though the worst call counts all the same.
    #[inline(never)]
    fn run(
        &mut self,
        pairs: &mut Pairs,
        work: impl FnOnce(&mut PageCalls<'_, F, Counter, Pairs>) -> usize,
    ) -> Option<((u32, u32), u32)> {
        pairs.clear();
        let mut calls = PageCalls { frames: &mut self.frames, meter: self.counter, sink: &mut *pairs };
        let failures = work(&mut calls);
        let worst = pairs.worst();
        self.worst = self.worst.max(worst);
        (failures == 0).then_some(((pairs.pair.median().unwrap_or(0), pairs.pair.mean_tenths()), worst))
    }
}
