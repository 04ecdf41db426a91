//! Table frames for tests of a walker.

use backend_mmu_x86::Machine;
use mm_core::{Pfn, TableFrames};
use std::collections::HashMap;

/// Frames for tables, with everything a walker may do with them checked: it takes no more than there are, counts
/// only tables it took, never below zero, and retires tables that are empty and zeroed.
pub struct SimTables<M> {
    machine: M,
    free: Vec<Pfn>,
    /// How many of `free` the walker may take now.
    in_hand: usize,
    live: HashMap<u32, u32>,
    retired: Vec<Pfn>,
}

impl<M: Machine> SimTables<M> {
    /// With `frames` of zeroed RAM, none of them in hand yet.
    pub fn new(machine: M, frames: Vec<Pfn>) -> Self {
        SimTables { machine, free: frames, in_hand: 0, live: HashMap::new(), retired: Vec::new() }
    }

    /// Puts `frames` in hand.
    pub fn bring(&mut self, frames: usize) {
        assert!(frames <= self.free.len(), "out of table frames");
        self.in_hand = frames;
    }

    /// How many are in hand.
    pub fn in_hand_now(&self) -> usize {
        self.in_hand
    }

    /// The tables in use, with their counts.
    pub fn live(&self) -> &HashMap<u32, u32> {
        &self.live
    }

    /// How many retired tables wait for a flush.
    pub fn retired(&self) -> usize {
        self.retired.len()
    }

    /// After a flush: retired tables can be used again.
    pub fn flushed(&mut self) {
        self.free.append(&mut self.retired);
    }

    /// Overwrites the tables that wait for a flush, as somebody would who got them too early.
    pub fn reuse_too_early(&mut self, entry: u64) {
        for table in self.retired.drain(..) {
            let ptr = self.machine.direct_ptr((table.0 as usize) << 12).cast::<u64>();
            for i in 0..512 {
                // SAFETY: a frame of RAM that belongs to this list.
                unsafe { ptr.add(i).write(entry) };
            }
        }
    }

    fn is_zeroed(&self, table: Pfn) -> bool {
        let ptr = self.machine.direct_ptr((table.0 as usize) << 12).cast::<u64>();
        // SAFETY: a frame of RAM; the test's thread is the only one that writes to tables.
        (0..512).all(|i| unsafe { ptr.add(i).read() } == 0)
    }
}

impl<M: Machine> TableFrames for SimTables<M> {
    fn in_hand(&self) -> usize {
        self.in_hand
    }

    fn take(&mut self) -> Pfn {
        self.in_hand = self.in_hand.checked_sub(1).expect("took more tables than were in hand");
        let table = self.free.pop().expect("frames behind those in hand");
        assert!(self.is_zeroed(table));
        assert_eq!(self.live.insert(table.0, 0), None, "{table:?} is in use");
        table
    }

    fn add_entries(&mut self, table: Pfn, entries: u32) {
        let count = self.live.get_mut(&table.0).unwrap_or_else(|| panic!("{table:?} was not taken here"));
        *count += entries;
        assert!(*count <= 512, "{table:?} has {count} entries");
    }

    fn sub_entries(&mut self, table: Pfn, entries: u32) -> u32 {
        let count = self.live.get_mut(&table.0).unwrap_or_else(|| panic!("{table:?} was not taken here"));
        *count = count.checked_sub(entries).unwrap_or_else(|| panic!("{table:?}: {entries} of {count} entries"));
        *count
    }

    fn retire(&mut self, table: Pfn) {
        assert_eq!(self.live.remove(&table.0), Some(0), "{table:?} is retired in use");
        assert!(self.is_zeroed(table), "{table:?} is retired with entries");
        self.retired.push(table);
    }
}
