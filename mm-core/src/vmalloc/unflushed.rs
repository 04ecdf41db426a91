//! What was unmapped and not yet flushed.

mod late;

pub(super) use late::Late;

use super::area::AreaUses;
use super::mapped::Mapped;
use crate::addr::{PageRange, Pfn, VirtRange};
use crate::backend::{Backend, PageTable, TableFrames};
use crate::error::AllocError;
use crate::fault::FaultClass;
use crate::frame::{Frame, FrameKind, Head};
use crate::gfp::{GFP_KERNEL, Gfp};
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use crate::smp::Reach;
use core::time::Duration;

/// Frames, emptied tables and a range of addresses that a CPU may still reach through its TLB.
///
/// Nothing can be taken out of it: [`flush`](Unflushed::flush), or dropping it, flushes the range and only then gives
/// everything back. With several CPUs that is put off where the context may not wait for them, and when one does not answer
/// it never is. Forgetting it leaks; `Mm::check` then tells of frames that wait for a flush, and none is reused.
#[must_use = "frames, tables and addresses come back when it is flushed"]
pub struct Unflushed<'a, P: Platform, B: PageTable> {
    memory: &'a Memory<P, B>,
    family: &'a Mapped<P, B>,
    range: VirtRange,
    /// Blocks behind the area.
    blocks: Chain,
    /// Tables that became empty.
    tables: Chain,
    /// The records of the areas, linked through `Area::next`.
    records: u32,
    /// How many of them had an executable page.
    executed: usize,
}

impl<'a, P: Platform, B: PageTable> Unflushed<'a, P, B> {
    pub(super) fn new(
        memory: &'a Memory<P, B>,
        family: &'a Mapped<P, B>,
        range: VirtRange,
        blocks: Chain,
        tables: Chain,
        record: u32,
    ) -> Self {
        // SAFETY: a hidden area's record is its freer's.
        let area = unsafe { &mut *memory.area(record) };
        area.next = NIL;
        let executed = usize::from(area.uses.contains(AreaUses::EXECUTED));
        Unflushed { memory, family, range, blocks, tables, records: record, executed }
    }

    /// Flushes the range from every TLB, then gives frames, tables, record and addresses back.
    ///
    /// Context: task, no lock held. Cost: one flush, and one zone lock for each block.
    #[inline(always)]
    pub fn flush(self) {
        // As dropping it, written out where it is called.
        core::mem::ManuallyDrop::new(self).release();
    }

    /// Adds what another one holds, to be flushed with this.
    pub(super) fn join(&mut self, other: Self) {
        let mut other = core::mem::ManuallyDrop::new(other);
        let (start, end) = (self.range.start.min(other.range.start), self.range.end.max(other.range.end));
        self.range = VirtRange { start, end };
        self.executed += other.executed;
        self.blocks.append(self.memory, &mut other.blocks);
        self.tables.append(self.memory, &mut other.tables);
        while other.records != NIL {
            let record = other.records;
            // SAFETY: as in `new`.
            let next = unsafe { &raw mut (*self.memory.area(record)).next };
            // SAFETY: as in `new`.
            other.records = unsafe { next.replace(self.records) };
            self.records = record;
        }
    }

    #[inline(always)]
    fn release(&mut self) {
        let reach = self.memory.flush_everywhere(self.range);
        if reach != Reach::All {
            return self.put_off(reach);
        }
        if self.executed != 0 {
            self.unseal();
        }
        self.blocks.free(self.memory);
        if !self.tables.is_empty() {
            self.give_tables();
        }
        // Mostly there is one.
        while self.records != NIL {
            // SAFETY: as in `new`.
            let next = unsafe { (*self.memory.area(self.records)).next };
            self.family.give_room(self.memory, core::mem::replace(&mut self.records, next));
        }
    }

    /// Frames that were executable are writable through the direct map again, now that they are so nowhere else.
    #[cold]
    #[inline(never)]
    fn unseal(&mut self) {
        let mut pfn = self.blocks.0;
        while let Some(frame) = (pfn != NIL).then(|| self.memory.frames.frame(Pfn(pfn))).flatten() {
            self.family.unseal_freed(self.memory, PageRange { start: Pfn(pfn), count: frame.head().count() });
            pfn = frame.link();
        }
        for _ in 0..self.executed {
            self.family.forget_executed();
        }
    }

    #[cold]
    #[inline(never)]
    fn give_tables(&mut self) {
        while let Some(pfn) = self.tables.pop(self.memory) {
            self.family.give_table(self.memory, pfn);
        }
    }
}

impl<P: Platform, B: PageTable> Drop for Unflushed<'_, P, B> {
    #[inline(never)]
    fn drop(&mut self) {
        self.release();
    }
}

/// Blocks waiting for a flush, linked through their frame records.
pub(super) struct Chain(u32);

impl Chain {
    pub(super) const fn new() -> Self {
        Chain(NIL)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == NIL
    }

    /// Adds the block of `pages` frames at `pfn`.
    pub(super) fn push<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, pfn: u32, pages: u32) {
        if let Some(frame) = memory.frames.frame(Pfn(pfn)) {
            self.push_frame(frame, pfn, pages);
        }
    }

    /// [`push`](Self::push) with the record of the first frame at hand.
    #[inline(always)]
    pub(super) fn push_frame(&mut self, frame: &Frame, pfn: u32, pages: u32) {
        frame.set_link(self.0);
        frame.set_head(Head::new(FrameKind::Pending, 0, pages));
        self.0 = pfn;
    }

    /// Moves all of another chain here. Cost: its length.
    fn append<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, other: &mut Chain) {
        while other.0 != NIL {
            let pfn = other.0;
            let Some(frame) = memory.frames.frame(Pfn(pfn)) else { return };
            other.0 = frame.link();
            frame.set_link(self.0);
            self.0 = pfn;
        }
    }

    /// Frees all blocks, after their flush.
    #[inline(always)]
    fn free<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>) {
        while self.0 != NIL {
            let pfn = self.0;
            let Some((region, frame)) = memory.frames.find(pfn as usize) else { return };
            self.0 = frame.link();
            let _ = memory.give(region, frame, pfn, |head, _| {
                if head.is(FrameKind::Pending) { Ok(head.count() as usize) } else { Err(()) }
            });
        }
    }

    /// Takes the block added last.
    fn pop<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>) -> Option<Pfn> {
        let pfn = Pfn(self.0);
        let frame = if self.0 == NIL { None } else { memory.frames.frame(pfn) };
        self.0 = frame.map_or(NIL, |frame| frame.link());
        frame.map(|_| pfn)
    }
}

/// Zeroed frames for tables that are kept aside, linked through their frame records.
pub(super) struct TableReserve {
    frames: Chain,
    pub(super) kept: usize,
    wanted: usize,
}

impl TableReserve {
    pub(super) const fn new() -> Self {
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
    fn take_table(&self, memory: &Memory<P, B>, until: Option<Duration>) -> Result<Pfn, AllocError> {
        memory.fault_point(FaultClass::Table)?;
        let spare = self.room.lock().tables.pop();
        let take = |until| memory.take_block_until(1, GFP_KERNEL.own().union(Gfp::ZERO), FrameKind::Held, NIL, until);
        match spare {
            Some(pfn) => Ok(pfn),
            None => match take(None) {
                // Before anybody waits; who fills the reserve does not.
                Err(_) if P::CAN_WAIT && until.is_some() => {
                    let kept = self.reserve.lock().take(memory);
                    kept.map_or_else(|| take(until), Ok)
                }
                taken => taken,
            },
        }
    }

    /// Keeps so many tables aside.
    pub(super) fn set_reserve(&self, memory: &Memory<P, B>, tables: usize) -> Result<(), AllocError> {
        let before = core::mem::replace(&mut self.reserve.lock().wanted, tables);
        while self.reserve.lock().kept < tables {
            match self.take_table(memory, None) {
                Ok(pfn) => self.reserve.lock().keep(memory, pfn),
                Err(error) => {
                    self.reserve.lock().wanted = before;
                    self.trim_reserve(memory);
                    return Err(error);
                }
            }
        }
        self.trim_reserve(memory);
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

    /// Keeps a flushed table for the next area, or frees it, as when somebody waits for pages: most areas come and go in address space whose tables went
    /// with the area before.
    #[cold]
    pub(super) fn give_table(&self, memory: &Memory<P, B>, pfn: Pfn) {
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
    pub(super) fn free_spares(&self, memory: &Memory<P, B>) {
        loop {
            let Some(pfn) = self.room.lock().tables.pop() else { return };
            let _ = memory.free_block(pfn.0 as usize, FrameKind::Held, Some(1));
        }
    }
}

/// The most tables one step of a walker can need, on any machine.
pub(super) const MAX_STASH: usize = 4;

/// The counts of live entries, and the tables that became empty; no frames for new tables.
pub(super) struct Retired<'a, P: Platform, B: PageTable> {
    memory: &'a Memory<P, B>,
    pub(super) chain: Chain,
}

impl<'a, P: Platform, B: PageTable> Retired<'a, P, B> {
    #[inline(always)]
    pub(super) fn new(memory: &'a Memory<P, B>) -> Self {
        Retired { memory, chain: Chain::new() }
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
        if let Some(frame) = self.memory.frames.frame(table) {
            let head = frame.head();
            if head.is(FrameKind::Table) {
                frame.set_head(Head::new(FrameKind::Table, 0, head.count() + entries));
            }
        }
    }

    #[inline(always)]
    fn sub_entries(&mut self, table: Pfn, entries: u32) -> u32 {
        match self.memory.frames.frame(table) {
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

/// Zeroed frames for tables in hand, the live-entry counts, and the tables that became empty.
pub(super) struct Tables<'a, P: Platform, B: PageTable> {
    memory: &'a Memory<P, B>,
    family: &'a Mapped<P, B>,
    stash: heapless::Vec<Pfn, MAX_STASH>,
    pub(super) retired: Retired<'a, P, B>,
    /// Until when to wait for frames.
    pub(super) until: Option<Duration>,
}

impl<'a, P: Platform, B: PageTable> Tables<'a, P, B> {
    pub(super) fn new(memory: &'a Memory<P, B>, family: &'a Mapped<P, B>) -> Self {
        const { assert!(B::MAX_TABLES <= MAX_STASH, "one step needs more tables than can be in hand") };
        Tables { memory, family, stash: heapless::Vec::new(), retired: Retired::new(memory), until: None }
    }

    /// Brings `wanted` frames in hand. No lock is held.
    ///
    /// # Errors
    /// `NoMemory`; the frames in hand stay there.
    pub(super) fn stock(&mut self, wanted: usize) -> Result<(), AllocError> {
        while self.stash.len() < wanted.min(MAX_STASH) {
            let pfn = match self.family.take_table(self.memory, self.until) {
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
