//! Runs of entries in one lowest table, without a walk for each.

use crate::entry::{Entry, Size};
use crate::machine::Machine;
use crate::table::{ENTRIES, Table, index, lowest};
use crate::walker::{self, is_kernel_page, prune};
use mm_core::{CacheMode, MapFrames, Mapping, Pfn, Prot, TableFrames, Walk};

/// Entries written or cleared in one hold of the lock.
const BATCH: usize = walker::BATCH as usize;
/// Fewer entries than this go without loops that are unrolled.
const FEW: usize = 9;
/// Entries cleared in a row.
const ROW: usize = 8;
/// To begin with another block takes as long as so many entries.
const BLOCK_COST: usize = 14;
/// Entries whose frames are told of in one hold of the lock, which takes longer.
const TOLD: usize = BATCH * 3 / 8;

/// The name of a lowest table.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    entries: *mut u64,
    pub(crate) pfn: Pfn,
    pub(crate) counted: bool,
}

// SAFETY: an address and a number. What is done with them is unsafe, and asks for the lock of the tables.
unsafe impl Send for Leaf {}

/// See [`PageTable::leaf`](mm_core::PageTable::leaf).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn find<M: Machine>(machine: &M, root: Pfn, at: usize) -> Option<Leaf> {
    if !is_kernel_page::<M>(at & !0xfff) {
        return None;
    }
    // SAFETY: by the caller.
    let (table, counted) = unsafe { lowest(machine, root, at) }?;
    Some(Leaf { entries: table.address(), pfn: table.pfn, counted })
}

/// # Safety
/// The table is alive.
#[inline(always)]
unsafe fn table<M: Machine>(machine: &M, leaf: Leaf) -> Table<'_, M> {
    // SAFETY: the address is that of the handle `find` had; the rest by the caller.
    unsafe { Table::again(machine, leaf.pfn, leaf.entries) }
}

/// See [`PageTable::leaf_walk`](mm_core::PageTable::leaf_walk).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn walk<M: Machine>(machine: &M, leaf: Leaf, at: usize) -> Walk {
    // SAFETY: by the caller.
    let entry = unsafe { table(machine, leaf) }.load(index(at, 0));
    if !entry.is_present() {
        return entry.guard_tag().map_or(Walk::Absent, Walk::Guard);
    }
    Walk::Mapped(Mapping { pfn: entry.pfn(), pages: 1, prot: entry.prot(), cache: entry.cache(Size::Page) })
}

/// See [`PageTable::leaf_map`](mm_core::PageTable::leaf_map).
///
/// # Safety
/// As there.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn map<M: Machine>(
    machine: &M,
    leaf: Leaf,
    at: usize,
    guard: Option<u32>,
    frames: MapFrames<'_>,
    prot: Prot,
    cache: CacheMode,
    tables: &mut impl TableFrames,
    pause: &mut impl FnMut(),
) -> u32 {
    // SAFETY: by the caller.
    let table = unsafe { table(machine, leaf) };
    let (start, count) = (index(at, 0), frames.count() as usize);
    let guards = usize::from(guard.is_some());
    if start < guards || start + count > ENTRIES || count == 0 {
        return 0;
    }
    let first = match frames {
        MapFrames::Run(run) => Entry::leaf(run.start, Size::Page, prot, cache).0,
        MapFrames::Each(_) => Entry::leaf(Pfn(0), Size::Page, prot, cache).0,
    };
    if let MapFrames::Run(_) = frames
        && count < FEW
    {
        // The common case without the loops around it.
        // SAFETY: the caller holds the lock and owns the range; the entries are in the table, as was checked; leaves and
        // guards over absent entries are valid.
        unsafe {
            let mut bits = table.load(start).0;
            if guard.is_some() {
                bits |= table.load(start - 1).0;
            }
            for i in start + 1..start + count {
                bits |= table.load(i).0;
            }
            if bits != 0 {
                return 0;
            }
            if let Some(tag) = guard {
                table.store(start - 1, Entry::guard(tag));
            }
            table.store(start, Entry(first));
            let mut value = first;
            for i in start + 1..start + count {
                value = value.wrapping_add(Entry::NEXT_PAGE);
                table.store(i, Entry(value));
            }
        }
        if leaf.counted {
            tables.add_entries(leaf.pfn, (count + guards) as u32);
        }
        return count as u32;
    }
    let spot = Spot { table, counted: leaf.counted, start, guard: guard.map_or(Entry::ABSENT, Entry::guard) };
    // SAFETY: by the caller; the entries are in the table.
    unsafe {
        match frames {
            MapFrames::Run(_) if count <= BATCH => {
                let mapped = map_run(&spot.table, start, spot.guard, count, first);
                if mapped != 0 && leaf.counted {
                    tables.add_entries(leaf.pfn, mapped + guards as u32);
                }
                mapped
            }
            MapFrames::Run(_) => map_many(&spot, count, tables, pause, |at, done, part| {
                let first = Entry(first.wrapping_add(done as u64 * Entry::NEXT_PAGE));
                spot.table.fill(at, part, first, Entry::NEXT_PAGE);
            }),
            MapFrames::Each(frames) if count <= BATCH => map_each(&spot, frames, first, tables),
            MapFrames::Each(frames) => map_each_many(&spot, frames, first, tables, pause),
        }
    }
}

/// Where entries are to be written, with the guard in front of them.
struct Spot<'m, M> {
    table: Table<'m, M>,
    counted: bool,
    start: usize,
    /// [`Entry::ABSENT`] for none.
    guard: Entry,
}

impl<M: Machine> Spot<'_, M> {
    fn guards(&self) -> usize {
        usize::from(!self.guard.is_absent())
    }
}

/// Maps a batch of neighbours, with a guard right before them unless it is [`Entry::ABSENT`].
///
/// # Safety
/// As for [`map`]; the entries and the guard's are in the table.
#[inline(never)]
unsafe fn map_run<M: Machine>(table: &Table<'_, M>, start: usize, guard: Entry, count: usize, first: u64) -> u32 {
    let guards = usize::from(!guard.is_absent());
    // SAFETY: the caller holds the lock and owns the range; leaves and guards over absent entries are valid.
    unsafe {
        if !table.all_absent(start - guards, count + guards) {
            return 0;
        }
        if guards != 0 {
            table.store(start - 1, guard);
        }
        table.fill(start, count, Entry(first), Entry::NEXT_PAGE);
    }
    count as u32
}

/// Maps a batch of frames.
///
/// # Safety
/// As for [`map`]; the entries and the guard's are in the table.
#[inline(always)]
unsafe fn map_each<M: Machine>(spot: &Spot<'_, M>, frames: &[Pfn], like: u64, tables: &mut impl TableFrames) -> u32 {
    let (table, start, guards) = (&spot.table, spot.start, spot.guards());
    // SAFETY: as in `map_run`.
    unsafe {
        if !table.all_absent(start - guards, frames.len() + guards) {
            return 0;
        }
        if guards != 0 {
            table.store(start - 1, spot.guard);
        }
        table.fill_each(start, frames, like);
    }
    if spot.counted {
        tables.add_entries(table.pfn, (frames.len() + guards) as u32);
    }
    frames.len() as u32
}

/// [`map_each`] of more frames than a batch, with a pause between two.
///
/// # Safety
/// As for [`map`]; the entries and the guard's are in the table.
#[inline(never)]
unsafe fn map_each_many<M: Machine>(
    spot: &Spot<'_, M>,
    frames: &[Pfn],
    like: u64,
    tables: &mut impl TableFrames,
    pause: &mut impl FnMut(),
) -> u32 {
    let (table, guards) = (&spot.table, spot.guards());
    // SAFETY: the caller holds the lock; the entry is in the table, as was checked.
    if guards != 0 && !unsafe { table.all_absent(spot.start - 1, 1) } {
        return 0;
    }
    let mut at = spot.start;
    for batch in frames.chunks(BATCH) {
        let first = at == spot.start;
        if !first {
            pause();
        }
        // SAFETY: as above.
        if !unsafe { table.all_absent(at, batch.len()) } {
            break;
        }
        if first {
            if guards != 0 {
                // SAFETY: the caller owns the guard's place; a guard over an absent entry is valid.
                unsafe { table.store(at - 1, spot.guard) };
            }
            if spot.counted {
                // All of them, so that the table stays while the lock is open.
                tables.add_entries(table.pfn, (frames.len() + guards) as u32);
            }
        }
        // SAFETY: the caller holds the lock and owns the range; leaves over absent entries are valid.
        unsafe { table.fill_each(at, batch, like) };
        at += batch.len();
    }
    let done = at - spot.start;
    if done != 0 && done != frames.len() && spot.counted {
        tables.sub_entries(table.pfn, (frames.len() - done) as u32);
    }
    done as u32
}

/// [`map`] of `count` entries, more than a batch; `fill` writes as many from the first on as its last two numbers say are
/// done and to be done, at the index that is its first.
///
/// # Safety
/// As for [`map`]; the entries and the guard's are in the table.
#[inline(never)]
unsafe fn map_many<M: Machine>(
    spot: &Spot<'_, M>,
    count: usize,
    tables: &mut impl TableFrames,
    pause: &mut impl FnMut(),
    fill: impl Fn(usize, usize, usize),
) -> u32 {
    let (table, guards) = (&spot.table, spot.guards());
    // SAFETY: the caller holds the lock; the entries are in the table, as was checked.
    if !unsafe { table.all_absent(spot.start - guards, BATCH + guards) } {
        return 0;
    }
    if guards != 0 {
        // SAFETY: the caller owns the guard's place; a guard over an absent entry is valid.
        unsafe { table.store(spot.start - 1, spot.guard) };
    }
    if spot.counted {
        // All of them, so that the table stays while the lock is open.
        tables.add_entries(table.pfn, (count + guards) as u32);
    }
    fill(spot.start, 0, BATCH);
    let mut done = BATCH;
    while count - done >= BATCH {
        pause();
        // SAFETY: as above.
        if !unsafe { table.all_absent(spot.start + done, BATCH) } {
            break;
        }
        fill(spot.start + done, done, BATCH);
        done += BATCH;
    }
    let rest = count - done;
    if rest != 0 && rest < BATCH {
        pause();
        // SAFETY: as above.
        if unsafe { table.all_absent(spot.start + done, rest) } {
            fill(spot.start + done, done, rest);
            return count as u32;
        }
    }
    if done != count && spot.counted {
        tables.sub_entries(table.pfn, (count - done) as u32);
    }
    done as u32
}

/// See [`PageTable::leaf_frames`](mm_core::PageTable::leaf_frames).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn frames<M: Machine>(
    machine: &M,
    leaf: Leaf,
    at: usize,
    most: u32,
    mut each: impl FnMut(Pfn) -> bool,
) -> u32 {
    // SAFETY: by the caller.
    let table = unsafe { table(machine, leaf) };
    let start = index(at, 0);
    debug_assert!(start + most as usize <= ENTRIES);
    let mut done = 0;
    while done < most {
        let entry = table.load(start + done as usize);
        if !entry.is_present() || !each(entry.pfn()) {
            break;
        }
        done += 1;
    }
    done
}

/// See [`PageTable::leaf_take`](mm_core::PageTable::leaf_take).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn take<M: Machine>(
    machine: &M,
    leaf: Leaf,
    at: usize,
    most: u32,
    mut each: impl FnMut(Pfn) -> bool,
    pause: &mut impl FnMut(),
) -> u32 {
    // SAFETY: by the caller.
    let table = unsafe { table(machine, leaf) };
    let start = index(at, 0);
    let end = start + most as usize;
    debug_assert!(end <= ENTRIES);
    let mut next = start;
    while next < end {
        let stop = (next + TOLD).min(end);
        while next < stop {
            let entry = table.load(next);
            if !entry.is_present() || !each(entry.pfn()) {
                return (next - start) as u32;
            }
            // SAFETY: the caller holds the lock and owns the entries, which are in the table; clearing one is valid.
            unsafe { table.store(next, Entry::ABSENT) };
            next += 1;
        }
        if next < end {
            pause();
        }
    }
    most
}

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
    // A guard and a page at least.
    while entries - done >= 2 {
        store(done);
        store(done + 1);
        done += 2;
    }
    if done < entries {
        store(done);
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
    if cleared > 0 && leaf.counted && tables.sub_entries(leaf.pfn, cleared) == 0 {
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
        let part = count.min(room);
        // SAFETY: the caller holds the lock and owns the range; clearing a leaf is valid.
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
