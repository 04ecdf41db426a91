//! How much of memory can be used: W5, P5, and what the manager's tables take.

use crate::arena;
use crate::check::CheckedHeap;
use crate::figures::Nowhere;
use crate::step::Plain;
use anyhow::{Result, bail};
use bench_peers::{Frames, Heap};
use bench_subject::{HeapCalls, PageCalls};
use bench_traces::{self as traces, Frag, FragUse, PageFrag};
use rtmm::GFP_KERNEL;
use serde::{Deserialize, Serialize};

/// Replaces of W5's second part.
pub const CHURN: usize = 200_000;

/// W5 on one heap.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArenaUse {
    /// Percent of the arena in use when the first allocation failed.
    pub first: f64,
    /// The same after the churn.
    pub churned: f64,
    /// Allocations that failed during the churn.
    pub failures: usize,
    /// Percent of the arena that one object could have once all was freed.
    pub largest: f64,
    /// Calls so far, and percent in use.
    pub curve: Vec<(u64, f64)>,
}

/// Runs W5 on a heap in an arena of `len` bytes, and checks it on the way.
///
/// # Errors
/// What the heap did wrong.
pub fn arena_use<H: Heap>(heap: H, len: usize) -> Result<ArenaUse> {
    let heap = &mut CheckedHeap::new(heap);
    let mut curve = vec![(0, 0.0)];
    let percent = |bytes: usize| bytes as f64 * 100.0 / len as f64;
    let mut slots: Vec<_> = (0..len / 8).map(|_| None).collect();
    let mut calls = HeapCalls { heap, meter: Plain, sink: &mut Nowhere };
    let mut watch = |FragUse { calls, live }| curve.push((calls, percent(live)));
    let every = (len as u64 >> 12).max(1);
    let frag = traces::frag(&mut calls, CHURN, len, &mut slots, |object| object.size as usize, every, &mut watch);
    let Frag { first_failure, churned, failures, largest, .. } = frag;
    if let Some(wrong) = heap.wrong.take() {
        bail!("wrong: {wrong}");
    }
    Ok(ArenaUse {
        first: percent(first_failure),
        churned: percent(churned),
        failures,
        largest: percent(largest),
        curve,
    })
}

/// Runs P5 on an allocator of [`traces::FRAMES`] pages.
pub fn page_use<F: Frames>(frames: &mut F) -> PageFrag {
    let mut slots: Vec<_> = (0..traces::FRAMES).map(|_| None).collect();
    traces::page_frag(&mut PageCalls { frames, meter: Plain, sink: &mut Nowhere }, None, &mut slots)
}

/// Bytes of the manager's own per frame of memory that is full of objects: of 64 bytes, and of 8.
///
/// # Errors
/// When there is no room for an arena.
pub fn meta_per_frame(len: usize) -> Result<(f64, f64)> {
    let filled = |size| -> Result<f64> {
        let mm = arena::manager(len)?;
        while mm.kmalloc(size, GFP_KERNEL).is_ok() {}
        let info = mm.meminfo();
        let frames = info.total >> 12;
        Ok((info.reserved + info.descriptors) as f64 / frames as f64)
    };
    Ok((filled(64)?, filled(8)?))
}
