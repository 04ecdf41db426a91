//! The direct map's entries of single frames: taken out and put back, where the kernel's tables were built in pages.
//!
//! Its tables were made at boot and stay, so an entry is found and written without the lock of the tables: it is the
//! business of whoever has the frame, and of nobody else.

use crate::entry::{Entry, Size};
use crate::machine::Machine;
use crate::table::{Table, index, lowest};
use mm_core::{CacheMode, PageRange, Pfn, Prot};

/// More pages than this are flushed all at once.
const FLUSH_ALL: u32 = 32;

/// Where the direct map has a frame.
fn virt<M: Machine>(machine: &M, pfn: u32) -> usize {
    machine.direct_base() + ((pfn as usize) << 12)
}

/// The table and the number of the entry of a frame, if it has one of its own.
fn place<M: Machine>(machine: &M, pfn: u32) -> Option<(Table<'_, M>, usize)> {
    let virt = virt(machine, pfn);
    // SAFETY: the machine's root is a root table, and tables of the direct map are never freed.
    let (table, _) = unsafe { lowest(machine, machine.root(), virt) }?;
    Some((table, index(virt, 0)))
}

/// True when each frame has an entry of its own.
pub(crate) fn is_in_pages<M: Machine>(machine: &M, run: PageRange) -> bool {
    (run.start.0..run.end()).all(|pfn| place(machine, pfn).is_some())
}

/// True when the frame is mapped.
pub(crate) fn has<M: Machine>(machine: &M, pfn: Pfn) -> bool {
    place(machine, pfn.0).is_none_or(|(table, index)| table.load(index).is_present())
}

/// See [`Backend::hide`](mm_core::Backend::hide).
///
/// # Safety
/// As there.
pub(crate) unsafe fn hide<M: Machine>(machine: &M, run: PageRange) {
    for pfn in run.start.0..run.end() {
        if let Some((table, index)) = place(machine, pfn) {
            // SAFETY: the entry is the frame's alone, which the caller has; without it the tables are valid.
            unsafe { table.store(index, Entry::ABSENT) };
            if run.count <= FLUSH_ALL {
                machine.flush_page(virt(machine, pfn));
            }
        }
    }
    if run.count > FLUSH_ALL {
        machine.flush_all();
    }
}

/// See [`Backend::show`](mm_core::Backend::show).
///
/// # Safety
/// As there.
pub(crate) unsafe fn show<M: Machine>(machine: &M, run: PageRange) {
    for pfn in run.start.0..run.end() {
        if let Some((table, index)) = place(machine, pfn)
            && table.load(index).is_absent()
        {
            let entry = Entry::leaf(Pfn(pfn), Size::Page, Prot::ReadWrite, CacheMode::WriteBack);
            // SAFETY: as above; the entry is the one the direct map was built with. No CPU has an absent one cached.
            unsafe { table.store(index, entry) };
        }
    }
}
