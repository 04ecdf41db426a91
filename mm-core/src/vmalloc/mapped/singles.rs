//! Areas of single frames, as where no larger blocks are left: taken, mapped, unmapped and given back in batches.

use super::build::Build;
use super::teardown::Teardown;
use super::{BATCH, Lowest};
use crate::addr::{PageRange, Pfn, VirtAddr};
use crate::backend::{MapFrames, PageTable, Walk};
use crate::error::{AllocError, MmError};
use crate::fault::FaultClass;
use crate::frame::{FrameKind, Head, Records};
use crate::gfp::Gfp;
use crate::platform::Platform;
use crate::vmalloc::unflushed::SINGLES;

impl<P: Platform, B: PageTable> Build<'_, P, B> {
    /// Maps single frames as long as there are any at hand, a batch of entries at a time; true when the area has all.
    #[cold]
    #[inline(never)]
    pub(super) fn fill_singles(&mut self, flags: Gfp) -> Result<bool, MmError> {
        let (memory, mark) = (self.memory, (Head::new(FrameKind::Mapped, 0, 1), self.record));
        let mut frames: heapless::Vec<Pfn, { BATCH as usize }> = heapless::Vec::new();
        loop {
            let want = ((self.pages - self.mapped) as usize).min(frames.capacity());
            let mut taken: Result<(), AllocError> = Ok(());
            while taken.is_ok() && frames.len() < want {
                let most = (want - frames.len()).min(SINGLES);
                // Each frame is a step that can fail.
                let steps = (0..most).take_while(|_| {
                    taken = memory.fault_point(FaultClass::Page);
                    taken.is_ok()
                });
                let found = memory.zones.take_each(&memory.frames, flags, mark, steps.count(), |pfn| {
                    let _ = frames.push(Pfn(pfn));
                });
                if found == 0 {
                    break;
                }
            }
            if flags.contains(Gfp::ZERO) {
                frames.iter().for_each(|&start| memory.zero(PageRange { start, count: 1 }));
            }
            let before = self.mapped;
            let mut mapped = taken.map_err(MmError::from);
            while mapped.is_ok() && ((self.mapped - before) as usize) < frames.len() {
                let done = (self.mapped - before) as usize;
                mapped = self.map_table(MapFrames::Each(&frames[done..])).map(|_| ());
            }
            if let Err(error) = mapped {
                // What is not mapped the undo would not find.
                for pfn in &frames[(self.mapped - before) as usize..] {
                    let _ = memory.free_block(pfn.0 as usize, FrameKind::Mapped, Some(1));
                }
                return Err(error);
            }
            if self.mapped == self.pages || frames.len() < want {
                return Ok(self.mapped == self.pages);
            }
            frames.clear();
        }
    }
}

impl<P: Platform, B: PageTable> Teardown<'_, P, B> {
    /// True when the next page is a frame of its own.
    #[inline(always)]
    pub(super) fn is_single(&self, leaf: B::Leaf) -> bool {
        // SAFETY: the lock is held, the table was found for this page.
        match unsafe { self.memory.backend.leaf_walk(leaf, VirtAddr(self.at)) } {
            Walk::Mapped(mapping) => {
                self.memory.frames.frame(mapping.pfn).is_some_and(|frame| frame.head().is_run(FrameKind::Mapped, 1))
            }
            _ => false,
        }
    }

    /// Unmaps a batch of single frames, of `left` pages in this table, with the guard when it is still there, but for the
    /// table's last entry. True when there may be more.
    #[inline(always)]
    pub(super) fn unmap_singles(&mut self, Lowest { leaf, frame: table }: Lowest<'_, B>, left: u32) -> bool {
        let (memory, at) = (self.memory, VirtAddr(self.at));
        let others = table.map_or(u32::MAX, |table| table.head().count().saturating_sub(1 + self.guards));
        let most = left.min(others).min(SINGLES as u32);
        let mut hot: Option<Records<'_>> = None;
        // SAFETY: the lock is held, the table was found for these pages.
        let singles = unsafe {
            memory.backend.leaf_frames(leaf, at, most, |pfn| {
                let frame = match hot.and_then(|records| records.frame(pfn.0)) {
                    Some(frame) => frame,
                    None => {
                        let Some((region, frame)) = memory.frames.find(pfn.0 as usize) else { return false };
                        hot = Some(region.records());
                        frame
                    }
                };
                let single = frame.head().is_run(FrameKind::Mapped, 1);
                if single {
                    self.blocks.push_frame(frame, pfn.0, 1);
                }
                single
            })
        };
        if singles == 0 {
            return false;
        }
        let guards = core::mem::take(&mut self.guards);
        let first = VirtAddr(at.0 - ((guards as usize) << B::PAGE_SHIFT));
        // SAFETY: as above; what is cleared waits for a flush.
        unsafe { memory.backend.leaf_clear(leaf, first, singles + guards) };
        if let Some(table) = table {
            table.set_head(table.head().less(singles + guards));
        }
        self.at += (singles as usize) << B::PAGE_SHIFT;
        singles == SINGLES as u32
    }
}
