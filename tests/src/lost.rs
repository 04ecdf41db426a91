//! The guard that every test runs under: nothing may be lost.

use crate::board::{self, MM};
use rtmm::CheckReport;

/// Records what is free at the start of a test, and panics at its end when anything is missing or damaged.
///
/// A suite makes it in its `#[init]` function, so that it lives as long as the test.
#[derive(Debug)]
#[must_use = "the check is made when it is dropped"]
pub struct NothingLost {
    start: Counts,
    bugs: usize,
    expected_bugs: usize,
}

/// What must be the same before and after, once caches have given back what they hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Pages, blocks, slabs, areas and page tables.
    memory: CheckReport,
    /// Live objects of kmalloc, and of caches.
    objects: (usize, usize),
}

impl Counts {
    /// Drains the caches, checks the manager's data, and counts.
    pub fn now() -> Counts {
        MM.drain();
        match MM.check() {
            Ok(memory) => Counts { memory, objects: MM.slabinfo().active() },
            Err(damage) => panic!("the manager is damaged: {damage}"),
        }
    }
}

impl NothingLost {
    /// Starts watching.
    pub fn watch() -> NothingLost {
        NothingLost { start: Counts::now(), bugs: board::bugs(), expected_bugs: 0 }
    }

    /// Says that `more` reports to `Platform::bug` belong to the test.
    pub fn expect_bugs(&mut self, more: usize) {
        self.expected_bugs += more;
    }

    /// The counts at the start.
    pub fn start(&self) -> Counts {
        self.start
    }

    /// Panics unless everything is as it was at the start, and the page tables are in order.
    #[track_caller]
    pub fn check(&self) {
        assert_eq!(Counts::now(), self.start, "something was lost");
        #[cfg(feature = "mmu")]
        crate::tables::check();
        assert_eq!(board::bugs(), self.bugs + self.expected_bugs, "last report: {:?}", board::last_bug());
    }
}

impl Drop for NothingLost {
    fn drop(&mut self) {
        self.check();
    }
}
