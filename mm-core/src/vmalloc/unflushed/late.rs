//! What was unmapped and could not be flushed everywhere: put off, or never to be reused.
//!
//! Only with several CPUs. A context that may not wait for the others leaves what it unmapped here, for the next that
//! may; and when a CPU does not answer, everything it may still reach stays here for good: frames, tables, records and
//! addresses.

use super::{Chain, Unflushed};
use crate::addr::VirtRange;
use crate::backend::PageTable;
use crate::error::AllocError;
use crate::lock::Locked;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::{Platform, RawLock};
use crate::smp::Reach;
use crate::vmalloc::mapped::Mapped;
use crate::vmalloc::{AreaFamily, AreaKind, AreaUses};
use core::ptr::NonNull;
use core::sync::atomic::{Ordering::SeqCst, fence};

/// Lists of what [`Unflushed`] owns, of any number of areas.
struct Lists {
    range: Option<VirtRange>,
    blocks: Chain,
    tables: Chain,
    records: u32,
    executed: usize,
}

impl Lists {
    const EMPTY: Lists = Lists { range: None, blocks: Chain::new(), tables: Chain::new(), records: NIL, executed: 0 };
}

/// What waits for a flush, and what waits in vain.
pub(in crate::vmalloc) struct Late<L: RawLock> {
    later: Locked<L, Lists>,
    never: Locked<L, Lists>,
    /// The last request there was when a table was unlinked last: until a later one is done, CPUs may remember the way
    /// to it. Its lock is taken with that of the tables held.
    unlinked: Locked<L, Option<usize>>,
}

impl<L: RawLock> Late<L> {
    pub(in crate::vmalloc) const fn new() -> Self {
        Late { later: Locked::new(Lists::EMPTY), never: Locked::new(Lists::EMPTY), unlinked: Locked::new(None) }
    }
}

impl<P: Platform, B: PageTable> Unflushed<'_, P, B> {
    /// Leaves everything to others, or to nobody.
    #[cold]
    #[inline(never)]
    pub(super) fn put_off(&mut self, reach: Reach) {
        let memory = self.memory;
        let late = &self.family.late;
        // The ends of the lists, which are still one's own, so that under the lock nothing depends on their length.
        let (last_block, last_table) = (self.blocks.last(memory), self.tables.last(memory));
        let mut last_record = self.records;
        while last_record != NIL {
            // SAFETY: a hidden area's record is its freer's.
            match unsafe { (*memory.area(last_record)).next } {
                NIL => break,
                next => last_record = next,
            }
        }
        let mut lists = if reach == Reach::Later { late.later.lock() } else { late.never.lock() };
        let range = lists.range.get_or_insert(self.range);
        (range.start, range.end) = (range.start.min(self.range.start), range.end.max(self.range.end));
        if let Some(last) = last_block {
            last.set_link(core::mem::replace(&mut lists.blocks, core::mem::replace(&mut self.blocks, Chain::new())).0);
        }
        if let Some(last) = last_table {
            last.set_link(core::mem::replace(&mut lists.tables, core::mem::replace(&mut self.tables, Chain::new())).0);
        }
        if last_record != NIL {
            // SAFETY: as above.
            unsafe { (&raw mut (*memory.area(last_record)).next).write(lists.records) };
            lists.records = core::mem::replace(&mut self.records, NIL);
        }
        lists.executed += core::mem::replace(&mut self.executed, 0);
        drop(lists);
        if reach == Reach::Later
            && let Some(servants) = memory.servants()
        {
            // A task that waits flushes it, and has what comes free.
            (servants.rouse)(memory);
        }
    }
}

impl Chain {
    /// The record of the block at the end.
    fn last<'a, P: Platform, B: PageTable>(&self, memory: &'a Memory<P, B>) -> Option<&'a crate::frame::Frame> {
        let mut last = None;
        let mut pfn = self.0;
        while pfn != NIL {
            let frame = memory.frames.frame(crate::Pfn(pfn))?;
            pfn = frame.link();
            last = Some(frame);
        }
        last
    }

    fn count<P: Platform, B: PageTable>(&self, memory: &Memory<P, B>) -> usize {
        let (mut frames, mut pfn) = (0, self.0);
        while let Some(frame) = (pfn != NIL).then(|| memory.frames.frame(crate::Pfn(pfn))).flatten() {
            frames += frame.head().count() as usize;
            pfn = frame.link();
        }
        frames
    }
}

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// Flushes and gives back what was put off.
    pub(in crate::vmalloc) fn flush_late(&self, memory: &Memory<P, B>) {
        let lists = core::mem::replace(&mut *self.late.later.lock(), Lists::EMPTY);
        if let Lists { range: Some(range), blocks, tables, records, executed } = lists {
            drop(Unflushed { memory, family: self, range, blocks, tables, records, executed });
        }
    }

    /// A table whose way a CPU may remember, and which is no area's, stays unused for good.
    pub(in crate::vmalloc) fn abandon_table(&self, memory: &Memory<P, B>, pfn: crate::Pfn) {
        self.late.never.lock().tables.push(memory, pfn.0, 1);
    }

    /// A table was unlinked, under the lock of the tables.
    #[cold]
    pub(in crate::vmalloc) fn note_unlinked(&self, memory: &Memory<P, B>) {
        let mut unlinked = self.late.unlinked.lock();
        // The table is unlinked for all before the requests are looked at.
        fence(SeqCst);
        *unlinked = Some(memory.last_request());
    }

    /// An area was mapped at `at`, and nobody knows it yet: if another table was linked there a moment ago, CPUs forget
    /// the way to it first, which would end in a fault.
    /// False where the caller may not wait for that: the area must go again.
    #[inline(always)]
    #[must_use = "an area that CPUs may not find must not be handed out"]
    pub(in crate::vmalloc) fn settle_way(&self, memory: &Memory<P, B>, at: usize) -> bool {
        P::CPUS == 1 || self.settle_way_slow(memory, at)
    }

    /// The area, when every CPU finds the way to it; else it goes again.
    #[inline(always)]
    pub(in crate::vmalloc) fn settled(
        &self,
        memory: &Memory<P, B>,
        area: NonNull<u8>,
        kind: AreaKind,
    ) -> Result<NonNull<u8>, AllocError> {
        let start = area.as_ptr().addr() & !(B::PAGE_SIZE - 1);
        if self.settle_way(memory, start) {
            return Ok(area);
        }
        // No caller has it yet, that of vm_map_ram neither.
        let _ = self.with_live(memory, start, |area| area.uses.remove(AreaUses::RAM));
        let _ = self.vfree(memory, start, kind);
        Err(AllocError::NoMemory)
    }

    #[inline(never)]
    fn settle_way_slow(&self, memory: &Memory<P, B>, at: usize) -> bool {
        let unlinked = *self.late.unlinked.lock();
        if unlinked.is_none_or(|number| memory.was_flushed_since(number)) {
            return true;
        }
        // A CPU that does not answer was told of, and runs nothing that needs the area.
        memory.flush_everywhere(VirtRange { start: at, end: at + 1 }) != Reach::Later
    }

    /// For the scan, which nothing runs beside: counts the frames, and calls `each` with each record.
    pub(in crate::vmalloc) fn tally_late(&self, memory: &Memory<P, B>, mut each: impl FnMut(u32)) -> usize {
        let mut frames = 0;
        for lists in [&self.late.later, &self.late.never] {
            let lists = lists.lock();
            frames += lists.blocks.count(memory) + lists.tables.count(memory);
            let mut id = lists.records;
            while id != NIL {
                each(id);
                // SAFETY: the records in the lists are live, and nothing else runs.
                id = unsafe { (*memory.area(id)).next };
            }
        }
        frames
    }
}
