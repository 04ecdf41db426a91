//! What was unmapped and not yet flushed.

mod chain;
mod late;
mod tables;

pub(super) use chain::{Block, Chain};
pub(super) use late::Late;
pub(super) use tables::{Retired, TableReserve, Tables, Uncounted};

use super::area::{AreaKind, AreaUses};
use super::mapped::Mapped;
use crate::addr::{PageRange, Pfn, VirtRange};
use crate::backend::{Backend, PageTable};
use crate::error::FreeError;
use crate::frame::{FrameKind, Head};
use crate::manager::Mm;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use crate::smp::Reach;

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

    /// [`flush`](Self::flush) of an area that had one block, was never executable, and lay in a table that has other
    /// entries.
    #[inline(always)]
    pub(super) fn flush_block(
        memory: &'a Memory<P, B>,
        family: &'a Mapped<P, B>,
        range: VirtRange,
        block: Block<'_>,
        record: u32,
    ) {
        let pending = Head::new(FrameKind::Pending, 0, block.pages);
        block.frame.set_head(pending);
        let reach = memory.flush_everywhere(range);
        if reach != Reach::All {
            return Self::put_block_off(memory, family, range, block, record, reach);
        }
        let _ = memory.give(block.region, block.frame, block.pfn, |head, _| {
            if head == pending { Ok(block.pages as usize) } else { Err(()) }
        });
        family.give_room_of(memory, (range.start, block.pages as usize), record);
    }

    #[cold]
    #[inline(never)]
    fn put_block_off(
        memory: &'a Memory<P, B>,
        family: &'a Mapped<P, B>,
        range: VirtRange,
        block: Block<'_>,
        record: u32,
        reach: Reach,
    ) {
        let (mut blocks, tables) = (Chain::new(), Chain::new());
        blocks.push_frame(block.frame, block.pfn, block.pages);
        // SAFETY: as in `new`.
        unsafe { (*memory.area(record)).next = NIL };
        let all = Unflushed { memory, family, range, blocks, tables, records: record, executed: 0 };
        core::mem::ManuallyDrop::new(all).put_off(reach);
    }

    /// What is unmapped of an area of what is not its own, in a table that has other entries.
    #[inline(always)]
    pub(super) fn of_foreign(
        memory: &'a Memory<P, B>,
        family: &'a Mapped<P, B>,
        range: VirtRange,
        record: u32,
    ) -> Self {
        // SAFETY: as in `new`.
        unsafe { (*memory.area(record)).next = NIL };
        let (blocks, tables) = (Chain::new(), Chain::new());
        Unflushed { memory, family, range, blocks, tables, records: record, executed: 0 }
    }

    /// [`flush`](Self::flush) of what was made [`of_foreign`](Self::of_foreign) an area of `pages` and `kind`.
    #[inline(always)]
    pub(super) fn flush_foreign(self, pages: u32, kind: AreaKind) {
        let mut all = core::mem::ManuallyDrop::new(self);
        let (memory, family) = (all.memory, all.family);
        let reach = memory.flush_everywhere(all.range);
        if reach != Reach::All {
            return all.put_off(reach);
        }
        if kind == AreaKind::Ioremap {
            family.unlist(memory, all.records);
        }
        family.give_room_of(memory, (all.range.start, pages as usize), all.records);
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
