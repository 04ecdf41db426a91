//! Whether a call costs the same whatever the size of memory and the number of live objects.

use crate::arena;
use crate::figures::{Costs, Figures};
use crate::step::Stepper;
use anyhow::{Context, Result};
use bench_subject::{HeapCalls, Kernel, PageCalls};
use bench_traces::{self as traces, Bytes, Order};

/// Bytes of memory, as powers of two.
pub const MEMORY: std::ops::RangeInclusive<u32> = 16..=36;
/// Live objects, as powers of ten.
pub const OBJECTS: std::ops::RangeInclusive<u32> = 1..=6;
/// Arena of the objects' rows.
const ROOM: usize = 1 << 29;

/// Single pages replaced at random, with half of `1 << log` bytes in use (at most a million pages of it).
///
/// # Errors
/// When there is no room for the memory's tables.
pub fn pages(log: u32, steps: u64) -> Result<Figures> {
    let mm = arena::manager(1 << log)?;
    let live = (mm.free_page_count() / 2).clamp(1, 1_000_000);
    let mut slots: Vec<_> = (0..live).map(|_| None).collect();
    let mut costs = Costs::default();
    let mut calls = PageCalls { frames: &mut Kernel(mm), meter: Stepper::new(steps), sink: &mut costs };
    traces::replaces(&mut calls, (live.max(1000), traces::MANY), &mut slots, |_| Order(0));
    costs.figures().context("nothing was counted")
}

/// Hot pairs of 64 bytes in `1 << log` bytes of memory.
///
/// # Errors
/// As [`pages`].
pub fn bytes(log: u32, steps: u64) -> Result<Figures> {
    let mm = arena::manager(1 << log)?;
    let mut costs = Costs::default();
    let mut calls = HeapCalls { heap: &mut Kernel(mm), meter: Stepper::new(steps), sink: &mut costs };
    traces::pairs(&mut calls, traces::MANY, Bytes::of(64));
    costs.figures().context("nothing was counted")
}

/// Small objects replaced at random among `live`.
///
/// # Errors
/// As [`pages`].
pub fn objects(live: usize, steps: u64) -> Result<Figures> {
    let mm = arena::manager(ROOM)?;
    let mut slots: Vec<_> = (0..live).map(|_| None).collect();
    let mut costs = Costs::default();
    let mut calls = HeapCalls { heap: &mut Kernel(mm), meter: Stepper::new(steps), sink: &mut costs };
    let small = |rng: &mut traces::SplitMix64| Bytes::of(traces::size_small(rng));
    traces::replaces(&mut calls, (live.max(50_000), traces::MANY), &mut slots, small);
    costs.figures().context("nothing was counted")
}
