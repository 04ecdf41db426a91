//! W6 on rtmm, and by the rule of Linux without an MMU.

use crate::arena::HostMm;
use anyhow::{Result, bail};
use bench_traces::{self as traces, Calls, FragUse, Mixed, Phase};
use rtmm::{AreaLife, AreaOptions, GFP_KERNEL};
use serde::{Deserialize, Serialize};
use std::ptr::NonNull;

/// Rounds of the workload.
const ROUNDS: usize = 600;
/// Rounds between two points of the curve.
const EVERY: usize = 6;
/// Runs that are averaged.
const SEEDS: u64 = 16;

/// Areas that are to stay.
const STAYS: AreaOptions = AreaOptions::new().life(AreaLife::Long);

/// How an area is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Exact pages, from the end of memory that small objects are not taken from: areas that were said to stay.
    BothEnds,
    /// Exact pages, the lowest: `vmalloc`.
    OneEnd,
    /// A power of two of pages, of which nothing goes back (mm/nommu.c: vmalloc is kmalloc, which rounds up).
    PowersOfTwo,
}

impl Rule {
    /// Each, by its name.
    pub const ALL: [(&'static str, Rule); 3] =
        [("both-ends", Rule::BothEnds), ("one-end", Rule::OneEnd), ("powers-of-two", Rule::PowersOfTwo)];
}

/// What W6 found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AreaUse {
    /// Percent of the arena in use when an area was first refused.
    pub first: f64,
    /// The same at high water, once it has settled.
    pub held: f64,
    /// Areas that were refused, and areas that went for objects.
    pub refused: (usize, usize),
    /// Rounds so far, and percent in use.
    pub curve: Vec<(u64, f64)>,
}

enum Object {
    Small(NonNull<u8>),
    Area(NonNull<u8>),
    Pages(NonNull<u8>, usize),
}

struct Manager {
    mm: &'static HostMm,
    rule: Rule,
    wrong: usize,
}

impl Calls for Manager {
    type Request = Mixed;
    type Object = Object;

    fn alloc(&mut self, _: Phase, request: Mixed) -> Option<Object> {
        let mm = self.mm;
        match request {
            Mixed::Small(bytes) => mm.kmalloc(bytes.size, GFP_KERNEL).ok().map(Object::Small),
            Mixed::Area(size) => match self.rule {
                Rule::BothEnds => mm.vmalloc_with(size, &STAYS).ok().map(Object::Area),
                Rule::OneEnd => mm.vmalloc(size).ok().map(Object::Area),
                Rule::PowersOfTwo => {
                    let order = size.div_ceil(4096).next_power_of_two().ilog2() as usize;
                    mm.get_free_pages(GFP_KERNEL, order).ok().map(|at| Object::Pages(at, order))
                }
            },
        }
    }

    fn free(&mut self, _: Phase, object: Object) {
        let freed = match object {
            Object::Small(at) => self.mm.kfree(at.as_ptr()),
            Object::Area(at) => self.mm.vfree(at.as_ptr()),
            Object::Pages(at, order) => self.mm.free_pages(at.as_ptr(), order),
        };
        self.wrong += usize::from(freed.is_err());
    }
}

/// Runs W6 on a manager of `len` bytes.
///
/// # Errors
/// When a free was refused, or the manager found itself damaged.
pub fn area_use(mm: &'static HostMm, rule: Rule, len: usize) -> Result<AreaUse> {
    let mut manager = Manager { mm, rule, wrong: 0 };
    let percent = |bytes: usize| bytes as f64 * 100.0 / len as f64;
    let mut small: Vec<_> = (0..len / 16).map(|_| None).collect();
    let mut areas: Vec<_> = (0..len >> 12).map(|_| None).collect();
    let mut curve: Vec<(u64, f64)> = Vec::new();
    let (mut first, mut held, mut refused) = (0.0, 0.0, (0, 0));
    for seed in 0..SEEDS {
        let mut at = 0;
        let watch = |FragUse { calls, live }| {
            if seed == 0 {
                curve.push((calls, 0.0));
            }
            curve[at].1 += percent(live) / SEEDS as f64;
            at += 1;
        };
        let found = traces::areas(&mut manager, (len, seed), (ROUNDS, EVERY), (&mut small, &mut areas), watch);
        first += percent(found.first_refusal) / SEEDS as f64;
        held += percent(found.held) / SEEDS as f64;
        refused = (refused.0 + found.refused.0, refused.1 + found.refused.1);
        mm.drain();
    }
    if manager.wrong != 0 {
        bail!("{} frees were refused", manager.wrong);
    }
    mm.check().map_err(|damage| anyhow::anyhow!("{damage}"))?;
    Ok(AreaUse { first, held, refused, curve })
}
