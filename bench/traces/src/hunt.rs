//! A hunt for the dearest single call: random bursts, from empty to full and back, over all sizes.

use crate::calls::{Bytes, Calls, Order, Phase};
use crate::draw::{size_large, size_small};
use crate::rng::SplitMix64;
use crate::run::clear;

/// What a hunt did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hunted {
    /// Counted calls.
    pub calls: u64,
    /// Allocations that failed.
    pub failures: u64,
}

/// Bursts of one size class or a mixture, allocated and freed in different orders, `rounds` of them.
///
/// Slabs and blocks come and go in every order this way, which is where the dear calls are.
pub fn hunt_bytes<C: Calls<Request = Bytes>>(
    calls: &mut C,
    seed: u64,
    rounds: usize,
    slots: &mut [Option<C::Object>],
) -> Hunted {
    hunt(calls, seed, rounds, slots, |rng, flavour| match flavour {
        0 => Bytes::of(size_small(rng)),
        1 => Bytes::of(size_large(rng)),
        // One class only: whole slabs are made and emptied.
        _ => Bytes::of(8 << rng.below(10)),
    })
}

/// The same for pages of orders up to `max_order`.
pub fn hunt_pages<C: Calls<Request = Order>>(
    calls: &mut C,
    seed: u64,
    rounds: usize,
    max_order: usize,
    slots: &mut [Option<C::Object>],
) -> Hunted {
    hunt(calls, seed, rounds, slots, |rng, flavour| match flavour {
        0 => Order(crate::draw::order(rng).min(max_order)),
        1 => Order(rng.below(max_order + 1)),
        _ => Order(0),
    })
}

/// The same for exact numbers of pages, 1 to `most`.
pub fn hunt_exact<C: Calls<Request = Order>>(
    calls: &mut C,
    seed: u64,
    rounds: usize,
    most: usize,
    slots: &mut [Option<C::Object>],
) -> Hunted {
    hunt(calls, seed, rounds, slots, |rng, flavour| match flavour {
        0 => Order(1 + rng.below(most)),
        1 => Order(1 + rng.below(16.min(most))),
        // Around the powers of two.
        _ => Order(((1 << rng.below(most.ilog2() as usize + 1)) + rng.below(2)).min(most)),
    })
}

fn hunt<C: Calls>(
    calls: &mut C,
    seed: u64,
    rounds: usize,
    slots: &mut [Option<C::Object>],
    mut draw: impl FnMut(&mut SplitMix64, usize) -> C::Request,
) -> Hunted {
    let mut rng = SplitMix64::new(seed);
    let mut done = Hunted::default();
    for _ in 0..rounds {
        let flavour = rng.below(3);
        // One request for a whole burst half of the time.
        let same = (rng.below(2) == 0).then(|| draw(&mut rng, flavour));
        let length = 1 + rng.below(slots.len());
        let start = rng.below(slots.len());
        let frees = rng.below(3) == 0;
        for i in 0..length {
            let place = (start + i) % slots.len();
            if let Some(object) = slots[place].take() {
                calls.free(Phase::Counted, object);
                done.calls += 1;
            }
            if !frees {
                let request = same.unwrap_or_else(|| draw(&mut rng, flavour));
                slots[place] = calls.alloc(Phase::Counted, request);
                done.calls += 1;
                done.failures += u64::from(slots[place].is_none());
            }
        }
        if rng.below(4) == 0 {
            rng.shuffle(slots);
        }
        if calls.enough() {
            break;
        }
    }
    clear(calls, slots);
    done
}
