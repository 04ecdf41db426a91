//! What calls took, as a few numbers.

use bench_subject::{Side, Sink};
use serde::{Deserialize, Serialize};

/// What each call of a workload took.
#[derive(Debug, Default)]
pub struct Costs {
    allocs: Vec<u32>,
    frees: Vec<u32>,
}

impl Sink for Costs {
    fn put(&mut self, side: Side, cost: u32) {
        match side {
            Side::Alloc => self.allocs.push(cost),
            Side::Free => self.frees.push(cost),
            Side::Refused => {}
        }
    }
}

/// Throws figures away.
pub struct Nowhere;

impl Sink for Nowhere {
    fn put(&mut self, _: Side, _: u32) {}
}

/// One side's costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The middle one.
    pub median: u32,
    /// The average.
    pub mean: f64,
    /// The dearest.
    pub worst: u32,
}

/// Both sides' and the pairs' costs, in instructions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Allocations.
    pub alloc: Summary,
    /// Frees.
    pub free: Summary,
    /// An allocation and a free that stand together.
    pub pair: Summary,
    /// How many calls were counted.
    pub calls: usize,
}

impl Costs {
    /// The numbers, or `None` when nothing was counted.
    pub fn figures(mut self) -> Option<Figures> {
        let calls = self.allocs.len() + self.frees.len();
        // The i-th allocation and the i-th free are a pair: in replaces and pairs they are neighbours.
        let mut pairs: Vec<u32> = self.allocs.iter().zip(&self.frees).map(|(a, f)| a + f).collect();
        Some(Figures {
            alloc: summary(&mut self.allocs)?,
            free: summary(&mut self.frees)?,
            pair: summary(&mut pairs)?,
            calls,
        })
    }
}

fn summary(costs: &mut [u32]) -> Option<Summary> {
    costs.sort_unstable();
    let sum: u64 = costs.iter().map(|&cost| u64::from(cost)).sum();
    Some(Summary { median: *costs.get(costs.len() / 2)?, mean: sum as f64 / costs.len() as f64, worst: *costs.last()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_neighbours() {
        let mut costs = Costs::default();
        for (alloc, free) in [(10, 1), (20, 2), (30, 300)] {
            costs.put(Side::Alloc, alloc);
            costs.put(Side::Free, free);
        }
        let figures = costs.figures().unwrap();
        assert_eq!(figures.alloc, Summary { median: 20, mean: 20.0, worst: 30 });
        assert_eq!((figures.pair.median, figures.pair.worst, figures.calls), (22, 330, 6));
        assert!(Costs::default().figures().is_none());
    }
}
