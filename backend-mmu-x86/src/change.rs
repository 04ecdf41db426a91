//! Changing the protection of what is mapped, splitting large entries on the way.

use crate::entry::{Entry, Size};
use crate::machine::Machine;
use crate::table::{ENTRIES, Table, descend, index, link, lowest};
use crate::walker::{BATCH, LARGE_PAGES, is_kernel_page};
use mm_core::{Join, MapError, Pfn, Prot, TableFrames};

/// See [`PageTable::protect`](mm_core::PageTable::protect).
///
/// # Safety
/// As there.
pub(crate) unsafe fn protect<M: Machine>(
    machine: &M,
    root: Pfn,
    at: usize,
    pages: u32,
    prot: Prot,
    tables: &mut impl TableFrames,
) -> Result<u32, MapError> {
    if !is_kernel_page::<M>(at) {
        return Err(MapError::BadAddress);
    }
    // SAFETY: by the caller.
    let Some((table, _)) = (unsafe { lowest(machine, root, at) }) else {
        // SAFETY: by the caller.
        return unsafe { protect_large(machine, root, at, pages, prot, tables) };
    };
    let start = index(at, 0);
    let most = (pages as usize).min(ENTRIES - start).min(BATCH as usize);
    let mut done = 0;
    while done < most {
        let index = start + done;
        let entry = table.load(index);
        if !entry.is_present() {
            break;
        }
        // SAFETY: the caller holds the lock and owns the range; frame and cache mode stay as they are.
        unsafe { table.replace(index, entry.with_prot(prot)) };
        done += 1;
    }
    if done == 0 { Err(MapError::NotMapped) } else { Ok(done as u32) }
}

/// [`protect`] where no lowest table is reached.
///
/// # Safety
/// As for [`protect`].
#[inline(never)]
unsafe fn protect_large<M: Machine>(
    machine: &M,
    root: Pfn,
    at: usize,
    pages: u32,
    prot: Prot,
    tables: &mut impl TableFrames,
) -> Result<u32, MapError> {
    // SAFETY: by the caller.
    let spot = unsafe { descend(machine, root, at, 0) };
    let entry = spot.table.load(spot.index);
    if spot.level != 1 || !entry.is_present() || pages == 0 {
        return Err(MapError::NotMapped);
    }
    let offset = (at >> 12) as u32 & (LARGE_PAGES - 1);
    let count = pages.min(LARGE_PAGES - offset);
    if count == LARGE_PAGES || entry.prot() == prot {
        // SAFETY: the caller holds the lock and owns the range; frames and cache mode stay as they are.
        unsafe { spot.table.replace(spot.index, entry.with_prot(prot)) };
        return Ok(count);
    }
    if tables.in_hand() == 0 {
        return Err(MapError::NeedTables(1));
    }
    // SAFETY: a frame in hand is zeroed and becomes a table here.
    let table = unsafe { Table::at(machine, tables.take()) };
    let old = entry.first_page();
    let new = old.with_prot(prot);
    let parts = [(0, offset, old), (offset, count, new), (offset + count, LARGE_PAGES - offset - count, old)];
    for (start, count, first) in parts {
        let first = Entry(first.0 + u64::from(start) * Entry::NEXT_PAGE);
        // SAFETY: nobody reaches the table yet; the parts add up to its 512 entries.
        unsafe { table.fill(start as usize, count as usize, first, Entry::NEXT_PAGE) };
    }
    tables.add_entries(table.pfn, LARGE_PAGES);
    // SAFETY: the caller holds the lock. The table maps every page of the large entry to the same frame in the same
    // cache mode, so a CPU that still has the old entry cached sees no more than an old protection.
    unsafe { spot.table.replace(spot.index, link::<M>(table.pfn, 1)) };
    Ok(count)
}

/// See [`PageTable::join`](mm_core::PageTable::join).
///
/// # Safety
/// As there.
pub(crate) unsafe fn join<M: Machine>(
    machine: &M,
    root: Pfn,
    at: usize,
    from: u32,
    tables: &mut impl TableFrames,
) -> Join {
    if !is_kernel_page::<M>(at) || !at.is_multiple_of(ENTRIES << 12) || from >= LARGE_PAGES {
        return Join::Differs;
    }
    // SAFETY: by the caller.
    let spot = unsafe { descend(machine, root, at, 1) };
    let link = spot.table.load(spot.index);
    if spot.level != 1 || !link.is_table() || link.is_permanent() {
        return Join::Differs;
    }
    // SAFETY: a link leads to a table, which stays while the lock is held.
    let table = unsafe { Table::at(machine, link.pfn()) };
    let first = table.load(0);
    if !first.is_present() || first.pfn().0 & (LARGE_PAGES - 1) != 0 {
        return Join::Differs;
    }
    let end = (from + BATCH).min(LARGE_PAGES);
    if (from..end).any(|i| table.load(i as usize).0 != first.0 + u64::from(i) * Entry::NEXT_PAGE) {
        return Join::Differs;
    }
    if end < LARGE_PAGES {
        return Join::Same;
    }
    let entry = Entry::leaf(first.pfn(), Size::Large, first.prot(), first.cache(Size::Page));
    // SAFETY: the caller holds the lock. The large entry maps every page to the same frame with the same rights and
    // cache mode as the table's, so a CPU that has some of those cached sees no difference.
    unsafe { spot.table.replace(spot.index, entry) };
    tables.sub_entries(table.pfn, LARGE_PAGES);
    Join::Joined(table.pfn)
}
