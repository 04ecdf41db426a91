//! The workloads whose calls are counted.

use crate::calls::{Bytes, Calls, Phase};
use crate::draw::KernelMix;
use crate::rng::SplitMix64;
use crate::{PAIRS_BEFORE, SEED};

/// W1, P1: `count` times an allocation and its free. Returns how many allocations failed.
pub fn pairs<C: Calls>(calls: &mut C, count: usize, request: C::Request) -> usize {
    let mut failures = 0;
    for i in 0..PAIRS_BEFORE + count {
        let phase = if i < PAIRS_BEFORE { Phase::Setup } else { Phase::Counted };
        match calls.alloc(phase, request) {
            Some(object) => calls.free(phase, object),
            None => failures += 1,
        }
        if calls.enough() {
            break;
        }
    }
    failures
}

/// In what order a batch is freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreeOrder {
    /// The last allocated first.
    Lifo,
    /// The first allocated first.
    Fifo,
    /// By a permutation that is shuffled once more for each batch.
    Shuffled,
}

/// W2, P2: `count` times as many allocations as there are `slots`, and then their frees.
///
/// `places` is as long as `slots`, and what it holds does not matter.
pub fn batches<C: Calls>(
    calls: &mut C,
    count: usize,
    request: C::Request,
    order: FreeOrder,
    slots: &mut [Option<C::Object>],
    places: &mut [u32],
) -> usize {
    let mut rng = SplitMix64::new(SEED);
    let mut failures = 0;
    for (i, place) in places.iter_mut().enumerate() {
        *place = match order {
            FreeOrder::Lifo => slots.len() - 1 - i,
            FreeOrder::Fifo | FreeOrder::Shuffled => i,
        } as u32;
    }
    for _ in 0..count {
        for slot in slots.iter_mut() {
            *slot = calls.alloc(Phase::Counted, request);
            failures += usize::from(slot.is_none());
        }
        if order == FreeOrder::Shuffled {
            rng.shuffle(places);
        }
        for &place in places.iter() {
            if let Some(object) = slots[place as usize].take() {
                calls.free(Phase::Counted, object);
            }
        }
        if calls.enough() {
            break;
        }
    }
    failures
}

/// W3, W4, P3: fills `slots`, then replaces `warm` objects uncounted and `count` counted. Frees all at the end,
/// uncounted. Returns how many allocations failed.
pub fn replaces<C: Calls>(
    calls: &mut C,
    (warm, count): (usize, usize),
    slots: &mut [Option<C::Object>],
    mut request: impl FnMut(&mut SplitMix64) -> C::Request,
) -> usize {
    let mut rng = SplitMix64::new(SEED);
    let mut failures = settle(calls, &mut rng, warm, slots, &mut request);
    for _ in 0..count {
        failures += replace(calls, Phase::Counted, &mut rng, slots, &mut request);
        if calls.enough() {
            break;
        }
    }
    clear(calls, slots);
    failures
}

/// W1w: the set-up of [`replaces`], then `count` counted pairs of `pair` beside the live objects.
pub fn replaces_then_pairs<C: Calls>(
    calls: &mut C,
    (warm, count): (usize, usize),
    pair: C::Request,
    slots: &mut [Option<C::Object>],
    mut request: impl FnMut(&mut SplitMix64) -> C::Request,
) -> usize {
    let mut rng = SplitMix64::new(SEED);
    let mut failures = settle(calls, &mut rng, warm, slots, &mut request);
    for _ in 0..count {
        match calls.alloc(Phase::Counted, pair) {
            Some(object) => calls.free(Phase::Counted, object),
            None => failures += 1,
        }
        if calls.enough() {
            break;
        }
    }
    clear(calls, slots);
    failures
}

/// WC: fills `slots` in an allocator that has never served, then frees all, shuffled; both counted.
pub fn cold<C: Calls>(
    calls: &mut C,
    slots: &mut [Option<C::Object>],
    mut request: impl FnMut(&mut SplitMix64) -> C::Request,
) -> usize {
    let mut rng = SplitMix64::new(SEED);
    let mut failures = 0;
    for slot in slots.iter_mut() {
        *slot = calls.alloc(Phase::Counted, request(&mut rng));
        failures += usize::from(slot.is_none());
    }
    rng.shuffle(slots);
    for object in slots.iter_mut().filter_map(Option::take) {
        calls.free(Phase::Counted, object);
    }
    failures
}

/// The kernel-side mixed load: fills `slots`, then replaces `count` objects.
pub fn kernel_mixed<C: Calls<Request = Bytes>>(calls: &mut C, count: usize, slots: &mut [Option<C::Object>]) -> usize {
    let mut mix = KernelMix::default();
    let mut failures = 0;
    for slot in slots.iter_mut() {
        *slot = calls.alloc(Phase::Setup, Bytes::of(mix.size()));
        failures += usize::from(slot.is_none());
    }
    for _ in 0..count {
        let slot = mix.slot(slots.len());
        let size = mix.size();
        if let Some(object) = slots[slot].take() {
            calls.free(Phase::Counted, object);
        }
        slots[slot] = calls.alloc(Phase::Counted, Bytes::of(size));
        failures += usize::from(slots[slot].is_none());
        if calls.enough() {
            break;
        }
    }
    clear(calls, slots);
    failures
}

/// Fills the slots and replaces `warm` of them, uncounted.
fn settle<C: Calls>(
    calls: &mut C,
    rng: &mut SplitMix64,
    warm: usize,
    slots: &mut [Option<C::Object>],
    request: &mut impl FnMut(&mut SplitMix64) -> C::Request,
) -> usize {
    let mut failures = 0;
    for slot in slots.iter_mut() {
        *slot = calls.alloc(Phase::Setup, request(rng));
        failures += usize::from(slot.is_none());
    }
    for _ in 0..warm {
        failures += replace(calls, Phase::Setup, rng, slots, request);
    }
    failures
}

/// Frees a random object and allocates another in its place.
pub(crate) fn replace<C: Calls>(
    calls: &mut C,
    phase: Phase,
    rng: &mut SplitMix64,
    slots: &mut [Option<C::Object>],
    request: &mut impl FnMut(&mut SplitMix64) -> C::Request,
) -> usize {
    let slot = rng.below(slots.len());
    if let Some(object) = slots[slot].take() {
        calls.free(phase, object);
    }
    slots[slot] = calls.alloc(phase, request(rng));
    usize::from(slots[slot].is_none())
}

/// Frees all, uncounted.
pub(crate) fn clear<C: Calls>(calls: &mut C, slots: &mut [Option<C::Object>]) {
    for object in slots.iter_mut().filter_map(Option::take) {
        calls.free(Phase::Setup, object);
    }
}
