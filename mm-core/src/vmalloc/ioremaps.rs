//! The live ioremaps, so that a range is never mapped with two cache modes.

use super::area::Area;
use super::interval::{Cursor, IntervalTree, Node, Nodes};
use crate::addr::PhysRange;
use crate::backend::Backend;
use crate::error::MmError;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::prot::CacheMode;

/// Every cache mode.
const MODES: [CacheMode; 4] =
    [CacheMode::WriteBack, CacheMode::WriteThrough, CacheMode::WriteCombining, CacheMode::Uncached];

/// The live ioremaps by physical address; the caller's lock guards it.
///
/// One tree per cache mode: a new range conflicts when it overlaps anything in another mode's tree, so one descent in
/// each of three trees decides, however many ranges of its own mode it overlaps.
pub struct Ioremaps {
    trees: [IntervalTree; MODES.len()],
}

// SAFETY: a record's node is its own; it is only used by the tree that holds it.
unsafe impl<P: Platform, B: Backend> Nodes for Memory<P, B> {
    fn node(&self, id: u32) -> *mut Node {
        // SAFETY: ids in a tree are live records.
        unsafe { &raw mut (*self.area(id)).node }
    }
}

/// The physical addresses of an ioremap, and how it is cached.
///
/// # Safety
/// The record is live.
#[inline(always)]
unsafe fn range_of<P: Platform, B: Backend>(memory: &Memory<P, B>, id: u32) -> (PhysRange, CacheMode) {
    let area = memory.area(id);
    // SAFETY: by the caller.
    let (start, size, cache) = unsafe { ((*area).phys, (*area).size, (*area).cache) };
    (PhysRange { start, end: start + size as u64 }, cache)
}

impl Default for Ioremaps {
    fn default() -> Self {
        Self::new()
    }
}

impl Ioremaps {
    /// None.
    pub const fn new() -> Self {
        Ioremaps { trees: [IntervalTree::EMPTY; MODES.len()] }
    }

    /// Adds a record that is not in it where it is the only one; false where there are others, with which it may conflict.
    ///
    /// # Safety
    /// As for [`add`](Self::add).
    #[inline(always)]
    pub(super) unsafe fn add_only<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, id: u32) -> bool {
        if cfg!(feature = "small") || !self.trees.iter().all(IntervalTree::is_empty) {
            return false;
        }
        // SAFETY: the record is live, by the caller's word, and in no tree; its range is not empty.
        unsafe {
            let (range, cache) = range_of(memory, id);
            self.trees[cache as usize].insert_first(memory, id, range);
        }
        true
    }

    /// Adds a record that is not in it. Cost: logarithmic.
    ///
    /// # Errors
    /// `AliasConflict` when a page of its range is mapped with another cache mode; it was not added.
    ///
    /// # Safety
    /// `id` is a record that was taken, and it is removed before it is given back.
    pub unsafe fn add<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, id: u32) -> Result<(), MmError> {
        // SAFETY: the record is live, by the caller's word.
        let (range, cache) = unsafe { range_of(memory, id) };
        let mask = B::PAGE_SIZE as u64 - 1;
        let pages = PhysRange { start: range.start & !mask, end: (range.end + mask) & !mask };
        for mode in MODES {
            if mode != cache && self.trees[mode as usize].first_overlap(memory, pages).is_some() {
                return Err(MmError::AliasConflict);
            }
        }
        // SAFETY: the caller's word; the range is not empty.
        unsafe { self.trees[cache as usize].insert(memory, id, range) };
        Ok(())
    }

    /// Removes a record. Cost: logarithmic.
    ///
    /// # Safety
    /// `id` was added and not removed.
    #[inline(always)]
    pub unsafe fn remove<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, id: u32) {
        // SAFETY: the record is in the tree of its mode.
        unsafe {
            let tree = &mut self.trees[(*memory.area(id)).cache as usize];
            if !cfg!(feature = "small") && tree.len() == 1 {
                tree.remove_last(memory, id);
            } else {
                tree.remove(memory, id);
            }
        }
    }

    /// The oldest record of exactly this physical start. Cost: logarithmic.
    pub fn find<P: Platform, B: Backend>(&self, memory: &Memory<P, B>, start: u64) -> Option<u32> {
        self.trees.iter().find_map(|tree| tree.find(memory, start))
    }

    /// The oldest record at exactly this physical start that is `wanted`. Cost: logarithmic, and one step for each of
    /// the others there.
    pub fn find_which<P: Platform, B: Backend>(
        &self,
        memory: &Memory<P, B>,
        start: u64,
        wanted: impl Fn(&Area) -> bool,
    ) -> Option<u32> {
        self.trees.iter().find_map(|tree| {
            let mut cursor = Cursor::at(start);
            while let Some(id) = tree.advance(memory, &mut cursor) {
                if cursor.start() != start {
                    return None;
                }
                // SAFETY: records in a tree are live.
                if wanted(unsafe { &*memory.area(id) }) {
                    return Some(id);
                }
            }
            None
        })
    }

    /// The next record by physical address, those of equal start by age; the cursor moves behind it. Cost:
    /// logarithmic.
    pub fn advance<P: Platform, B: Backend>(&self, memory: &Memory<P, B>, cursor: &mut Cursor) -> Option<u32> {
        let step = |tree: &IntervalTree| {
            let mut next = *cursor;
            tree.advance(memory, &mut next).map(|id| (id, next))
        };
        // No two modes share a start: they would conflict.
        let (id, next) = self.trees.iter().filter_map(step).min_by_key(|(_, next)| next.start())?;
        *cursor = next;
        Some(id)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.trees.iter().map(IntervalTree::len).sum()
    }

    /// Scans the trees. Not bounded.
    ///
    /// # Errors
    /// The broken rule, and where it was seen.
    pub fn check<P: Platform, B: Backend>(&self, memory: &Memory<P, B>) -> Result<(), (&'static str, usize)> {
        self.trees.iter().try_for_each(|tree| tree.check(memory))
    }
}
