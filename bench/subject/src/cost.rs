//! What calls took, kept in little room.

use crate::objects::{Side, Sink};

/// Costs up to this are counted one by one.
const BUCKETS: usize = 1024;

/// How often each cost came.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: [u32; BUCKETS],
    calls: u32,
    sum: u64,
    worst: u32,
}

impl Histogram {
    /// Nothing yet.
    pub const fn new() -> Self {
        Histogram { counts: [0; BUCKETS], calls: 0, sum: 0, worst: 0 }
    }

    /// Counts one.
    pub fn put(&mut self, cost: u32) {
        if let Some(count) = self.counts.get_mut(cost as usize) {
            *count += 1;
        }
        self.calls += 1;
        self.sum += u64::from(cost);
        self.worst = self.worst.max(cost);
    }

    /// The middle one; `None` when it is dearer than what is counted one by one, or there was none.
    pub fn median(&self) -> Option<u32> {
        let mut left = self.calls / 2;
        for (cost, &count) in self.counts.iter().enumerate() {
            if left < count {
                return Some(cost as u32);
            }
            left -= count;
        }
        None
    }

    /// The average, in tenths.
    pub fn mean_tenths(&self) -> u32 {
        if self.calls == 0 { 0 } else { ((self.sum * 10 + u64::from(self.calls) / 2) / u64::from(self.calls)) as u32 }
    }

    /// The dearest.
    pub fn worst(&self) -> u32 {
        self.worst
    }

    /// How many there were.
    pub fn calls(&self) -> u32 {
        self.calls
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Both sides of a workload, and their pairs.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Allocations.
    pub alloc: Histogram,
    /// Frees.
    pub free: Histogram,
    /// Pairs of both.
    pub pairs: Pairs,
}

impl Tally {
    /// Nothing yet.
    pub const fn new() -> Self {
        Tally { alloc: Histogram::new(), free: Histogram::new(), pairs: Pairs::new() }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The dearest call of either side.
    pub fn worst(&self) -> u32 {
        self.alloc.worst.max(self.free.worst)
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink for Tally {
    fn put(&mut self, side: Side, cost: u32) {
        match side {
            Side::Alloc => self.alloc.put(cost),
            Side::Free => self.free.put(cost),
            Side::Refused => {}
        }
        self.pairs.put(side, cost);
    }
}

/// The pairs of neighbours alone, in a third of a [`Tally`]'s room.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// An allocation and a free that were made one after the other.
    pub pair: Histogram,
    before: Option<(Side, u32)>,
    worst: u32,
}

impl Pairs {
    /// Nothing yet.
    pub const fn new() -> Self {
        Pairs { pair: Histogram::new(), before: None, worst: 0 }
    }

    /// Forgets all, in place: it may be larger than the rest of a stack.
    pub fn clear(&mut self) {
        let Histogram { counts, calls, sum, worst } = &mut self.pair;
        counts.fill(0);
        (*calls, *sum, *worst) = (0, 0, 0);
        (self.before, self.worst) = (None, 0);
    }

    /// The dearest call of either side.
    pub fn worst(&self) -> u32 {
        self.worst
    }
}

impl Default for Pairs {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink for Pairs {
    fn put(&mut self, side: Side, cost: u32) {
        // A failure looks for memory everywhere, and is no part of what an allocation costs.
        if side == Side::Refused {
            return;
        }
        self.worst = self.worst.max(cost);
        self.before = match self.before {
            Some((other, before)) if other != side => {
                self.pair.put(before + cost);
                None
            }
            _ => Some((side, cost)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_mean_and_worst_are_those_of_the_costs() {
        let mut costs = Histogram::new();
        for cost in [5, 900, 4, 6, 5] {
            costs.put(cost);
        }
        assert_eq!((costs.median(), costs.mean_tenths(), costs.worst(), costs.calls()), (Some(5), 1840, 900, 5));
        assert_eq!(Histogram::new().mean_tenths(), 0);
    }

    #[test]
    fn neighbours_of_different_sides_are_pairs() {
        let mut tally = Tally::new();
        for (side, cost) in [(Side::Free, 1), (Side::Alloc, 2), (Side::Alloc, 3), (Side::Alloc, 5), (Side::Free, 7)] {
            tally.put(side, cost);
        }
        assert_eq!(tally.pairs.worst(), 7);
        assert_eq!((tally.pairs.pair.calls(), tally.pairs.pair.worst(), tally.worst()), (2, 12, 7));
    }
}
