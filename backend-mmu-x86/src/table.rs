//! One table in memory, and the way down to it. Every load and store of an entry is here.
//!
//! Tables of PAE have entries of 64 bits on CPUs with words of 32, so an entry is set and cleared by two stores.
//! Between them it is not present and no guard, whichever of them it becomes.

use crate::entry::Entry;
use crate::machine::Machine;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use mm_core::Pfn;

/// Entries of a table.
pub(crate) const ENTRIES: usize = 512;

/// The entry that `at` uses in a table `level` steps above the lowest one.
#[inline(always)]
pub(crate) const fn index(at: usize, level: u32) -> usize {
    (at >> shift(level)) & (ENTRIES - 1)
}

/// log2 of the bytes an entry covers, `level` steps above the lowest table.
#[inline(always)]
pub(crate) const fn shift(level: u32) -> u32 {
    12 + 9 * level
}

/// A table of the tree, reached through the direct map.
pub(crate) struct Table<'m, M> {
    machine: &'m M,
    pub(crate) pfn: Pfn,
    entries: *mut u64,
}

impl<M> Table<'_, M> {
    /// Its address, for a name of it that outlives the handle.
    #[inline(always)]
    pub(crate) fn address(&self) -> *mut u64 {
        self.entries
    }
}

impl<'m, M: Machine> Table<'m, M> {
    /// The table in frame `pfn`, which is reached at `entries`.
    ///
    /// # Safety
    /// 1. While the handle is in use, the frame is a table.
    /// 2. `entries` is [`address`](Self::address) of a handle of that frame.
    #[inline(always)]
    pub(crate) unsafe fn again(machine: &'m M, pfn: Pfn, entries: *mut u64) -> Self {
        Table { machine, pfn, entries }
    }

    /// The table in frame `pfn`.
    ///
    /// # Safety
    /// 1. While the handle is in use, the frame is a table, or is about to become one.
    #[inline(always)]
    pub(crate) unsafe fn at(machine: &'m M, pfn: Pfn) -> Self {
        Table { machine, pfn, entries: machine.direct_ptr((pfn.0 as usize) << 12).cast() }
    }

    /// The entry at `index`, which is below 512.
    #[inline(always)]
    pub(crate) fn load(&self, index: usize) -> Entry {
        debug_assert!(index < ENTRIES);
        if M::LEVELS.halves {
            return self.load_halves(index);
        }
        // SAFETY: by `at`, the frame is a table of 512 aligned entries; other CPUs may load or store them atomically.
        Entry(unsafe { AtomicU64::from_ptr(self.entries.add(index)) }.load(Ordering::Relaxed))
    }

    /// Replaces the entry at `index`, which is below 512, so that a CPU that walks the table sees the old or the new
    /// one, or between them one that is not present.
    ///
    /// # Safety
    /// 1. The caller holds the lock of the tables.
    /// 2. The tables are valid with the new entry.
    /// 3. The old entry or the new one is not present; otherwise the call is [`replace`](Self::replace).
    #[inline(always)]
    pub(crate) unsafe fn store(&self, index: usize, entry: Entry) {
        debug_assert!(index < ENTRIES);
        if M::LEVELS.halves {
            // SAFETY: by the caller.
            return unsafe { self.store_halves(index, entry) };
        }
        // SAFETY: as for `load`. Release: what hangs below is written before it can be reached.
        unsafe { AtomicU64::from_ptr(self.entries.add(index)) }.store(entry.0, Ordering::Release);
        self.machine.stored(self.pfn, index);
    }

    /// Replaces a present entry at `index`, which is below 512, by another present one, in one store: no CPU finds the
    /// pages unmapped or sees the frame of one with the rights of the other.
    ///
    /// # Safety
    /// 1. The caller holds the lock of the tables.
    /// 2. The tables are valid with the new entry.
    #[inline(always)]
    pub(crate) unsafe fn replace(&self, index: usize, entry: Entry) {
        debug_assert!(index < ENTRIES);
        // SAFETY: as for `load`. A swap, for 32-bit CPUs have a locked exchange of 64 bits and no such store.
        let place = unsafe { AtomicU64::from_ptr(self.entries.add(index)) };
        if M::LEVELS.halves {
            place.swap(entry.0, Ordering::Release);
        } else {
            place.store(entry.0, Ordering::Release);
        }
        self.machine.stored(self.pfn, index);
    }

    /// The two words of the entry at `index`: first the one with the present bit.
    #[inline(always)]
    fn halves(&self, index: usize) -> [&AtomicU32; 2] {
        const LOW: usize = if cfg!(target_endian = "little") { 0 } else { 1 };
        let words = self.entries.cast::<u32>();
        // SAFETY: as for `load`; both words are in the entry.
        unsafe { [LOW, 1 - LOW].map(|half| AtomicU32::from_ptr(words.add(2 * index + half))) }
    }

    /// [`load`](Self::load) where somebody else may be between two stores: what was never there as a whole is not seen.
    #[inline(always)]
    fn load_halves(&self, index: usize) -> Entry {
        let [low, high] = self.halves(index);
        let mut first = low.load(Ordering::Acquire);
        loop {
            let entry = Entry(u64::from(high.load(Ordering::Acquire)) << 32 | u64::from(first));
            let again = low.load(Ordering::Acquire);
            // Each further round was caused by a store of the one CPU that holds the lock.
            if again == first {
                return entry;
            }
            first = again;
        }
    }

    /// # Safety
    /// As for [`store`](Self::store).
    #[inline(always)]
    unsafe fn store_halves(&self, index: usize, entry: Entry) {
        let [low, high] = self.halves(index);
        debug_assert!(!entry.is_present() || !self.load(index).is_present(), "two stores over a present entry");
        let (low_word, high_word) = (entry.0 as u32, (entry.0 >> 32) as u32);
        // Release twice: the second word, and what hangs below, are in place before the one after them is seen.
        let (first, second) = match entry.is_present() {
            true => ((high, high_word), (low, low_word)),
            false => ((low, low_word), (high, high_word)),
        };
        for (half, word) in [first, second] {
            half.store(word, Ordering::Release);
            self.machine.stored(self.pfn, index);
        }
    }

    /// Writes `count` entries from `index` on: `first`, and `step` more for each that follows.
    ///
    /// # Safety
    /// As for [`store`](Self::store), for each of them; `index + count` is at most 512.
    #[inline(always)]
    pub(crate) unsafe fn fill(&self, index: usize, count: usize, first: Entry, step: u64) {
        let mut value = first.0;
        let mut put = |index| {
            // SAFETY: by the caller.
            unsafe { self.store(index, Entry(value)) };
            value = value.wrapping_add(step);
        };
        for_each_in_rows(index, count, &mut put);
    }

    /// Writes an entry for each of `frames` from `index` on, with the bits of `like`, whose frame is 0.
    ///
    /// # Safety
    /// As for [`store`](Self::store), for each of them; `index + frames.len()` is at most 512.
    #[inline(always)]
    pub(crate) unsafe fn fill_each(&self, index: usize, frames: &[Pfn], like: u64) {
        // SAFETY: by the caller.
        let put = |at: usize, pfn: Pfn| unsafe { self.store(index + at, Entry(u64::from(pfn.0) << 12 | like)) };
        // Of two stores, which comes first is asked once for a loop, and for each in a row.
        if !M::LEVELS.halves
            && let Ok(frames) = <&[Pfn; FULL]>::try_from(frames)
        {
            for (lane, &pfn) in frames.iter().enumerate() {
                put(lane, pfn);
            }
            return;
        }
        let (mut at, mut rest) = (0, frames);
        while let Some((row, behind)) = rest.split_first_chunk::<LANES>() {
            for (lane, &pfn) in row.iter().enumerate() {
                put(at + lane, pfn);
            }
            (at, rest) = (at + LANES, behind);
        }
        for (lane, &pfn) in rest.iter().enumerate() {
            put(at + lane, pfn);
        }
    }

    /// [`fill_each`](Self::fill_each) as far as the entries are absent, a few at a time; returns how many it wrote.
    ///
    /// # Safety
    /// As there, but for what the entries are.
    #[inline(always)]
    pub(crate) unsafe fn fill_absent(&self, index: usize, frames: &[Pfn], like: u64) -> usize {
        let (mut at, mut rest) = (index, frames);
        // SAFETY: by the caller, who holds the lock; leaves over absent entries are valid.
        unsafe {
            while let Some((row, behind)) = rest.split_first_chunk::<LANES>() {
                if !self.all_absent(at, LANES) {
                    return at - index;
                }
                self.fill_each(at, row, like);
                (at, rest) = (at + LANES, behind);
            }
            for pfn in rest {
                if !self.load(at).is_absent() {
                    break;
                }
                self.store(at, Entry(u64::from(pfn.0) << 12 | like));
                at += 1;
            }
        }
        at - index
    }

    /// True when the `count` entries from `index` on are absent; `index + count` is at most 512.
    ///
    /// # Safety
    /// 1. The caller holds the lock of the tables, so that nobody stores to this one.
    #[inline(always)]
    pub(crate) unsafe fn all_absent(&self, index: usize, count: usize) -> bool {
        debug_assert!(index + count <= ENTRIES);
        let mut bits = 0;
        for_each_in_rows(index, count, &mut |i| {
            // SAFETY: in the table by `at`. A plain read: nobody stores now, the CPU included, since the accessed and
            // dirty bits it would set are set.
            bits |= unsafe { self.entries.add(i).read() };
        });
        bits == 0
    }
}

/// Entries in a row: what the loop itself costs would otherwise outweigh a load or a store.
const LANES: usize = 8;
/// Entries of a full batch, for which there is a row of its own: four of the others.
const FULL: usize = 4 * LANES;

/// Calls `f` for `count` numbers from `first` on, as many in a row as there are.
#[inline(always)]
fn for_each_in_rows(first: usize, count: usize, f: &mut impl FnMut(usize)) {
    let (mut at, mut rest) = (first, count);
    while rest >= FULL {
        (0..FULL).for_each(|lane| f(at + lane));
        (at, rest) = (at + FULL, rest - FULL);
    }
    if rest & (2 * LANES) != 0 {
        (0..2 * LANES).for_each(|lane| f(at + lane));
        at += 2 * LANES;
    }
    if rest & LANES != 0 {
        (0..LANES).for_each(|lane| f(at + lane));
        at += LANES;
    }
    (0..rest % LANES).for_each(|i| f(at + i));
}

/// Where the way down ended: a table, and the entry in it that the address uses.
pub(crate) struct Spot<'m, M> {
    pub(crate) table: Table<'m, M>,
    /// Steps above the lowest table.
    pub(crate) level: u32,
    /// The entry's number.
    pub(crate) index: usize,
    /// The table's entries in use are counted: it was not made at boot.
    pub(crate) counted: bool,
}

/// True when `entry`, of a table `level` steps above the lowest one, leads to another table.
///
/// Only the tables just above the lowest ones have leaves: 1 GiB entries are never written.
#[inline(always)]
pub(crate) const fn is_link(entry: Entry, level: u32) -> bool {
    if level == 1 { entry.is_table() } else { entry.is_present() }
}

/// Goes down from `root` towards `at` until a table `lowest` steps above the lowest one, or one with no table below.
///
/// # Safety
/// 1. `root` is a root table. Tables on the way to `at` are not freed meanwhile.
#[inline(always)]
pub(crate) unsafe fn descend<M: Machine>(machine: &M, root: Pfn, at: usize, lowest: u32) -> Spot<'_, M> {
    let mut level = M::LEVELS.count - 1;
    // SAFETY: by the caller.
    let mut table = unsafe { Table::at(machine, root) };
    let mut counted = false;
    loop {
        let index = index(at, level);
        if level == lowest {
            return Spot { table, level, index, counted };
        }
        let entry = table.load(index);
        if !is_link(entry, level) {
            return Spot { table, level, index, counted };
        }
        counted = !entry.is_permanent();
        level -= 1;
        // SAFETY: a link of the tree leads to a table, which stays by the caller.
        table = unsafe { Table::at(machine, entry.pfn()) };
    }
}

/// The lowest table on the way to `at`, and whether it is counted; `None` when there is none.
///
/// The common case of [`descend`], apart so that it keeps nothing that only the rare ones need.
///
/// # Safety
/// As for [`descend`].
#[inline(always)]
pub(crate) unsafe fn lowest<M: Machine>(machine: &M, root: Pfn, at: usize) -> Option<(Table<'_, M>, bool)> {
    // SAFETY: by the caller.
    let mut table = unsafe { Table::at(machine, root) };
    let mut counted = false;
    let mut level = M::LEVELS.count - 1;
    while level > 0 {
        let entry = table.load(index(at, level));
        if !is_link(entry, level) {
            return None;
        }
        counted = !entry.is_permanent();
        // SAFETY: a link of the tree leads to a table, which stays by the caller.
        table = unsafe { Table::at(machine, entry.pfn()) };
        level -= 1;
    }
    Some((table, counted))
}

/// The entry that links a table at `pfn` into a table `level` steps above the lowest one.
#[inline(always)]
pub(crate) const fn link<M: Machine>(pfn: Pfn, level: u32) -> Entry {
    if M::LEVELS.bare_root && level == M::LEVELS.count - 1 { Entry::pae_root(pfn) } else { Entry::table(pfn) }
}
