//! Runs of entries in one lowest table, without a walk for each.

mod map;
mod unmap;

pub(crate) use map::map;
pub(crate) use unmap::{clear, unmap};

use crate::entry::{Entry, Size};
use crate::machine::Machine;
use crate::table::{ENTRIES, Table, index, lowest};
use crate::walker::{self, is_kernel_page};
use mm_core::{Mapping, Pfn, Walk};

/// Entries written or cleared in one hold of the lock.
const BATCH: usize = walker::BATCH as usize;
/// Fewer entries than this go without loops that are unrolled.
const FEW: usize = 9;
/// Entries whose frames are told of in one hold of the lock, which takes longer.
const TOLD: usize = BATCH * 3 / 8;
/// Of these, entries in a row.
const ROW: usize = 4;

/// The name of a lowest table.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    entries: *mut u64,
    pub(crate) pfn: Pfn,
    /// Whether its entries are counted, as a number: who has a name or none need not load it to tell.
    counted: u32,
}

impl Leaf {
    /// Its entries in use are counted: it was not made at boot.
    #[inline(always)]
    pub(crate) fn is_counted(self) -> bool {
        self.counted != 0
    }
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
    Some(Leaf { entries: table.address(), pfn: table.pfn, counted: counted.into() })
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
    let mut clear = |index: usize| {
        let entry = table.load(index);
        let taken = entry.is_present() && each(entry.pfn());
        if taken {
            // SAFETY: the caller holds the lock and owns the entries, which are in the table; clearing one is valid.
            unsafe { table.store(index, Entry::ABSENT) };
        }
        taken
    };
    let mut next = start;
    while next < end {
        let stop = (next + TOLD).min(end);
        // Several in a row: what the loop itself costs adds to each.
        while stop - next >= ROW {
            for lane in 0..ROW {
                if !clear(next + lane) {
                    return (next + lane - start) as u32;
                }
            }
            next += ROW;
        }
        while next < stop {
            if !clear(next) {
                return (next - start) as u32;
            }
            next += 1;
        }
        if next < end {
            pause();
        }
    }
    most
}
