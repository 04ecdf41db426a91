//! Windows: addresses at which a frame without a kernel address is mapped for a moment.
//!
//! The machine's range of windows begins with the local ones, which serve [`Backend::with_frame`]: a stack of
//! [`LOCAL`] pages, used with interrupts masked, so that the last taken is the first given back. The rest is for the
//! manager's `kmap`. The lowest tables of all of them are made at boot.
//!
//! [`Backend::with_frame`]: mm_core::Backend::with_frame

use crate::entry::{Entry, Size};
use crate::machine::Machine;
use crate::table::{index, lowest};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use mm_core::{CacheMode, Pfn, Prot, VirtRange};

/// How deep calls of `with_frame` may stand in each other, those of a fault report included.
pub(crate) const LOCAL: usize = 8;
/// How deep those may that are told when there are too many. The rest is for the manager's own, which take two to copy.
pub(crate) const CALLERS: usize = 6;

/// What of the machine's windows is left for `kmap`.
#[inline]
pub(crate) fn for_kmap<M: Machine>(machine: &M) -> VirtRange {
    let all = machine.windows();
    VirtRange { start: all.end.min(all.start + (LOCAL << 12)), end: all.end }
}

/// Maps `pfn` in the next local window while `f` runs. `depth` says how many are in use.
///
/// # Panics
/// When more than [`LOCAL`] calls stand in each other, or the machine has no windows.
///
/// # Safety
/// 1. `pfn` is a frame of RAM.
/// 2. The kernel's tables are active.
pub(crate) unsafe fn with<M: Machine, R>(machine: &M, depth: &AtomicU32, pfn: Pfn, f: impl FnOnce(*mut u8) -> R) -> R {
    // SAFETY: by the caller.
    match unsafe { with_up_to(machine, depth, pfn, LOCAL, f) } {
        Some(result) => result,
        None => panic!("no window is left for frame {pfn}"),
    }
}

/// [`with`], unless `most` calls or more stand in each other already; then nothing is done.
///
/// # Safety
/// As for [`with`].
pub(crate) unsafe fn with_up_to<M: Machine, R>(
    machine: &M,
    depth: &AtomicU32,
    pfn: Pfn,
    most: usize,
    f: impl FnOnce(*mut u8) -> R,
) -> Option<R> {
    machine.masked(|| {
        // A plain load and store: nothing else of this machine comes between them.
        let slot = depth.load(Relaxed);
        let windows = machine.windows();
        let at = windows.start + ((slot as usize) << 12);
        if slot as usize >= most || !windows.contains(at) {
            return None;
        }
        depth.store(slot + 1, Relaxed);
        // SAFETY: the kernel's tables, of which these were made at boot.
        let Some((table, _)) = (unsafe { lowest(machine, machine.root(), at) }) else {
            panic!("the windows have no table")
        };
        let entry = Entry::leaf(pfn, Size::Page, Prot::ReadWrite, CacheMode::WriteBack);
        // SAFETY: nobody else stores to this entry, since interrupts are masked and each call has a window of its own;
        // the entry is absent, and was flushed when it last was not.
        unsafe { table.store(index(at, 0), entry) };
        let result = f(machine.window_ptr(at));
        // SAFETY: as above.
        unsafe { table.store(index(at, 0), Entry::ABSENT) };
        machine.flush_page(at);
        depth.store(slot, Relaxed);
        Some(result)
    })
}
