//! Writing entries of one lowest table: neighbours, or frames from anywhere, a batch in a hold of the lock.

use super::{BATCH, FEW, Leaf, table};
use crate::entry::{Entry, Size};
use crate::machine::Machine;
use crate::table::{ENTRIES, Table, index};
use mm_core::{CacheMode, MapFrames, Pfn, Prot, TableFrames};

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
        if leaf.is_counted() {
            tables.add_entries(leaf.pfn, (count + guards) as u32);
        }
        return count as u32;
    }
    let spot = Spot { table, counted: leaf.is_counted(), start, guard: guard.map_or(Entry::ABSENT, Entry::guard) };
    // SAFETY: by the caller; the entries are in the table.
    unsafe {
        match frames {
            MapFrames::Run(_) if count <= BATCH => {
                let mapped = map_run(&spot.table, start, spot.guard, count, first);
                if mapped != 0 && leaf.is_counted() {
                    tables.add_entries(leaf.pfn, mapped + guards as u32);
                }
                mapped
            }
            MapFrames::Run(_) => map_many(&spot, count, tables, pause, |at, done, part| {
                let first = Entry(first.wrapping_add(done as u64 * Entry::NEXT_PAGE));
                spot.table.fill(at, part, first, Entry::NEXT_PAGE);
            }),
            MapFrames::Each(frames) => map_each(&spot, frames, first, tables, pause),
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
    // SAFETY: the caller holds the lock and owns the range; leaves and guards over absent entries are valid.
    unsafe {
        if !table.all_absent(start, count) {
            return 0;
        }
        if !guard.is_absent() {
            if !table.load(start - 1).is_absent() {
                return 0;
            }
            table.store(start - 1, guard);
        }
        table.fill(start, count, Entry(first), Entry::NEXT_PAGE);
    }
    count as u32
}

/// [`map`] of frames from anywhere, a batch at a time.
///
/// # Safety
/// As for [`map`]; the entries and the guard's are in the table.
#[inline(always)]
unsafe fn map_each<M: Machine>(
    spot: &Spot<'_, M>,
    frames: &[Pfn],
    like: u64,
    tables: &mut impl TableFrames,
    pause: &mut impl FnMut(),
) -> u32 {
    let (table, guards) = (&spot.table, spot.guards());
    if guards != 0 {
        // SAFETY: the caller holds the lock and owns the guard's place, which is in the table, as was checked; a guard over
        // an absent entry is valid.
        unsafe {
            if !table.load(spot.start - 1).is_absent() {
                return 0;
            }
            table.store(spot.start - 1, spot.guard);
        }
    }
    if spot.counted {
        // All of them, so that the table stays while the lock is open.
        tables.add_entries(table.pfn, (frames.len() + guards) as u32);
    }
    let (mut at, mut rest) = (spot.start, frames);
    while let Some((batch, behind)) = rest.split_first_chunk::<BATCH>() {
        // SAFETY: the caller holds the lock and owns the range; leaves over absent entries are valid.
        unsafe {
            if !table.all_absent(at, BATCH) {
                break;
            }
            table.fill_each(at, batch, like);
        }
        (at, rest) = (at + BATCH, behind);
        if rest.is_empty() {
            return frames.len() as u32;
        }
        pause();
    }
    if rest.len() < BATCH {
        // SAFETY: as above.
        let done = unsafe { table.fill_absent(at, rest, like) };
        if done == rest.len() {
            return frames.len() as u32;
        }
        rest = &rest[done..];
    }
    // What is left is not counted, and without any page there is no guard.
    let guards = if rest.len() == frames.len() { guards } else { 0 };
    if guards != 0 {
        // SAFETY: the caller holds the lock; the guard was written just now.
        unsafe { table.store(spot.start - 1, Entry::ABSENT) };
    }
    if spot.counted {
        tables.sub_entries(table.pfn, (rest.len() + guards) as u32);
    }
    (frames.len() - rest.len()) as u32
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
    if !unsafe { table.all_absent(spot.start, BATCH) && table.all_absent(spot.start - guards, guards) } {
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
