//! P5: how many large blocks are left after single pages were churned.

use crate::calls::{Calls, Order, Phase};
use crate::rng::SplitMix64;

const SEED: u64 = 0x5EED_0006;
const LARGE: Order = Order(9);
const MIDDLE: Order = Order(3);
const SINGLE: Order = Order(0);
/// Order-0 replaces of the churn.
pub(crate) const CHURN: usize = 1_000_000;

/// What P5 found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFrag {
    /// Single pages that memory gave.
    pub pages: usize,
    /// Blocks of 512 pages, with a random half of all pages in use.
    pub large_at_half: usize,
    /// Blocks of 8 pages then.
    pub middle_at_half: usize,
    /// Blocks of 512 pages after the churn, with an eighth of the pages in use.
    pub large_after_churn: usize,
    /// Blocks of 512 pages once everything was freed.
    pub large_when_free: usize,
}

/// P5: fills memory with single pages, frees a random half, replaces pages, frees down to an eighth, and counts the
/// large blocks on the way. `slots` has room for every page.
pub fn page_frag<C: Calls<Request = Order>>(
    calls: &mut C,
    churn: Option<usize>,
    slots: &mut [Option<C::Object>],
) -> PageFrag {
    let mut rng = SplitMix64::new(SEED);
    let mut pages = 0;
    while pages < slots.len() {
        let Some(page) = calls.alloc(Phase::Counted, SINGLE) else { break };
        slots[pages] = Some(page);
        pages += 1;
    }
    let slots = &mut slots[..pages];
    rng.shuffle(slots);
    let (kept, freed) = slots.split_at_mut(pages / 2);
    free_all(calls, freed);
    let large_at_half = successes(calls, LARGE, freed);
    let middle_at_half = successes(calls, MIDDLE, freed);
    for _ in 0..churn.unwrap_or(CHURN) {
        crate::run::replace(calls, Phase::Counted, &mut rng, kept, &mut |_| SINGLE);
    }
    rng.shuffle(kept);
    let eighth = (pages / 8).min(kept.len());
    let (rest, freed) = kept.split_at_mut(eighth);
    free_all(calls, freed);
    let large_after_churn = successes(calls, LARGE, freed);
    free_all(calls, rest);
    let large_when_free = successes(calls, LARGE, freed);
    PageFrag { pages, large_at_half, middle_at_half, large_after_churn, large_when_free }
}

fn free_all<C: Calls>(calls: &mut C, slots: &mut [Option<C::Object>]) {
    for object in slots.iter_mut().filter_map(Option::take) {
        calls.free(Phase::Counted, object);
    }
}

/// How many blocks there are, taken until one is refused; all go back. `room` is empty and holds them.
fn successes<C: Calls<Request = Order>>(calls: &mut C, order: Order, room: &mut [Option<C::Object>]) -> usize {
    let mut count = 0;
    for slot in room.iter_mut() {
        *slot = calls.alloc(Phase::Counted, order);
        if slot.is_none() {
            break;
        }
        count += 1;
    }
    free_all(calls, room);
    count
}
