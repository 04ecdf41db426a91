//! W6: how much of memory without an MMU can be in use when large areas stay and small objects come and go.

use crate::calls::{Bytes, Calls, Phase};
use crate::draw::size_small;
use crate::frag::FragUse;
use crate::rng::SplitMix64;

const SEED: u64 = 0x5EED_0007;
const PAGE: usize = 4096;
/// A burst of small objects has up to this part of the arena, and so many of them outlive it.
const BURST: usize = 16;
const SURVIVORS: usize = 16;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mixed {
    /// An object that is soon freed.
    Small(Bytes),
    /// An area that stays, of so many bytes.
    Area(usize),
}

/// What W6 found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AreaFrag {
    /// Bytes asked for and live when an area was first refused.
    pub first_refusal: usize,
    /// The same at high water, on average over the second half of the rounds.
    pub held: usize,
    /// Areas that were refused, and areas that went to make room for small objects.
    pub refused: (usize, usize),
}

/// What is live of one kind.
struct Live<'a, O> {
    slots: &'a mut [Option<(O, usize)>],
    count: usize,
    bytes: usize,
}

impl<O> Live<'_, O> {
    fn add(&mut self, object: O, bytes: usize) {
        self.slots[self.count] = Some((object, bytes));
        self.count += 1;
        self.bytes += bytes;
    }

    /// Frees a random one; false when there is none.
    fn drop_one<C: Calls<Object = O>>(&mut self, calls: &mut C, rng: &mut SplitMix64) -> bool {
        if self.count == 0 {
            return false;
        }
        let victim = rng.below(self.count);
        self.count -= 1;
        self.slots.swap(victim, self.count);
        if let Some((object, bytes)) = self.slots[self.count].take() {
            self.bytes -= bytes;
            calls.free(Phase::Counted, object);
        }
        true
    }

    fn is_full(&self) -> bool {
        self.count == self.slots.len()
    }
}

/// Room for something live and how many bytes were asked for.
pub type Slot<C> = Option<(<C as Calls>::Object, usize)>;

/// W6: in each of `rounds` small objects come in a burst, then an area of 16 KiB to 1 MiB, then all but one in 16 of
/// the objects go. Areas stay until one is refused; from then on a refused one frees a random one, and so do objects
/// until there is room. `watch` hears of the areas, which is what is left between bursts, each `every` rounds.
///
/// The slots have room for what fits.
pub fn areas<C: Calls<Request = Mixed>>(
    calls: &mut C,
    (arena, seed): (usize, u64),
    (rounds, every): (usize, usize),
    (small, areas): (&mut [Slot<C>], &mut [Slot<C>]),
    mut watch: impl FnMut(FragUse),
) -> AreaFrag {
    let mut rng = SplitMix64::new(SEED + seed);
    let mut small = Live { slots: small, count: 0, bytes: 0 };
    let mut areas = Live { slots: areas, count: 0, bytes: 0 };
    let (mut first_refusal, mut refused, mut evicted) = (0, 0, 0);
    let (mut sum, mut sums) = (0, 0);
    for round in 0..rounds {
        let mark = small.bytes + rng.below(arena / BURST);
        while small.bytes < mark && !small.is_full() {
            let size = size_small(&mut rng);
            match calls.alloc(Phase::Counted, Mixed::Small(Bytes::of(size))) {
                Some(object) => small.add(object, size),
                None if areas.drop_one(calls, &mut rng) => evicted += 1,
                None => break,
            }
        }
        let low = PAGE << (2 + rng.below(6));
        let size = low + rng.below(low);
        match calls.alloc(Phase::Counted, Mixed::Area(size)) {
            Some(area) if !areas.is_full() => areas.add(area, size),
            Some(area) => calls.free(Phase::Counted, area),
            None => {
                if refused == 0 {
                    first_refusal = areas.bytes;
                }
                refused += 1;
                areas.drop_one(calls, &mut rng);
            }
        }
        let left = small.count / SURVIVORS;
        while small.count > left {
            small.drop_one(calls, &mut rng);
        }
        if round % every == 0 {
            watch(FragUse { calls: round as u64, live: areas.bytes });
        }
        if round >= rounds / 2 {
            sum += areas.bytes;
            sums += 1;
        }
    }
    while small.drop_one(calls, &mut rng) {}
    while areas.drop_one(calls, &mut rng) {}
    AreaFrag { first_refusal, held: sum.checked_div(sums).unwrap_or(0), refused: (refused, evicted) }
}
