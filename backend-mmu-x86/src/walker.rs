//! Mapping, unmapping and guards: the way down a table tree, and back up when tables become empty.

use crate::entry::{Entry, Size};
use crate::machine::Machine;
use crate::table::{ENTRIES, Spot, Table, descend, link};
use mm_core::{CacheMode, MapError, Mapping, PageRange, Pfn, Prot, TableFrames, Walk};

/// Small entries that one call reads or writes at most.
pub(crate) const BATCH: u32 = 32;
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
#[inline(always)]
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
    let aligned = ((at >> 12) as u32 | run.start.0) & (LARGE_PAGES - 1) == 0;
    if aligned && run.count >= LARGE_PAGES {
        // SAFETY: by the caller.
        let spot = unsafe { descend(machine, root, at, 1) };
        // A table with small entries elsewhere, guards for one, rules the large entry out.
        if spot.level > 1 || !spot.table.load(spot.index).is_table() {
            let entry = Entry::leaf(run.start, Size::Large, prot, cache);
            // SAFETY: by the caller.
            return unsafe { place(machine, spot, at, 1, entry, 1, tables) }.map(|()| LARGE_PAGES);
        }
    }
    // SAFETY: by the caller.
    let spot = unsafe { descend(machine, root, at, 0) };
    let left = LARGE_PAGES - ((at >> 12) as u32 & (LARGE_PAGES - 1));
    let count = run.count.min(left).min(BATCH);
    let entry = Entry::leaf(run.start, Size::Page, prot, cache);
    // SAFETY: by the caller.
    unsafe { place(machine, spot, at, 0, entry, count, tables) }.map(|()| count)
}

/// Writes `count` entries, `first` and those of the following frames, into the table `lowest` steps above the lowest
/// one. `spot` is how far the way down to it leads today; the tables that are missing are made.
///
/// # Safety
/// As for [`PageTable::map`](mm_core::PageTable::map); `count` entries fit into the table.
#[inline(always)]
unsafe fn place<M: Machine>(
    machine: &M,
    spot: Spot<'_, M>,
    at: usize,
    lowest: u32,
    first: Entry,
    count: u32,
    tables: &mut impl TableFrames,
) -> Result<(), MapError> {
    if spot.level == lowest {
        // SAFETY: the caller holds the lock.
        if !unsafe { spot.table.all_absent(spot.index, count as usize) } {
            return Err(MapError::AlreadyMapped);
        }
        // SAFETY: the caller holds the lock and owns the range; leaves over absent entries are valid.
        unsafe { spot.table.fill(spot.index, count as usize, first, Entry::NEXT_PAGE) };
        if spot.counted {
            tables.add_entries(spot.table.pfn, count);
        }
        return Ok(());
    }
    // SAFETY: by the caller.
    unsafe { place_below(machine, spot, at, lowest, first, count, tables) }
}

/// [`place`] where at least one table is missing: kept out of the common path.
///
/// # Safety
/// As for [`place`], and `spot.level > lowest`.
#[inline(never)]
unsafe fn place_below<M: Machine>(
    machine: &M,
    spot: Spot<'_, M>,
    at: usize,
    lowest: u32,
    first: Entry,
    count: u32,
    tables: &mut impl TableFrames,
) -> Result<(), MapError> {
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
    let mut entries = count;
    while level < spot.level {
        // SAFETY: a frame in hand is zeroed and becomes a table here.
        let table = unsafe { Table::at(machine, tables.take()) };
        let index = crate::table::index(at, level);
        // SAFETY: nobody reaches the table yet.
        unsafe { table.fill(index, entries as usize, entry, Entry::NEXT_PAGE) };
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
    let spot = unsafe { descend(machine, root, at, 0) };
    if spot.level != 0 {
        // SAFETY: by the caller.
        return unsafe { unmap_large(machine, root, spot, at, pages, tables, block) };
    }
    let most = pages.min((ENTRIES - spot.index) as u32).min(BATCH);
    let mut done = 0;
    while done < most {
        let index = spot.index + done as usize;
        let entry = spot.table.load(index);
        if !entry.is_present() {
            break;
        }
        let count = block(entry.pfn(), most - done).clamp(1, most - done);
        // SAFETY: the caller holds the lock and owns the range; clearing a leaf is valid.
        unsafe { spot.table.fill(index, count as usize, Entry::ABSENT, 0) };
        done += count;
    }
    if done > 0 {
        // SAFETY: by the caller.
        unsafe { forget(machine, root, &spot, at, done, tables) };
    }
    done
}

/// [`unmap`] where no lowest table is reached: a large entry, cleared only as a whole, or nothing.
///
/// # Safety
/// As for [`unmap`].
#[inline(never)]
unsafe fn unmap_large<M: Machine>(
    machine: &M,
    root: Pfn,
    spot: Spot<'_, M>,
    at: usize,
    pages: u32,
    tables: &mut impl TableFrames,
    block: &mut impl FnMut(Pfn, u32) -> u32,
) -> u32 {
    let entry = spot.table.load(spot.index);
    let aligned = (at >> 12) as u32 & (LARGE_PAGES - 1) == 0;
    if spot.level != 1 || !entry.is_present() || !aligned || pages < LARGE_PAGES {
        return 0;
    }
    let first = entry.large_pfn(LARGE_PAGES);
    let mut done = 0;
    while done < LARGE_PAGES {
        done += block(Pfn(first.0 + done), LARGE_PAGES - done).clamp(1, LARGE_PAGES - done);
    }
    // SAFETY: the caller holds the lock and owns the range; clearing a leaf is valid.
    unsafe {
        spot.table.store(spot.index, Entry::ABSENT);
        forget(machine, root, &spot, at, 1, tables);
    }
    LARGE_PAGES
}

/// Takes `entries` cleared entries of the table at `spot` out of the count. Unlinks and retires the table if none is
/// left, and so on upwards, as far as tables are counted.
///
/// # Safety
/// The caller holds the lock; `spot` is on the way to `at`.
#[inline(always)]
unsafe fn forget<M: Machine>(
    machine: &M,
    root: Pfn,
    spot: &Spot<'_, M>,
    at: usize,
    entries: u32,
    tables: &mut impl TableFrames,
) {
    if spot.counted && tables.sub_entries(spot.table.pfn, entries) == 0 {
        // SAFETY: by the caller; the table at `spot` is empty.
        unsafe { prune(machine, root, spot.level, at, tables) };
    }
}

/// Unlinks the empty table `level` steps above the lowest one on the way to `at`, and its parents that become empty.
///
/// # Safety
/// The caller holds the lock; that table exists, is counted and empty.
#[inline(never)]
unsafe fn prune<M: Machine>(machine: &M, root: Pfn, mut level: u32, at: usize, tables: &mut impl TableFrames) {
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
    let spot = unsafe { descend(machine, root, at, 0) };
    let entry = spot.table.load(spot.index);
    if !entry.is_present() {
        return entry.guard_tag().map_or(Walk::Absent, Walk::Guard);
    }
    let (prot, cache, pages) = if spot.level == 0 {
        (entry.prot(), entry.cache(Size::Page), 1)
    } else {
        (entry.prot(), entry.cache(Size::Large), 1 << (9 * spot.level))
    };
    let first = if spot.level == 0 { entry.pfn() } else { entry.large_pfn(pages) };
    let pfn = Pfn(first.0 + ((at >> 12) as u32 & (pages - 1)));
    Walk::Mapped(Mapping { pfn, pages, prot, cache })
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
    unsafe {
        let spot = descend(machine, root, at, 0);
        place(machine, spot, at, 0, Entry::guard(tag), 1, tables)
    }
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
    let spot = unsafe { descend(machine, root, at, 0) };
    if spot.level != 0 || spot.table.load(spot.index).guard_tag().is_none() {
        return;
    }
    // SAFETY: the caller holds the lock; clearing a guard is valid.
    unsafe {
        spot.table.store(spot.index, Entry::ABSENT);
        forget(machine, root, &spot, at, 1, tables);
    }
}
