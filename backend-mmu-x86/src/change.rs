//! Changing the protection of what is mapped, splitting large entries on the way.

use crate::entry::Entry;
use crate::machine::Machine;
use crate::table::{ENTRIES, Table, descend, index, link, lowest};
use crate::walker::{BATCH, LARGE_PAGES, is_kernel_page};
use mm_core::{MapError, Pfn, Prot, TableFrames};

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
