//! A memory protection unit that only remembers what it was told.

use backend_nommu::{Allows, RegionGuard, Slot};
use std::sync::{Arc, Mutex};

/// A region that is set: first address, bytes, what it lets through.
pub type SimRegion = (usize, usize, Allows);

/// The most regions it can be made with.
const MOST: usize = 16;

/// Regions that guard nothing, and tell tests what they would.
#[derive(Clone, Debug)]
pub struct SimRegions {
    slots: usize,
    clears: bool,
    set: Arc<Mutex<[Option<SimRegion>; MOST]>>,
}

impl SimRegions {
    /// `slots` regions, at most 16.
    pub fn new(slots: usize) -> Self {
        assert!(slots <= MOST);
        SimRegions { slots, clears: true, set: Arc::default() }
    }

    /// The same, of a processor that keeps what was set until reset.
    pub fn until_reset(slots: usize) -> Self {
        SimRegions { clears: false, ..Self::new(slots) }
    }

    /// Those that are set, by address.
    pub fn all(&self) -> Vec<SimRegion> {
        let mut all: Vec<_> = self.set.lock().unwrap().iter().flatten().copied().collect();
        all.sort_by_key(|region| region.0);
        all
    }
}

// SAFETY: there is no processor. What is claimed of one is for tests to hold against `all`.
unsafe impl RegionGuard for SimRegions {
    type Slots = [Slot; MOST];
    const FREE: [Slot; MOST] = [Slot::FREE; MOST];

    fn slots(&self) -> usize {
        self.slots
    }

    fn clears(&self) -> bool {
        self.clears
    }

    unsafe fn set(&self, slot: usize, start: usize, bytes: usize, allows: Allows) {
        assert!(slot < self.slots && bytes.is_power_of_two() && bytes >= 256 && start.is_multiple_of(bytes));
        let old = self.set.lock().unwrap()[slot].replace((start, bytes, allows));
        assert!(self.clears || old.is_none(), "slot {slot} was set, and stays so");
    }

    unsafe fn clear(&self, slot: usize) {
        assert!(self.clears && slot < self.slots);
        let old = self.set.lock().unwrap()[slot].take();
        assert!(old.is_some(), "slot {slot} was not set");
    }
}
