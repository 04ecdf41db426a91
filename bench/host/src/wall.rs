//! Wall-clock ratios: two heaps in turn, in one process.

use crate::figures::Nowhere;
use crate::step::Plain;
use crate::work::{Length, heap_work};
use anyhow::{Context, Result};
use bench_peers::Heap;
use std::time::{Duration, Instant};

/// Rounds of each; odd, so that the median is one of them.
const ROUNDS: usize = 21;
/// Part of the workload in a round.
const PART: Length = Length { shorter: 20 };

/// How many times as long `other` takes as `own`, the median of rounds in turn.
///
/// Set-up counts too, for both: it is the workload as a whole.
///
/// # Errors
/// When there is no such workload.
pub fn ratio<A: Heap, B: Heap>(work: &str, own: &mut A, other: &mut B) -> Result<f64> {
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let (own, other) = (time(work, own)?, time(work, other)?);
        ratios.push(other.as_secs_f64() / own.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    ratios.get(ROUNDS / 2).copied().context("no round")
}

fn time<H: Heap>(work: &str, heap: &mut H) -> Result<Duration> {
    let start = Instant::now();
    heap_work(work, heap, Plain, &mut Nowhere, PART)?;
    Ok(start.elapsed())
}
