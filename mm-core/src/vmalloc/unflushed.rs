//! What was unmapped and not yet flushed.

use super::mapped::Mapped;
use crate::addr::{Pfn, VirtRange};
use crate::backend::{Backend, PageTable, TableFrames};
use crate::error::AllocError;
use crate::fault::FaultClass;
use crate::frame::{Frame, FrameKind, Head};
use crate::gfp::{GFP_KERNEL, Gfp};
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use core::time::Duration;

/// Frames, emptied tables and a range of addresses that a CPU may still reach through its TLB.
///
/// Nothing can be taken out of it: [`flush`](Unflushed::flush), or dropping it, flushes the range and only then gives
/// everything back. Forgetting it leaks; `Mm::check` then tells of frames that wait for a flush, and none is reused.
#[must_use = "frames, tables and addresses come back when it is flushed"]
pub struct Unflushed<'a, P: Platform, B: PageTable> {
    memory: &'a Memory<P, B>,
    family: &'a Mapped<P, B>,
    range: VirtRange,
    /// Blocks behind the area.
    blocks: Chain,
    /// Tables that became empty.
    tables: Chain,
    /// The area's record.
    record: u32,
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
        Unflushed { memory, family, range, blocks, tables, record }
    }

    /// Flushes the range from every TLB, then gives frames, tables, record and addresses back.
    ///
    /// Context: task, no lock held. Cost: one flush, and one zone lock for each block.
    #[inline(always)]
    pub fn flush(self) {
        // As dropping it, written out where it is called.
        core::mem::ManuallyDrop::new(self).release();
    }

    #[inline(always)]
    fn release(&mut self) {
        self.memory.backend.flush(self.range);
        self.memory.platform.flush_remote(self.range);
        self.blocks.free(self.memory);
        if !self.tables.is_empty() {
            self.give_tables();
        }
        self.family.give_room(self.memory, self.record);
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

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// Keeps a flushed table for the next area, or frees it: most areas come and go in address space whose tables went
    /// with the area before.
    #[cold]
    fn give_table(&self, memory: &Memory<P, B>, pfn: Pfn) {
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
        if self.room.lock().tables.push(pfn).is_err() {
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
            self.memory.fault_point(FaultClass::Table)?;
            let spare = self.family.room.lock().tables.pop();
            let pfn = match spare {
                Some(pfn) => pfn,
                None => {
                    let flags = GFP_KERNEL.own().union(Gfp::ZERO);
                    self.memory.take_block_until(1, flags, FrameKind::Held, NIL, self.until)?
                }
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
