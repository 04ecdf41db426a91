//! Areas of single frames, as where no larger blocks are left: taken, mapped, unmapped and given back in batches.

use super::Lowest;
use super::build::Build;
use super::lowest::Tabled;
use super::teardown::Teardown;
use crate::addr::{PageRange, Pfn, VirtAddr};
use crate::backend::{MapFrames, PageTable, Walk};
use crate::error::{AllocError, MmError};
use crate::fault::FaultClass;
use crate::frame::{FrameKind, Head};
use crate::gfp::Gfp;
use crate::lock::Guard;
use crate::platform::Platform;
use crate::vmalloc::unflushed::Chain;
use core::mem::MaybeUninit;

/// Frames taken before they are mapped: several batches of entries, so that what each call costs is shared by more.
const IN_HAND: usize = 4 * super::BATCH as usize;

impl<P: Platform, B: PageTable> Build<'_, P, B> {
    /// Maps single frames as long as there are any at hand, a batch of entries at a time; true when the area has all.
    #[cold]
    #[inline(never)]
    pub(super) fn fill_singles(&mut self, flags: Gfp) -> Result<bool, MmError> {
        let (memory, mark) = (self.memory, (Head::new(FrameKind::Mapped, 0, 1), self.record));
        let mut frames = [const { MaybeUninit::<Pfn>::uninit() }; IN_HAND];
        // Of a small area not all of them are used.
        let frames = &mut frames[..((self.pages - self.mapped) as usize).min(IN_HAND)];
        frames.iter_mut().for_each(|frame| *frame = MaybeUninit::new(Pfn(0)));
        // SAFETY: all of these were just filled.
        let frames = unsafe { &mut *(core::ptr::from_mut(frames) as *mut [Pfn]) };
        loop {
            let want = ((self.pages - self.mapped) as usize).min(frames.len());
            let mut taken: Result<(), AllocError> = Ok(());
            // Each frame is a step that can fail.
            let steps = (0..want).take_while(|_| {
                taken = memory.fault_point(FaultClass::Page);
                taken.is_ok()
            });
            let room = &mut frames[..steps.count()];
            let held = memory.zones.take_singles(&memory.frames, flags, mark, room);
            let frames = &frames[..held];
            if flags.contains(Gfp::ZERO) {
                frames.iter().for_each(|&start| memory.zero(PageRange { start, count: 1 }));
            }
            let before = self.mapped;
            let mut mapped = taken.map_err(MmError::from);
            while mapped.is_ok() && ((self.mapped - before) as usize) < held {
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
            if self.mapped == self.pages || held < want {
                return Ok(self.mapped == self.pages);
            }
        }
    }
}

impl<P: Platform, B: PageTable> Teardown<'_, P, B> {
    /// Unmaps single frames from the next page on, of `left` pages in this table, with the guard when it is still there. What
    /// would empty the table is left to the way that unlinks it. True when there were any.
    #[inline(always)]
    pub(super) fn unmap_singles(
        &mut self,
        held: &mut Guard<'_, P::Lock, Tabled<B>>,
        Lowest { leaf, frame: table }: Lowest<'_, B>,
        left: u32,
    ) -> bool {
        let (memory, at, single) = (self.memory, VirtAddr(self.at), Head::new(FrameKind::Mapped, 0, 1));
        // SAFETY: the lock is held, the table was found for this page.
        let Walk::Mapped(first) = (unsafe { memory.backend.leaf_walk(leaf, at) }) else { return false };
        let Some((region, frame)) = memory.frames.find(first.pfn.0 as usize) else { return false };
        if frame.head() != single {
            return false;
        }
        // Counted to the end, as the guard is: so the table stays while the lock is open.
        let most = if self.guards == 0 { left - 1 } else { left };
        let (records, mut chain) = (region.records(), core::mem::replace(&mut self.blocks, Chain::new()));
        let each = |pfn: Pfn| {
            let Some(frame) = records.frame(pfn.0).filter(|frame| frame.head() == single) else { return false };
            chain.push_frame(frame, pfn.0, 1);
            true
        };
        // SAFETY: the lock is held, the table was found for these pages, which are this area's; what is cleared waits for a
        // flush.
        let singles = unsafe { memory.backend.leaf_take(leaf, at, most, each, &mut || held.pause()) };
        self.blocks = chain;
        if singles == 0 {
            return false;
        }
        self.at += (singles as usize) << B::PAGE_SHIFT;
        let guard = VirtAddr(at.0 - B::PAGE_SIZE);
        let keeps = table.is_none_or(|table| table.head().count() > singles + 1);
        let mut cleared = singles;
        if self.guards != 0 && keeps {
            self.guards = 0;
            cleared += 1;
            // SAFETY: as above.
            unsafe { memory.backend.leaf_clear(leaf, guard, 1) };
        }
        if let Some(table) = table {
            table.set_head(table.head().less(cleared));
        }
        if self.guards != 0 {
            held.pause();
            self.clear_guard(held, guard);
        }
        true
    }
}
