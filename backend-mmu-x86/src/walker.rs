//! Mapping, unmapping and guards: the way down a table tree, and back up when tables become empty.

use crate::entry::{Entry, Size};
use crate::machine::Machine;
use crate::table::{ENTRIES, Table, descend, index, link, lowest};
use mm_core::{CacheMode, MapError, Mapping, PageRange, Pfn, Prot, TableFrames, Walk};

/// Small entries that one call reads or writes at most.
pub(crate) const BATCH: u32 = 32;
/// Large entries that one call clears at most: each may begin with another block, which takes as long as several small ones.
const LARGE_BATCH: u32 = BATCH / 4;
/// Pages that one large entry covers.
pub(crate) const LARGE_PAGES: u32 = ENTRIES as u32;

/// True for the page-aligned addresses the kernel may map.
///
/// The kernel's part reaches up to the last address, so this refuses user addresses and, in 64-bit mode, those that
/// are not canonical.
#[inline(always)]
pub(crate) const fn is_kernel_page<M: Machine>(at: usize) -> bool {
    at >= M::LEVELS.kernel_start && at <= M::LEVELS.kernel_last && at & 0xfff == 0
}

/// See [`PageTable::map`](mm_core::PageTable::map).
///
/// # Safety
/// As there; the frames of `run` are below what this CPU can address.
#[inline(never)]
pub(crate) unsafe fn map<M: Machine>(
    machine: &M,
    root: Pfn,
    at: usize,
    run: PageRange,
    prot: Prot,
    cache: CacheMode,
    tables: &mut impl TableFrames,
) -> Result<u32, MapError> {
    if !is_kernel_page::<M>(at) {
        return Err(MapError::BadAddress);
    }
    if run.count >= LARGE_PAGES && ((at >> 12) as u32 | run.start.0) & (LARGE_PAGES - 1) == 0 {
        let entry = Entry::leaf(run.start, Size::Large, prot, cache);
        // SAFETY: by the caller.
        if let Some(result) = unsafe { map_large(machine, root, at, entry, run.count / LARGE_PAGES, tables) } {
            return result.map(|entries| entries * LARGE_PAGES);
        }
    }
    let left = LARGE_PAGES - ((at >> 12) as u32 & (LARGE_PAGES - 1));
    let count = run.count.min(left).min(BATCH);
    let entry = Entry::leaf(run.start, Size::Page, prot, cache);
    // SAFETY: by the caller.
    unsafe { place(machine, root, at, entry, count, tables) }.map(|()| count)
}

/// Maps up to `most` large entries, `first` and those of the frames that follow, as far as their table reaches and
/// nothing is there; `None` when small entries are in the place of the first, guards for instance, which rule it out.
///
/// # Safety
/// As for [`map`].
#[inline(never)]
unsafe fn map_large<M: Machine>(
    machine: &M,
    root: Pfn,
    at: usize,
    first: Entry,
    most: u32,
    tables: &mut impl TableFrames,
) -> Option<Result<u32, MapError>> {
    // SAFETY: by the caller.
    let spot = unsafe { descend(machine, root, at, 1) };
    let most = most.min(BATCH).min((ENTRIES - index(at, 1)) as u32);
    if spot.level > 1 {
        // SAFETY: by the caller.
        return Some(unsafe { place_below(machine, root, at, 1, first, most, tables) }.map(|()| most));
    }
    let old = spot.table.load(spot.index);
    if old.is_table() {
        return None;
    }
    if !old.is_absent() {
        return Some(Err(MapError::AlreadyMapped));
    }
    let mut done = 0;
    while done < most as usize && spot.table.load(spot.index + done).is_absent() {
        let entry = Entry(first.0 + done as u64 * Entry::NEXT_LARGE);
        // SAFETY: the caller holds the lock and owns the range; a leaf over an absent entry is valid.
        unsafe { spot.table.store(spot.index + done, entry) };
        done += 1;
    }
    if spot.counted {
        tables.add_entries(spot.table.pfn, done as u32);
    }
    Some(Ok(done as u32))
}

/// Writes `count` small entries, `first` and those of the following frames, making the tables that are missing.
///
/// # Safety
/// As for [`PageTable::map`](mm_core::PageTable::map); `count` entries fit into the table.
#[inline(always)]
unsafe fn place<M: Machine>(
    machine: &M,
    root: Pfn,
    at: usize,
    first: Entry,
    count: u32,
    tables: &mut impl TableFrames,
) -> Result<(), MapError> {
    // SAFETY: by the caller.
    let Some((table, counted)) = (unsafe { lowest(machine, root, at) }) else {
        // SAFETY: by the caller.
        return unsafe { place_below(machine, root, at, 0, first, count, tables) };
    };
    let index = index(at, 0);
    // SAFETY: the caller holds the lock.
    if !unsafe { table.all_absent(index, count as usize) } {
        return Err(MapError::AlreadyMapped);
    }
    // SAFETY: the caller holds the lock and owns the range; leaves over absent entries are valid.
    unsafe { table.fill(index, count as usize, first, Entry::NEXT_PAGE) };
    if counted {
        tables.add_entries(table.pfn, count);
    }
    Ok(())
}

/// Writes `count` entries into a table `lowest` steps above the lowest one that is not there yet, making it and those
/// that lead to it.
///
/// # Safety
/// As for [`place`].
#[inline(never)]
unsafe fn place_below<M: Machine>(
    machine: &M,
    root: Pfn,
    at: usize,
    lowest: u32,
    first: Entry,
    count: u32,
    tables: &mut impl TableFrames,
) -> Result<(), MapError> {
    // SAFETY: by the caller.
    let spot = unsafe { descend(machine, root, at, lowest) };
    debug_assert!(spot.level > lowest);
    if !spot.table.load(spot.index).is_absent() {
        return Err(MapError::AlreadyMapped);
    }
    let missing = (spot.level - lowest) as usize;
    if tables.in_hand() < missing {
        return Err(MapError::NeedTables(missing));
    }
    // From the bottom up, so that the one store that makes them visible is the last.
    let mut level = lowest;
    let mut entry = first;
    let (mut entries, step) = (count, if lowest == 0 { Entry::NEXT_PAGE } else { Entry::NEXT_LARGE });
    while level < spot.level {
        // SAFETY: a frame in hand is zeroed and becomes a table here.
        let table = unsafe { Table::at(machine, tables.take()) };
        // SAFETY: nobody reaches the table yet.
        unsafe { table.fill(index(at, level), entries as usize, entry, step) };
        tables.add_entries(table.pfn, entries);
        level += 1;
        entry = link::<M>(table.pfn, level);
        entries = 1;
    }
    // SAFETY: the caller holds the lock, the entry is absent, and what hangs below is complete.
    unsafe { spot.table.store(spot.index, entry) };
    if spot.counted {
        tables.add_entries(spot.table.pfn, 1);
    }
    Ok(())
}

/// See [`PageTable::unmap`](mm_core::PageTable::unmap).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn unmap<M: Machine>(
    machine: &M,
    root: Pfn,
    at: usize,
    pages: u32,
    tables: &mut impl TableFrames,
    block: &mut impl FnMut(Pfn, u32) -> u32,
) -> u32 {
    if !is_kernel_page::<M>(at) {
        return 0;
    }
    // SAFETY: by the caller.
    let Some((table, counted)) = (unsafe { lowest(machine, root, at) }) else {
        // SAFETY: by the caller.
        return unsafe { unmap_large(machine, root, at, pages, tables, block) };
    };
    let start = index(at, 0);
    let most = pages.min((ENTRIES - start) as u32).min(BATCH);
    let mut done = 0;
    while done < most {
        let index = start + done as usize;
        let entry = table.load(index);
        if !entry.is_present() {
            break;
        }
        let count = block(entry.pfn(), most - done).clamp(1, most - done);
        // SAFETY: the caller holds the lock and owns the range; clearing a leaf is valid.
        unsafe { table.fill(index, count as usize, Entry::ABSENT, 0) };
        done += count;
    }
    if done > 0 && counted && tables.sub_entries(table.pfn, done) == 0 {
        // SAFETY: the caller holds the lock; the table is empty.
        unsafe { prune(machine, root, 0, at, tables) };
    }
    done
}

/// [`unmap`] where no lowest table is reached: large entries, cleared only as a whole, or nothing.
///
/// # Safety
/// As for [`unmap`].
#[inline(never)]
unsafe fn unmap_large<M: Machine>(
    machine: &M,
    root: Pfn,
    at: usize,
    pages: u32,
    tables: &mut impl TableFrames,
    block: &mut impl FnMut(Pfn, u32) -> u32,
) -> u32 {
    // SAFETY: by the caller.
    let spot = unsafe { descend(machine, root, at, 0) };
    let aligned = (at >> 12) as u32 & (LARGE_PAGES - 1) == 0;
    if spot.level != 1 || !aligned {
        return 0;
    }
    let most = ((pages / LARGE_PAGES).min(LARGE_BATCH) as usize).min(ENTRIES - spot.index);
    let mut done = 0;
    while done < most {
        let entry = spot.table.load(spot.index + done);
        if !entry.is_present() || entry.is_table() {
            break;
        }
        done += 1;
    }
    // Once for each block, however many of the entries it has.
    let (all, mut told) = (done as u32 * LARGE_PAGES, 0);
    while told < all {
        let first = spot.table.load(spot.index + (told / LARGE_PAGES) as usize).large_pfn(LARGE_PAGES);
        told += block(Pfn(first.0 + told % LARGE_PAGES), all - told).clamp(1, all - told);
    }
    for index in spot.index..spot.index + done {
        // SAFETY: the caller holds the lock and owns the range; clearing a leaf is valid.
        unsafe { spot.table.store(index, Entry::ABSENT) };
    }
    if done != 0 && spot.counted && tables.sub_entries(spot.table.pfn, done as u32) == 0 {
        // SAFETY: the caller holds the lock; the table is empty.
        unsafe { prune(machine, root, 1, at, tables) };
    }
    done as u32 * LARGE_PAGES
}

/// Unlinks the empty table `level` steps above the lowest one on the way to `at`, and its parents that become empty.
///
/// # Safety
/// The caller holds the lock; that table exists, is counted and empty.
#[inline(never)]
pub(crate) unsafe fn prune<M: Machine>(
    machine: &M,
    root: Pfn,
    mut level: u32,
    at: usize,
    tables: &mut impl TableFrames,
) {
    loop {
        level += 1;
        // SAFETY: by the caller. The root is not counted, so `level` stays below it.
        let parent = unsafe { descend(machine, root, at, level) };
        let empty = parent.table.load(parent.index).pfn();
        // SAFETY: the caller holds the lock; a link to an empty table maps nothing.
        unsafe { parent.table.store(parent.index, Entry::ABSENT) };
        tables.retire(empty);
        if !parent.counted || tables.sub_entries(parent.table.pfn, 1) != 0 {
            return;
        }
    }
}

/// See [`PageTable::walk`](mm_core::PageTable::walk).
#[inline(always)]
pub(crate) fn walk<M: Machine>(machine: &M, root: Pfn, at: usize) -> Walk {
    if !is_kernel_page::<M>(at & !0xfff) {
        return Walk::Absent;
    }
    // SAFETY: `root` is a root table by the contract of the caller's trait.
    let Some((table, _)) = (unsafe { lowest(machine, root, at) }) else { return walk_large(machine, root, at) };
    let entry = table.load(index(at, 0));
    if !entry.is_present() {
        return entry.guard_tag().map_or(Walk::Absent, Walk::Guard);
    }
    Walk::Mapped(Mapping { pfn: entry.pfn(), pages: 1, prot: entry.prot(), cache: entry.cache(Size::Page) })
}

/// [`walk`] where no lowest table is reached.
#[inline(never)]
fn walk_large<M: Machine>(machine: &M, root: Pfn, at: usize) -> Walk {
    // SAFETY: as in `walk`.
    let spot = unsafe { descend(machine, root, at, 0) };
    let entry = spot.table.load(spot.index);
    if spot.level != 1 || !entry.is_present() {
        return Walk::Absent;
    }
    let pfn = Pfn(entry.large_pfn(LARGE_PAGES).0 + ((at >> 12) as u32 & (LARGE_PAGES - 1)));
    Walk::Mapped(Mapping { pfn, pages: LARGE_PAGES, prot: entry.prot(), cache: entry.cache(Size::Large) })
}

/// See [`PageTable::set_guard`](mm_core::PageTable::set_guard).
///
/// # Safety
/// As there.
pub(crate) unsafe fn set_guard<M: Machine>(
    machine: &M,
    root: Pfn,
    at: usize,
    tag: u32,
    tables: &mut impl TableFrames,
) -> Result<(), MapError> {
    if !is_kernel_page::<M>(at) {
        return Err(MapError::BadAddress);
    }
    // SAFETY: by the caller.
    unsafe { place(machine, root, at, Entry::guard(tag), 1, tables) }
}

/// See [`PageTable::clear_guard`](mm_core::PageTable::clear_guard).
///
/// # Safety
/// As there.
pub(crate) unsafe fn clear_guard<M: Machine>(machine: &M, root: Pfn, at: usize, tables: &mut impl TableFrames) {
    if !is_kernel_page::<M>(at) {
        return;
    }
    // SAFETY: by the caller.
    let Some((table, counted)) = (unsafe { lowest(machine, root, at) }) else { return };
    let index = index(at, 0);
    if table.load(index).guard_tag().is_none() {
        return;
    }
    // SAFETY: the caller holds the lock; clearing a guard is valid.
    unsafe { table.store(index, Entry::ABSENT) };
    if counted && tables.sub_entries(table.pfn, 1) == 0 {
        // SAFETY: the caller holds the lock; the table is empty.
        unsafe { prune(machine, root, 0, at, tables) };
    }
}
