//! Looking through live tables: what is mapped, whether any frame can be both written and executed or is cached in two
//! ways, and whether a table is there for nothing.

use crate::entry::Size;
use crate::machine::Machine;
use crate::table::{ENTRIES, Table, is_link, shift};
use mm_core::{CacheMode, Pfn};

/// Calls `f(virt, phys, bytes, writable, executable)` for every leaf entry under `root`, in the order of addresses.
///
/// What upper entries forbid is taken into account. A diagnostic: it visits every table.
///
/// # Safety
/// `root` is a root table, and the tables under it do not change meanwhile.
pub unsafe fn for_each_mapping<M: Machine>(machine: &M, root: Pfn, mut f: impl FnMut(usize, u64, u64, bool, bool)) {
    let mut each = |found: Found| {
        if let Found::Leaf { virt, phys, bytes, writable, executable, .. } = found {
            f(virt, phys, bytes, writable, executable);
        }
    };
    // SAFETY: by the caller.
    unsafe { for_each(machine, root, &mut each) }
}

/// The first frame, by virtual address, that is mapped in another cache mode than elsewhere under `root`.
///
/// A diagnostic: it looks through all mappings once for each that is not write-back.
///
/// # Safety
/// As for [`for_each_mapping`].
pub unsafe fn cached_in_two_ways<M: Machine>(machine: &M, root: Pfn) -> Option<u64> {
    let otherwise = |start: u64, length: u64, mode: CacheMode| {
        let mut found = None;
        let mut each = |leaf: Found| {
            if let Found::Leaf { phys, bytes, cache, .. } = leaf
                && cache != mode
                && phys < start + length
                && start < phys + bytes
            {
                found = found.or(Some(phys.max(start)));
            }
        };
        // SAFETY: by the caller.
        unsafe { for_each(machine, root, &mut each) };
        found
    };
    let mut found = None;
    let mut each = |leaf: Found| {
        if let Found::Leaf { phys, bytes, cache, .. } = leaf
            && cache != CacheMode::WriteBack
            && found.is_none()
        {
            found = otherwise(phys, bytes, cache);
        }
    };
    // SAFETY: by the caller.
    unsafe { for_each(machine, root, &mut each) };
    found
}

/// The first table under `root`, by virtual address, that has no entry in use and was not made at boot.
///
/// # Safety
/// As for [`for_each_mapping`].
pub unsafe fn empty_table<M: Machine>(machine: &M, root: Pfn) -> Option<Pfn> {
    let mut empty = None;
    let mut each = |found: Found| {
        if let Found::Table { pfn, used: 0, permanent: false } = found {
            empty = empty.or(Some(pfn));
        }
    };
    // SAFETY: by the caller.
    unsafe { for_each(machine, root, &mut each) };
    empty
}

/// The first frame, by physical address, found to be writable by one mapping under `root` and executable by another.
///
/// A diagnostic: it looks through all mappings once for each executable run of memory.
///
/// # Safety
/// As for [`for_each_mapping`].
pub unsafe fn writable_and_executable<M: Machine>(machine: &M, root: Pfn) -> Option<u64> {
    let writable_in = |start: u64, end: u64| {
        let mut found = None;
        let look = |_, phys: u64, bytes: u64, writable, _| {
            if writable && found.is_none() && phys < end && start < phys + bytes {
                found = Some(phys.max(start));
            }
        };
        // SAFETY: by the caller.
        unsafe { for_each_mapping(machine, root, look) };
        found
    };
    let mut found = None;
    let mut run = (0, 0);
    let look = |_, phys, bytes, _, executable: bool| {
        if !executable || found.is_some() {
            return;
        }
        if run.1 == phys {
            run.1 += bytes;
            return;
        }
        found = writable_in(run.0, run.1);
        run = (phys, phys + bytes);
    };
    // SAFETY: by the caller.
    unsafe { for_each_mapping(machine, root, look) };
    found.or_else(|| writable_in(run.0, run.1))
}

/// What a look through the tables comes by.
enum Found {
    /// A leaf entry.
    Leaf { virt: usize, phys: u64, bytes: u64, writable: bool, executable: bool, cache: CacheMode },
    /// The end of a table below the root, and how many of its entries are not absent.
    Table { pfn: Pfn, used: usize, permanent: bool },
}

/// What the way down to a table says: the first address it maps, and what its links allow.
#[derive(Clone, Copy)]
struct Above {
    virt: usize,
    writable: bool,
    executable: bool,
}

/// # Safety
/// As for [`for_each_mapping`].
unsafe fn for_each<M: Machine>(machine: &M, root: Pfn, f: &mut impl FnMut(Found)) {
    let top = M::LEVELS.count - 1;
    // SAFETY: by the caller.
    unsafe { visit(machine, root, top, Above { virt: 0, writable: true, executable: true }, f) };
}

/// Returns how many entries of the table are not absent.
///
/// # Safety
/// As for [`for_each_mapping`], of the table at `pfn`.
unsafe fn visit<M: Machine>(machine: &M, pfn: Pfn, level: u32, above: Above, f: &mut impl FnMut(Found)) -> usize {
    let bare = M::LEVELS.bare_root && level == M::LEVELS.count - 1;
    let entries = if bare { 4 } else { ENTRIES };
    // SAFETY: by the caller.
    let table = unsafe { Table::at(machine, pfn) };
    let mut used = 0;
    for index in 0..entries {
        let entry = table.load(index);
        used += usize::from(!entry.is_absent());
        if !entry.is_present() {
            continue;
        }
        let here = Above {
            virt: canonical::<M>(above.virt | index << shift(level)),
            writable: above.writable && (bare || entry.allows_write()),
            executable: above.executable && entry.allows_execute(),
        };
        if level > 0 && is_link(entry, level) {
            // SAFETY: by the caller, a link leads to a table.
            let used = unsafe { visit(machine, entry.pfn(), level - 1, here, f) };
            f(Found::Table { pfn: entry.pfn(), used, permanent: entry.is_permanent() });
        } else {
            let pages = 1u32 << (9 * level);
            let (phys, bytes) = (u64::from(entry.large_pfn(pages).0) << 12, u64::from(pages) << 12);
            let cache = entry.cache(if level == 0 { Size::Page } else { Size::Large });
            let Above { virt, writable, executable } = here;
            f(Found::Leaf { virt, phys, bytes, writable, executable, cache });
        }
    }
    used
}

/// Copies the highest translated bit upwards, as 64-bit mode wants it.
fn canonical<M: Machine>(virt: usize) -> usize {
    let unused = usize::BITS.saturating_sub(shift(M::LEVELS.count));
    ((virt << unused) as isize >> unused) as usize
}
