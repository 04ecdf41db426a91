//! Frames for page tables: those in hand for a step, those kept aside, and the count of what each table holds.

use super::Chain;
use crate::addr::Pfn;
use crate::backend::{Backend, PageTable, TableFrames};
use crate::error::AllocError;
use crate::fault::FaultClass;
use crate::frame::{Frame, FrameKind, Head};
use crate::gfp::{GFP_KERNEL, Gfp};
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use crate::vmalloc::mapped::Mapped;
use crate::wait::Patience;

/// Zeroed frames for tables that are kept aside, linked through their frame records.
pub(in crate::vmalloc) struct TableReserve {
    frames: Chain,
    pub(in crate::vmalloc) kept: usize,
    wanted: usize,
}

impl TableReserve {
    pub(in crate::vmalloc) const fn new() -> Self {
        TableReserve { frames: Chain::new(), kept: 0, wanted: 0 }
    }

    fn keep<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, pfn: Pfn) {
        if let Some(frame) = memory.frames.frame(pfn) {
            frame.set_link(self.frames.0);
            self.frames.0 = pfn.0;
            self.kept += 1;
        }
    }

    fn take<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>) -> Option<Pfn> {
        let pfn = self.frames.pop(memory)?;
        self.kept -= 1;
        Some(pfn)
    }
}

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// A zeroed frame for a table.
    fn take_table(&self, memory: &Memory<P, B>, patience: Option<&Patience<'_>>) -> Result<Pfn, AllocError> {
        memory.fault_point(FaultClass::Table)?;
        let spare = self.room.lock().tables.pop();
        let flags = GFP_KERNEL.own().union(Gfp::ZERO);
        let take = |patience| memory.take_block_until(1, flags, FrameKind::Held, NIL, patience);
        match spare {
            Some(pfn) => Ok(pfn),
            None => match take(None) {
                // Before anybody waits; who fills the reserve does not.
                Err(_) if P::CAN_WAIT && patience.is_some() => {
                    let kept = self.reserve.lock().take(memory);
                    kept.map_or_else(|| take(patience), Ok)
                }
                taken => taken,
            },
        }
    }

    /// Keeps so many tables aside, and as many records: no area that maps by one of them needs more than one.
    pub(in crate::vmalloc) fn set_reserve(&self, memory: &Memory<P, B>, tables: usize) -> Result<(), AllocError> {
        let before = core::mem::replace(&mut self.reserve.lock().wanted, tables);
        let records = self.want_records(tables);
        let filled = self.fill_tables(memory, tables).and_then(|()| self.fill_records(memory));
        if filled.is_err() {
            self.reserve.lock().wanted = before;
            self.want_records(records);
        }
        self.trim_reserve(memory);
        self.trim_records(memory);
        filled
    }

    fn fill_tables(&self, memory: &Memory<P, B>, tables: usize) -> Result<(), AllocError> {
        while self.reserve.lock().kept < tables {
            let pfn = self.take_table(memory, None)?;
            self.reserve.lock().keep(memory, pfn);
        }
        Ok(())
    }

    /// Gives back what is kept beyond what is wanted.
    fn trim_reserve(&self, memory: &Memory<P, B>) {
        loop {
            let mut reserve = self.reserve.lock();
            if reserve.kept <= reserve.wanted {
                return;
            }
            let pfn = reserve.take(memory);
            drop(reserve);
            if let Some(pfn) = pfn {
                let _ = memory.free_block(pfn.0 as usize, FrameKind::Held, Some(1));
            }
        }
    }

    /// Keeps a flushed table for the next area, or frees it, as when somebody waits for pages: most areas come and go
    /// in address space whose tables went with the area before.
    #[cold]
    pub(in crate::vmalloc) fn give_table(&self, memory: &Memory<P, B>, pfn: Pfn) {
        if let Some(frame) = memory.frames.frame(pfn) {
            frame.set_head(Head::new(FrameKind::Held, 0, 1));
        }
        debug_assert!(
            // SAFETY: a frame of this manager that nobody else has, read as words.
            unsafe {
                memory.backend.with_frame(pfn, |p| {
                    core::slice::from_raw_parts(p.cast::<usize>(), B::PAGE_SIZE / size_of::<usize>())
                        .iter()
                        .all(|&word| word == 0)
                })
            },
            "an emptied table is not zero"
        );
        let mut reserve = self.reserve.lock();
        if reserve.kept < reserve.wanted {
            reserve.keep(memory, pfn);
            return;
        }
        drop(reserve);
        if memory.waiting.is_any() || self.room.lock().tables.push(pfn).is_err() {
            let _ = memory.free_block(pfn.0 as usize, FrameKind::Held, Some(1));
        }
    }

    /// Frees the tables that were kept.
    pub(in crate::vmalloc) fn free_spares(&self, memory: &Memory<P, B>) {
        loop {
            let Some(pfn) = self.room.lock().tables.pop() else { return };
            let _ = memory.free_block(pfn.0 as usize, FrameKind::Held, Some(1));
        }
    }
}

/// The most tables one step of a walker can need, on any machine.
const MAX_STASH: usize = 4;

/// The counts of live entries, and the tables that became empty; no frames for new tables.
pub(in crate::vmalloc) struct Retired<'a, P: Platform, B: PageTable> {
    memory: &'a Memory<P, B>,
    pub(in crate::vmalloc) chain: Chain,
    /// The record of the table the entries are in, when it is at hand.
    pub(in crate::vmalloc) leaf: Option<&'a Frame>,
}

impl<'a, P: Platform, B: PageTable> Retired<'a, P, B> {
    #[inline(always)]
    pub(in crate::vmalloc) fn new(memory: &'a Memory<P, B>) -> Self {
        Retired { memory, chain: Chain::new(), leaf: None }
    }

    /// For the entries of the one table whose record is `leaf`.
    #[inline(always)]
    pub(in crate::vmalloc) fn of(memory: &'a Memory<P, B>, leaf: Option<&'a Frame>) -> Self {
        Retired { memory, chain: Chain::new(), leaf }
    }

    /// The record of `table`: the one at hand, for it is told of first, and then those above.
    #[inline(always)]
    fn record(&mut self, table: Pfn) -> Option<&'a Frame> {
        match self.leaf.take() {
            None => self.memory.frames.frame(table),
            leaf => leaf,
        }
    }
}

impl<P: Platform, B: PageTable> TableFrames for Retired<'_, P, B> {
    fn in_hand(&self) -> usize {
        0
    }

    fn take(&mut self) -> Pfn {
        // Never called, for there is none in hand; frame 0 is never a table.
        Pfn(0)
    }

    #[inline(always)]
    fn add_entries(&mut self, table: Pfn, entries: u32) {
        let leaf = self.leaf;
        if let Some(frame) = self.record(table) {
            let head = frame.head();
            if head.is(FrameKind::Table) {
                frame.set_head(Head::new(FrameKind::Table, 0, head.count() + entries));
            }
        }
        self.leaf = leaf;
    }

    #[inline(always)]
    fn sub_entries(&mut self, table: Pfn, entries: u32) -> u32 {
        match self.record(table) {
            Some(frame) if frame.head().is(FrameKind::Table) => {
                let left = frame.head().count().saturating_sub(entries);
                frame.set_head(Head::new(FrameKind::Table, 0, left));
                left
            }
            // A table made at boot is never freed.
            _ => u32::MAX,
        }
    }

    fn retire(&mut self, table: Pfn) {
        self.chain.push(self.memory, table.0, 1);
    }
}

/// For entries that the caller counts, of one table and in one hold of the lock; no frames for new tables.
pub(in crate::vmalloc) struct Uncounted;

impl TableFrames for Uncounted {
    fn in_hand(&self) -> usize {
        0
    }

    fn take(&mut self) -> Pfn {
        // Never called, as for `Retired`.
        Pfn(0)
    }

    #[inline(always)]
    fn add_entries(&mut self, _table: Pfn, _entries: u32) {}

    #[inline(always)]
    fn sub_entries(&mut self, _table: Pfn, _entries: u32) -> u32 {
        u32::MAX
    }

    fn retire(&mut self, _table: Pfn) {}
}

/// Zeroed frames for tables in hand, the live-entry counts, and the tables that became empty.
pub(in crate::vmalloc) struct Tables<'a, P: Platform, B: PageTable> {
    memory: &'a Memory<P, B>,
    family: &'a Mapped<P, B>,
    stash: heapless::Vec<Pfn, MAX_STASH>,
    pub(in crate::vmalloc) retired: Retired<'a, P, B>,
    /// How to wait for frames.
    pub(in crate::vmalloc) patience: Option<&'a Patience<'a>>,
}

impl<'a, P: Platform, B: PageTable> Tables<'a, P, B> {
    pub(in crate::vmalloc) fn new(memory: &'a Memory<P, B>, family: &'a Mapped<P, B>) -> Self {
        const { assert!(B::MAX_TABLES <= MAX_STASH, "one step needs more tables than can be in hand") };
        Tables { memory, family, stash: heapless::Vec::new(), retired: Retired::new(memory), patience: None }
    }

    /// Brings `wanted` frames in hand. No lock is held.
    ///
    /// # Errors
    /// `NoMemory`; the frames in hand stay there.
    pub(in crate::vmalloc) fn stock(&mut self, wanted: usize) -> Result<(), AllocError> {
        while self.stash.len() < wanted.min(MAX_STASH) {
            let pfn = match self.family.take_table(self.memory, self.patience) {
                Ok(pfn) => pfn,
                Err(error) => self.family.reserve.lock().take(self.memory).ok_or(error)?,
            };
            let _ = self.stash.push(pfn);
        }
        Ok(())
    }
}

impl<P: Platform, B: PageTable> TableFrames for Tables<'_, P, B> {
    fn in_hand(&self) -> usize {
        self.stash.len()
    }

    fn take(&mut self) -> Pfn {
        // The walker takes at most what is in hand; frame 0 is never a table, and is refused by every later check.
        let pfn = self.stash.pop().unwrap_or(Pfn(0));
        if let Some(frame) = self.memory.frames.frame(pfn) {
            frame.set_head(Head::new(FrameKind::Table, 0, 0));
        }
        pfn
    }

    #[inline(always)]
    fn add_entries(&mut self, table: Pfn, entries: u32) {
        self.retired.add_entries(table, entries);
    }

    #[inline(always)]
    fn sub_entries(&mut self, table: Pfn, entries: u32) -> u32 {
        self.retired.sub_entries(table, entries)
    }

    fn retire(&mut self, table: Pfn) {
        self.retired.retire(table);
    }
}

impl<P: Platform, B: PageTable> Drop for Tables<'_, P, B> {
    fn drop(&mut self) {
        while let Some(pfn) = self.stash.pop() {
            self.family.give_table(self.memory, pfn);
        }
    }
}
