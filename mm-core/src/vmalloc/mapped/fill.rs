//! Filling an area under construction: blocks of frames for it, and the entries that map them.

use super::build::Build;
use super::layout::pages_left;
use super::lowest::look_first;
use super::{BATCH, Lowest};
use crate::addr::{PageRange, Pfn, VirtAddr};
use crate::backend::{MapFrames, PageTable};
use crate::error::{AllocError, MmError, PackedFrame};
use crate::fault::FaultClass;
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::vmalloc::Entries;
use crate::vmalloc::unflushed::Retired;

/// No blocks are put by.
pub(super) const NO_BLOCKS: PageRange = PageRange { start: Pfn(0), count: 0 };

/// The flags for a block of several pages, without which smaller ones do: nobody waits for it or is told of it.
#[inline(always)]
pub(super) fn quiet(flags: Gfp) -> Gfp {
    flags.difference(Gfp::WAIT) | Gfp::NOWARN
}

/// A block of pages for the area with this record.
#[inline(never)]
pub(super) fn take_own<P: Platform, B: PageTable>(
    memory: &Memory<P, B>,
    pages: usize,
    flags: Gfp,
    record: u32,
) -> PackedFrame {
    PackedFrame::new(memory.take_block_of(pages, flags, FrameKind::Mapped, record).map(|pfn| pfn.0))
}

impl<P: Platform, B: PageTable> Build<'_, P, B> {
    /// Takes frames in the largest blocks on offer, of up to `first` pages, and maps them.
    #[inline(always)]
    pub(super) fn fill(&mut self, flags: Gfp, first: usize) -> Result<(), MmError> {
        let memory = self.memory;
        let mut want = first.min(1 << B::MAX_ORDER);
        loop {
            if want == 1 && !memory.poisons() {
                self.map_pending()?;
                if self.fill_singles(flags)? {
                    return Ok(());
                }
            }
            memory.fault_point(FaultClass::Page)?;
            // A block that is not to be had is no failure yet: only of a single page is it told.
            let quiet = if want == 1 { flags } else { quiet(flags) };
            let block = match take_own(memory, want, quiet, self.record).result() {
                Err(_) if want == 1 && self.tables.patience.is_some() => {
                    memory.take_block_until(1, flags, FrameKind::Mapped, self.record, self.tables.patience)
                }
                block => block.map(Pfn),
            };
            match block {
                Ok(start) => self.add_block(PageRange { start, count: want as u32 })?,
                Err(error) => want = Self::smaller(memory, want, quiet, error)?,
            }
            let left = (self.pages - self.mapped - self.pending.count) as usize;
            if left == 0 {
                return self.map_pending();
            }
            want = want.min(left);
        }
    }

    /// The largest block of fewer pages that is there, or a page: to try one size after the other takes as long as to map
    /// dozens of pages.
    #[cold]
    #[inline(never)]
    pub(super) fn smaller(
        memory: &Memory<P, B>,
        want: usize,
        flags: Gfp,
        error: AllocError,
    ) -> Result<usize, AllocError> {
        if want == 1 {
            return Err(match error {
                AllocError::NoContig => AllocError::NoMemory,
                error => error,
            });
        }
        crate::trace::smaller_blocks(want);
        let largest = memory.zones.largest_block(&memory.frames, flags).map_or(1, |order| 1 << order);
        Ok((want.next_power_of_two() / 2).min(largest))
    }

    /// Puts a block by, to be mapped as one run with those before it when they are neighbours of large entries: each of
    /// these lies in one block. Maps what was put by otherwise.
    #[inline(always)]
    fn add_block(&mut self, block: PageRange) -> Result<(), MmError> {
        let pending = self.pending;
        if pending.end() == block.start.0 && (pending.count | block.count) & (B::LARGE_PAGES - 1) == 0 {
            self.pending.count += block.count;
            return Ok(());
        }
        self.pending = block;
        if pending.count == 0 { Ok(()) } else { self.map_blocks(pending) }
    }

    /// Maps the blocks that were put by.
    #[inline(always)]
    fn map_pending(&mut self) -> Result<(), MmError> {
        let pending = core::mem::replace(&mut self.pending, NO_BLOCKS);
        if pending.count == 0 { Ok(()) } else { self.map_blocks(pending) }
    }

    /// Maps blocks of frames, which are neighbours, behind what is mapped so far; on failure they go back too.
    #[inline(never)]
    pub(super) fn map_blocks(&mut self, blocks: PageRange) -> Result<(), MmError> {
        let before = self.mapped;
        let result = self.map_run(blocks);
        if result.is_err() {
            Self::give_blocks(self.memory, blocks, self.mapped - before);
        }
        result
    }

    /// Gives back those of some neighbouring blocks of which nothing was mapped: the undo would not find them.
    #[cold]
    #[inline(never)]
    pub(super) fn give_blocks(memory: &Memory<P, B>, blocks: PageRange, mapped: u32) {
        let mut at = 0;
        while at < blocks.count {
            let pfn = (blocks.start.0 + at) as usize;
            let Some((pages, _)) = memory.block_at(pfn, FrameKind::Mapped) else { return };
            if at >= mapped {
                let _ = memory.free_block(pfn, FrameKind::Mapped, None);
            }
            at += pages as u32;
        }
    }

    /// Maps frames behind what is mapped so far, a batch at a time.
    #[inline(always)]
    pub(super) fn map_run(&mut self, run: PageRange) -> Result<(), MmError> {
        let mut done = 0;
        while done < run.count {
            let rest = PageRange { start: Pfn(run.start.0 + done), count: run.count - done };
            done += match self.map_large(rest)? {
                0 => self.map_table(MapFrames::Run(rest))?,
                large => large,
            };
        }
        Ok(())
    }

    /// Maps large entries when the run and the address have the length and alignment; returns their pages, or 0.
    #[inline(always)]
    pub(super) fn map_large(&mut self, run: PageRange) -> Result<u32, MmError> {
        if run.count < B::LARGE_PAGES || self.entries == Entries::Small {
            return Ok(0);
        }
        let at = VirtAddr(self.addr + self.mapped as usize * B::PAGE_SIZE);
        if (at.0 >> B::PAGE_SHIFT | run.start.0 as usize) & (B::LARGE_PAGES as usize - 1) != 0 {
            return Ok(0);
        }
        let (memory, prot, cache) = (self.memory, self.prot, self.cache);
        // As many as there are; the rest of the run is for small ones.
        let run = PageRange { start: run.start, count: run.count & !(B::LARGE_PAGES - 1) };
        let mapped = self.family.step(&mut self.tables, |tables| {
            // SAFETY: the lock of the tables is held, and the range and the frames are this area's.
            unsafe { memory.backend.map(memory.backend.kernel_root(), at, run, prot, cache, tables) }
        })?;
        self.mapped += mapped;
        Ok(mapped)
    }

    /// Maps as many frames as the table of its first page has entries for, batch by batch, with the guard when it is
    /// still missing. Returns how many pages were mapped.
    #[inline(never)]
    pub(super) fn map_table(&mut self, frames: MapFrames<'_>) -> Result<u32, MmError> {
        let memory = self.memory;
        let at = self.addr + self.mapped as usize * B::PAGE_SIZE;
        let in_table = pages_left::<B>(at);
        let total = frames.count().min(in_table);
        let frames = frames.first(total);
        let guard = if self.guarded { None } else { Some(self.record) };
        // The first page of a table has its guard in the table before.
        if guard.is_some() && in_table == B::LARGE_PAGES {
            return self.map_first(at, frames);
        }
        let mut held = self.family.tables.lock();
        if !held.is_known(at) && !look_first(memory, &mut held, at) {
            drop(held);
            return self.map_first(at, frames);
        }
        let Some(Lowest { leaf, frame }) = held.lowest(memory, at) else {
            drop(held);
            return self.map_first(at, frames);
        };
        let (at, counts) = (VirtAddr(at), &mut Retired::of(memory, frame));
        // SAFETY: the lock is held, the table was found for `at`, the range and the frames are this area's.
        let mapped = unsafe {
            memory.backend.leaf_map(leaf, at, guard, frames, self.prot, self.cache, counts, &mut || held.pause())
        };
        drop(held);
        self.guarded |= mapped != 0;
        self.mapped += mapped;
        if mapped == total { Ok(total) } else { Err(MmError::AlreadyMapped) }
    }

    /// [`map_table`](Self::map_table) where a table is missing: writes the guard, or maps the first batch of the run.
    #[cold]
    #[inline(never)]
    pub(super) fn map_first(&mut self, at: usize, frames: MapFrames<'_>) -> Result<u32, MmError> {
        let (memory, record) = (self.memory, self.record);
        let root = memory.backend.kernel_root();
        if !self.guarded {
            let guard = VirtAddr(self.addr - B::PAGE_SIZE);
            self.family.step(&mut self.tables, |tables| {
                // SAFETY: the lock of the tables is held, and the guard's address is this area's.
                unsafe { memory.backend.set_guard(root, guard, record, tables) }
            })?;
            self.guarded = true;
            return Ok(0);
        }
        let (prot, cache) = (self.prot, self.cache);
        // Not a large entry, whatever the run is: that was decided before.
        let run = match frames.first(BATCH) {
            MapFrames::Run(run) => run,
            MapFrames::Each(frames) => PageRange { start: frames.first().copied().unwrap_or_default(), count: 1 },
        };
        let mapped = self.family.step(&mut self.tables, |tables| {
            // SAFETY: the lock of the tables is held, and the range and the frames are this area's.
            unsafe { memory.backend.map(root, VirtAddr(at), run, prot, cache, tables) }
        })?;
        self.mapped += mapped;
        Ok(mapped)
    }
}
