//! Clearing entries of one lowest table, and unlinking it when it has none left.

use super::{BATCH, FEW, Leaf, table};
use crate::entry::Entry;
use crate::machine::Machine;
use crate::table::{ENTRIES, Table, index};
use crate::walker::prune;
use mm_core::{Pfn, TableFrames};

/// Entries cleared in a row.
const ROW: usize = 8;
/// To begin with another block takes as long as so many entries.
const BLOCK_COST: usize = 14;

/// See [`PageTable::leaf_clear`](mm_core::PageTable::leaf_clear).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn clear<M: Machine>(machine: &M, leaf: Leaf, at: usize, entries: u32) {
    // SAFETY: by the caller.
    let table = unsafe { table(machine, leaf) };
    let start = index(at, 0);
    debug_assert!(start + entries as usize <= ENTRIES);
    let store = |i| {
        // SAFETY: the caller holds the lock and owns the entries, which are in the table; clearing one is valid.
        unsafe { table.store(start + i, Entry::ABSENT) }
    };
    let (mut done, entries) = (0, entries as usize);
    while entries - done >= ROW {
        (0..ROW).for_each(|lane| store(done + lane));
        done += ROW;
    }
    // By the bits of their number: a loop would take longer than the few that are left.
    let mut part = ROW / 2;
    while part != 0 {
        if entries & part != 0 {
            (0..part).for_each(|lane| store(done + lane));
            done += part;
        }
        part /= 2;
    }
}

/// See [`PageTable::leaf_unmap`](mm_core::PageTable::leaf_unmap).
///
/// # Safety
/// As there.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn unmap<M: Machine>(
    machine: &M,
    root: Pfn,
    leaf: Leaf,
    at: usize,
    guards: u32,
    pages: u32,
    tables: &mut impl TableFrames,
    block: &mut impl FnMut(Pfn, u32) -> u32,
    pause: &mut impl FnMut(),
) -> u32 {
    // SAFETY: by the caller.
    let table = unsafe { table(machine, leaf) };
    let start = index(at, 0);
    let most = (pages as usize).min(ENTRIES - start);
    let mut done = 0;
    let entry = table.load(start);
    if most != 0 && entry.is_present() {
        let count = (block(entry.pfn(), most as u32) as usize).min(most);
        if count == most && most < FEW {
            // The common case without the loops around it: all of one block.
            // SAFETY: the caller holds the lock and owns the range; clearing a leaf is valid.
            (0..most).for_each(|i| unsafe { table.store(start + i, Entry::ABSENT) });
            done = most;
        } else if count != 0 {
            // SAFETY: by the caller; the entries are in the table.
            done = unsafe { unmap_many(&table, start, most, count, block, pause) };
        }
    }
    let mut cleared = done as u32;
    if guards != 0 && (done != 0 || pages == 0) && start != 0 && table.load(start - 1).guard_tag().is_some() {
        // SAFETY: the caller holds the lock and owns the guard; clearing one is valid.
        unsafe { table.store(start - 1, Entry::ABSENT) };
        cleared += 1;
    }
    // Only now, so that the table stays while the lock is open.
    if cleared > 0 && leaf.is_counted() && tables.sub_entries(leaf.pfn, cleared) == 0 {
        // SAFETY: the caller holds the lock; the table is empty.
        unsafe { unlink(machine, root, leaf, at, tables, pause) };
    }
    done as u32
}

/// Unlinks an empty table, unless it is in use again after a pause: a way of several tables takes as long as a batch.
///
/// # Safety
/// As for [`unmap`]; the table is counted and empty.
#[cold]
#[inline(never)]
unsafe fn unlink<M: Machine>(
    machine: &M,
    root: Pfn,
    leaf: Leaf,
    at: usize,
    tables: &mut impl TableFrames,
    pause: &mut impl FnMut(),
) {
    // Meanwhile it must stay.
    tables.add_entries(leaf.pfn, 1);
    pause();
    if tables.sub_entries(leaf.pfn, 1) == 0 {
        // SAFETY: the caller holds the lock; the table is empty.
        unsafe { prune(machine, root, 0, at, tables) };
    }
}

/// Clears up to `most` entries from `start` on, of which `count`, not 0, belong to the first block; returns how many.
///
/// # Safety
/// As for [`unmap`]; the entries are in the table.
#[inline(never)]
unsafe fn unmap_many<M: Machine>(
    table: &Table<'_, M>,
    start: usize,
    most: usize,
    mut count: usize,
    block: &mut impl FnMut(Pfn, u32) -> u32,
    pause: &mut impl FnMut(),
) -> usize {
    let mut done = 0;
    // Entries left to clear in this hold of the lock: a block takes more than an entry does.
    let mut room = BATCH - BLOCK_COST;
    loop {
        // Of a long block nothing is asked between two batches.
        while count >= BATCH {
            pause();
            // SAFETY: the caller holds the lock and owns the range; clearing a leaf is valid.
            unsafe { table.fill(start + done, BATCH, Entry::ABSENT, 0) };
            (done, count, room) = (done + BATCH, count - BATCH, 0);
            if done == most {
                return done;
            }
        }
        let part = count.min(room);
        // SAFETY: as above.
        unsafe { table.fill(start + done, part, Entry::ABSENT, 0) };
        (done, count, room) = (done + part, count - part, room - part);
        if done == most {
            return done;
        }
        if room == 0 {
            pause();
            room = BATCH;
        }
        if count == 0 {
            let entry = table.load(start + done);
            if !entry.is_present() {
                return done;
            }
            count = (block(entry.pfn(), (most - done) as u32) as usize).min(most - done);
            if count == 0 {
                return done;
            }
            room = room.saturating_sub(BLOCK_COST);
        }
    }
}
