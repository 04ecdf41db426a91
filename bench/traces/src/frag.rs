//! W5: how much of an arena can be in use at once.

use crate::calls::{Bytes, Calls, Phase};
use crate::draw::size_small;
use crate::rng::SplitMix64;

const SEED: u64 = 0x5EED_0005;

/// What the allocator held at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragUse {
    /// Calls of the workload so far, allocations and frees together.
    pub calls: u64,
    /// Bytes asked for and not yet freed.
    pub live: usize,
}

/// What W5 found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frag {
    /// Bytes asked for and live when the first allocation failed.
    pub first_failure: usize,
    /// Objects live then.
    pub objects: usize,
    /// The same after the churn.
    pub churned: usize,
    /// Allocations that failed during the churn.
    pub failures: usize,
    /// The largest block that could be allocated once everything was freed.
    pub largest: usize,
}

/// W5: allocates until that fails, freeing half as often, then replaces `churn` objects. The size of an object of
/// `calls` is told by `size_of`. `slots` has room for what fits, and each `every` calls `watch` hears of the use.
///
/// The number of calls shows in the first failure, so none is left out.
pub fn frag<C: Calls<Request = Bytes>>(
    calls: &mut C,
    churn: usize,
    arena: usize,
    slots: &mut [Option<C::Object>],
    size_of: impl Fn(&C::Object) -> usize,
    every: u64,
    mut watch: impl FnMut(FragUse),
) -> Frag {
    let mut rng = SplitMix64::new(SEED);
    let (mut count, mut live, mut made) = (0, 0, 0u64);
    let mut next = every;
    let mut tell = |made: u64, live: usize| {
        if made >= next {
            watch(FragUse { calls: made, live });
            next = made + every;
        }
    };
    while count < slots.len() {
        let Some(object) = calls.alloc(Phase::Counted, Bytes::of(size_small(&mut rng))) else { break };
        made += 1;
        live += size_of(&object);
        slots[count] = Some(object);
        count += 1;
        tell(made, live);
        if rng.below(2) == 0 {
            live -= take(calls, &mut rng, slots, &mut count, &size_of);
            made += 1;
            tell(made, live);
        }
    }
    let (first_failure, objects) = (live, count);
    let mut failures = 0;
    for _ in 0..churn {
        if count == 0 {
            break;
        }
        live -= take(calls, &mut rng, slots, &mut count, &size_of);
        match calls.alloc(Phase::Counted, Bytes::of(size_small(&mut rng))) {
            Some(object) => {
                live += size_of(&object);
                slots[count] = Some(object);
                count += 1;
            }
            None => failures += 1,
        }
        made += 2;
        tell(made, live);
    }
    let churned = live;
    for object in slots[..count].iter_mut().filter_map(Option::take) {
        calls.free(Phase::Counted, object);
    }
    Frag { first_failure, objects, churned, failures, largest: largest(calls, arena) }
}

/// Frees a random object and returns its size.
fn take<C: Calls>(
    calls: &mut C,
    rng: &mut SplitMix64,
    slots: &mut [Option<C::Object>],
    count: &mut usize,
    size_of: &impl Fn(&C::Object) -> usize,
) -> usize {
    let victim = rng.below(*count);
    *count -= 1;
    slots.swap(victim, *count);
    let Some(object) = slots[*count].take() else { return 0 };
    let size = size_of(&object);
    calls.free(Phase::Counted, object);
    size
}

/// The largest single object there is room for, to a page.
fn largest<C: Calls<Request = Bytes>>(calls: &mut C, arena: usize) -> usize {
    let (mut fits, mut fails) = (0, arena / 4096 + 1);
    while fails - fits > 1 {
        let middle = fits.midpoint(fails);
        match calls.alloc(Phase::Setup, Bytes::of(middle * 4096)) {
            Some(object) => {
                calls.free(Phase::Setup, object);
                fits = middle;
            }
            None => fails = middle,
        }
    }
    fits * 4096
}
