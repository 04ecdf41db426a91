//! What was unmapped and not yet flushed.

mod late;

pub(super) use late::Late;

use super::area::{AreaKind, AreaUses};
use super::mapped::Mapped;
use crate::addr::{PageRange, Pfn, VirtRange};
use crate::backend::{Backend, PageTable, TableFrames};
use crate::error::{AllocError, FreeError};
use crate::fault::FaultClass;
use crate::frame::{Frame, FrameKind, Head, Region};
use crate::gfp::{GFP_KERNEL, Gfp};
use crate::manager::Mm;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use crate::smp::Reach;
use crate::zone::ZoneGuard;
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
        let all = core::mem::ManuallyDrop::new(self);
        let (blocks, tables) = (Chain(all.blocks.0), Chain(all.tables.0));
        Self::release(all.memory, all.family, all.range, blocks, tables, all.records, all.executed);
    }

    /// What is unmapped of an area that had one block and was never executable.
    #[inline(always)]
    pub(super) fn of(
        memory: &'a Memory<P, B>,
        family: &'a Mapped<P, B>,
        range: VirtRange,
        block: &Block<'_>,
        record: u32,
    ) -> Self {
        let mut blocks = Chain::new();
        blocks.push_frame(block.frame, block.pfn, block.pages);
        // SAFETY: as in `new`.
        unsafe { (*memory.area(record)).next = NIL };
        Unflushed { memory, family, range, blocks, tables: Chain::new(), records: record, executed: 0 }
    }

    /// [`flush`](Self::flush) of what was made [`of`](Self::of) this block.
    #[inline(always)]
    pub(super) fn flush_block(self, block: Block<'_>) {
        let mut all = core::mem::ManuallyDrop::new(self);
        let memory = all.memory;
        let reach = memory.flush_everywhere(all.range);
        if reach != Reach::All {
            return all.put_off(reach);
        }
        let pending = Head::new(FrameKind::Pending, 0, block.pages);
        let _ = memory.give(block.region, block.frame, block.pfn, |head, _| {
            if head == pending { Ok(block.pages as usize) } else { Err(()) }
        });
        all.family.give_room_of(memory, (all.range.start, block.pages as usize), all.records);
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

    /// The one way back. By values, which stay in registers.
    #[inline(always)]
    fn release(
        memory: &'a Memory<P, B>,
        family: &'a Mapped<P, B>,
        range: VirtRange,
        blocks: Chain,
        tables: Chain,
        mut records: u32,
        executed: usize,
    ) {
        let reach = memory.flush_everywhere(range);
        if reach != Reach::All {
            let all = Unflushed { memory, family, range, blocks, tables, records, executed };
            return core::mem::ManuallyDrop::new(all).put_off(reach);
        }
        if executed != 0 {
            Self::unseal(memory, family, blocks.0, executed);
        }
        blocks.free(memory);
        if !tables.is_empty() {
            Self::give_tables(memory, family, tables);
        }
        // Mostly there is one.
        while records != NIL {
            // SAFETY: as in `new`.
            let next = unsafe { (*memory.area(records)).next };
            family.give_room(memory, core::mem::replace(&mut records, next));
        }
    }

    /// Frames that were executable are writable through the direct map again, now that they are so nowhere else.
    #[cold]
    #[inline(never)]
    fn unseal(memory: &Memory<P, B>, family: &Mapped<P, B>, mut pfn: u32, executed: usize) {
        while let Some(frame) = (pfn != NIL).then(|| memory.frames.frame(Pfn(pfn))).flatten() {
            family.unseal_freed(memory, PageRange { start: Pfn(pfn), count: frame.head().count() });
            pfn = frame.link();
        }
        for _ in 0..executed {
            family.forget_executed();
        }
    }

    #[cold]
    #[inline(never)]
    fn give_tables(memory: &Memory<P, B>, family: &Mapped<P, B>, mut tables: Chain) {
        while let Some(pfn) = tables.pop(memory) {
            family.give_table(memory, pfn);
        }
    }
}

impl<P: Platform, B: PageTable> Drop for Unflushed<'_, P, B> {
    #[inline(never)]
    fn drop(&mut self) {
        let (blocks, tables) = (Chain(self.blocks.0), Chain(self.tables.0));
        Self::release(self.memory, self.family, self.range, blocks, tables, self.records, self.executed);
    }
}

/// Single frames that are taken or given back in one lock hold.
pub(super) const SINGLES: usize = 16;

impl<P: Platform, B: PageTable + Backend<Areas<P> = Mapped<P, B>>> Mm<P, B> {
    /// [`vfree`](Mm::vfree) in two steps: unmaps the area, and hands out what comes back when it is flushed.
    ///
    /// For a caller that must do something between the two. Null is refused like any address that is no area's.
    ///
    /// Context: task. Cost: as `vfree` without the flush.
    ///
    /// # Errors
    /// As `vfree`.
    pub fn vfree_unflushed(&self, addr: *const u8) -> Result<Unflushed<'_, P, B>, FreeError> {
        let unflushed = self.areas.unmap_unflushed(&self.memory, addr.addr(), AreaKind::Alloc);
        self.freed_area(unflushed.as_ref().map(|_| ()).map_err(|&error| error), addr)?;
        unflushed
    }
}

/// A block of an area's frames, with the records at hand.
pub(super) struct Block<'a> {
    region: &'a Region,
    frame: &'a Frame,
    pfn: u32,
    pages: u32,
}

impl<'a> Block<'a> {
    /// The block of exactly `pages` frames of an area that begins at `pfn`, if there is one.
    #[inline(always)]
    pub(super) fn of<P: Platform, B: Backend>(memory: &'a Memory<P, B>, pfn: Pfn, pages: u32) -> Option<Self> {
        let (region, frame) = memory.frames.find(pfn.0 as usize)?;
        frame.head().is_run(FrameKind::Mapped, pages).then_some(Block { region, frame, pfn: pfn.0, pages })
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
    fn free<P: Platform, B: Backend>(self, memory: &Memory<P, B>) {
        let mut pfn = self.0;
        while pfn != NIL {
            let Some((region, frame)) = memory.frames.find(pfn as usize) else { return };
            let next = frame.link();
            let single = Head::new(FrameKind::Pending, 0, 1);
            if next != NIL && frame.head() == single && !memory.poisons() {
                let hand_over = |zone: ZoneGuard<'_, P::Lock>| memory.hand_over(region.zone(), zone);
                let rest = memory.zones.give_chain(region, pfn, single, SINGLES, &memory.waiting, hand_over);
                if rest != pfn {
                    pfn = rest;
                    continue;
                }
            }
            let _ = memory.give(region, frame, pfn, |head, _| {
                if head.is(FrameKind::Pending) { Ok(head.count() as usize) } else { Err(()) }
            });
            pfn = next;
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
const MAX_STASH: usize = 4;

/// The counts of live entries, and the tables that became empty; no frames for new tables.
pub(super) struct Retired<'a, P: Platform, B: PageTable> {
    memory: &'a Memory<P, B>,
    pub(super) chain: Chain,
    /// The record of the table the entries are in, when it is at hand.
    pub(super) leaf: Option<&'a Frame>,
}

impl<'a, P: Platform, B: PageTable> Retired<'a, P, B> {
    #[inline(always)]
    pub(super) fn new(memory: &'a Memory<P, B>) -> Self {
        Retired { memory, chain: Chain::new(), leaf: None }
    }

    /// For the entries of the one table whose record is `leaf`.
    #[inline(always)]
    pub(super) fn of(memory: &'a Memory<P, B>, leaf: Option<&'a Frame>) -> Self {
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
