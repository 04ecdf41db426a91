//! The live ioremaps, so that a range is never mapped with two cache modes.

use super::area::Area;
use super::interval::{IntervalTree, Node, Nodes};
use crate::addr::PhysRange;
use crate::backend::Backend;
use crate::error::MmError;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::prot::CacheMode;

const MODES: usize = CacheMode::Uncached as usize + 1;

/// The records of live ioremaps; the caller's lock guards it.
///
/// Each cache mode has a tree of its own: a range conflicts when it overlaps anything in another mode's, so that the
/// cost does not depend on how often it is mapped in its own.
pub struct Ioremaps {
    modes: [IntervalTree; MODES],
}

impl Default for Ioremaps {
    fn default() -> Self {
        Self::new()
    }
}

/// The nodes inside the area records.
struct Records<'a, P: Platform, B: Backend>(&'a Memory<P, B>);

// SAFETY: a record keeps its place until it is given back, which is after it was removed; only the trees use `node`.
unsafe impl<P: Platform, B: Backend> Nodes for Records<'_, P, B> {
    fn node(&self, id: u32) -> *mut Node {
        // SAFETY: ids in a tree are those of live records.
        unsafe { &raw mut (*self.0.area(id)).node }
    }
}

impl Ioremaps {
    /// None.
    pub const fn new() -> Self {
        Ioremaps { modes: [const { IntervalTree::EMPTY }; MODES] }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.modes.iter().map(IntervalTree::len).sum()
    }

    /// Adds a record that is not in it. Costs O(log n).
    ///
    /// # Errors
    /// `AliasConflict` when a page of its range is mapped with another cache mode; it was not added.
    pub fn add<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, id: u32) -> Result<(), MmError> {
        let records = Records(memory);
        // SAFETY: the record is the caller's, not yet shared.
        let (phys, pages, mode) = unsafe {
            let area: *mut Area = memory.area(id);
            ((*area).phys, (*area).pages, (*area).cache as usize)
        };
        let first_page = phys & !(B::PAGE_SIZE as u64 - 1);
        let end = first_page.saturating_add(u64::from(pages) << B::PAGE_SHIFT);
        // Ends lie on pages, so an entered range that starts inside its first page overlaps as if it began there.
        let wanted = PhysRange { start: first_page, end };
        let conflicts =
            |(other, tree): (usize, &IntervalTree)| other != mode && tree.overlap(&records, wanted).is_some();
        if self.modes.iter().enumerate().any(conflicts) {
            return Err(MmError::AliasConflict);
        }
        // SAFETY: the record is in no tree, and stays where it is until it is removed.
        unsafe { self.modes[mode].insert(&records, id, PhysRange { start: phys, end }) };
        Ok(())
    }

    /// Removes a record, if it is in it. Costs O(log n).
    pub fn remove<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, id: u32) {
        // SAFETY: the record is live, and its node is only changed here, under the caller's lock.
        let (linked, mode) = unsafe {
            let area = memory.area(id);
            ((*area).node.is_linked(), (*area).cache as usize)
        };
        if linked {
            // SAFETY: it was entered in the tree of its mode, which does not change while it is live.
            unsafe { self.modes[mode].remove(&Records(memory), id) };
        }
    }

    /// The record with the lowest physical address at or above `from`, the oldest of equal ones.
    pub fn next<P: Platform, B: Backend>(&self, memory: &Memory<P, B>, from: u64) -> Option<u32> {
        let records = Records(memory);
        let found = self.modes.iter().filter_map(|tree| tree.at_or_after(&records, from));
        found.min_by_key(|(_, start)| *start).map(|(id, _)| id)
    }

    /// The oldest record that was mapped at `phys` exactly, or else one that begins in the same page.
    pub fn find<P: Platform, B: Backend>(&self, memory: &Memory<P, B>, phys: u64) -> Option<u32> {
        let page = phys & !(B::PAGE_SIZE as u64 - 1);
        let near = |from: u64| self.modes.iter().filter_map(move |tree| tree.at_or_after(&Records(memory), from));
        let exact = near(phys).find(|(_, start)| *start == phys);
        exact.or_else(|| near(page).find(|(_, start)| start - page < B::PAGE_SIZE as u64)).map(|(id, _)| id)
    }

    /// Recomputes the trees, and counts the records. Unbounded: a diagnostic.
    ///
    /// # Errors
    /// What is wrong, and the record it was seen at.
    pub fn check<P: Platform, B: Backend>(&self, memory: &Memory<P, B>) -> Result<usize, (&'static str, usize)> {
        self.modes.iter().try_for_each(|tree| tree.check(&Records(memory)))?;
        Ok(self.count())
    }
}
