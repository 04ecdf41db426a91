//! Many single pages at a time.

use crate::addr::{PageRange, Pfn};
use crate::backend::Backend;
use crate::error::{AllocError, FreeError};
use crate::fault::FaultClass;
use crate::frame::{FrameKind, Head};
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::Platform;
use crate::wait::Block;
use crate::zone::BATCH;
use core::panic::Location;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Fills the empty entries of `pages` with single frames, first to last, as Linux's `alloc_pages_bulk_array`, and
    /// returns how many entries from the start on are filled; entries that were filled before count.
    ///
    /// It stops early when memory is short: what came so far is the caller's. Each frame is a block of its own and may
    /// be HIGHMEM, as [`alloc_pages`](Self::alloc_pages) has it.
    ///
    /// ```
    /// use mm_core::{GFP_KERNEL, Manager, MmError};
    ///
    /// fn a_ring(mm: impl Manager) -> Result<(), MmError> {
    ///     let mut ring = [None; 64];
    ///     let filled = mm.mm().alloc_pages_bulk(GFP_KERNEL, &mut ring)?;
    ///     assert_eq!(ring.iter().flatten().count(), filled);
    ///     mm.mm().free_pages_bulk(&mut ring)?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// Context: any; a task when the flags hold `WAIT`. Cost: a few instructions a page, 32 pages in one lock hold; the
    /// first page that is not at hand takes the path of `alloc_pages`.
    ///
    /// # Errors
    /// `BadFlags`, `NotReady`. Memory that is short is no error.
    #[track_caller]
    #[doc(alias = "alloc_pages_bulk_array")]
    pub fn alloc_pages_bulk(&self, flags: Gfp, pages: &mut [Option<Pfn>]) -> Result<usize, AllocError> {
        let caller = Location::caller();
        let flags = self.memory.admit(flags, caller)?;
        if !self.memory.is_ready() {
            return Err(AllocError::NotReady);
        }
        let mut filled = 0;
        for batch in pages.chunks_mut(BATCH) {
            while batch.contains(&None) {
                if !self.fill_batch(flags, batch, caller) {
                    return Ok(filled + batch.iter().take_while(|entry| entry.is_some()).count());
                }
            }
            filled += batch.len();
        }
        Ok(filled)
    }

    /// Fills some empty entries, at least one; false when there is no memory.
    fn fill_batch(&self, flags: Gfp, batch: &mut [Option<Pfn>], caller: &'static Location<'static>) -> bool {
        if self.memory.fault_point(FaultClass::Page).is_err() {
            return false;
        }
        let mark = (Head::new(FrameKind::Pages, 0, 1), flags.bits());
        let mut fresh = [Pfn(0); BATCH];
        let most = batch.iter().filter(|entry| entry.is_none()).count().min(BATCH);
        // Poisoned ones come one by one.
        let most = if self.memory.poisons() { 0 } else { most };
        let mut found = self.memory.zones.take_singles(&self.memory.frames, flags, mark, &mut fresh[..most]);
        if found == 0 {
            // Nothing at hand: the way of a single page may find some, or wait.
            let block = Block { pages: 1, flags, kind: FrameKind::Pages, link: flags.bits() };
            let now = self.memory.take_block_now(1, flags, block.kind, block.link);
            match now.or_else(|error| self.take_block_slow(block, error, None)) {
                Ok(pfn) => (fresh[0], found) = (pfn, 1),
                Err(_) => return false,
            }
        } else if flags.contains(Gfp::ZERO) {
            fresh[..found].iter().for_each(|&start| self.memory.zero(PageRange { start, count: 1 }));
        }
        for (entry, pfn) in batch.iter_mut().filter(|entry| entry.is_none()).zip(&fresh[..found]) {
            *entry = self.made_frames(Ok(*pfn), 1, flags, caller).ok();
        }
        true
    }

    /// Frees single pages, first to last, and empties their entries; empty ones are passed over. As Linux's
    /// `release_pages`, but with each free checked.
    ///
    /// Context: any. Cost: a few instructions a page, up to 32 in one lock hold.
    ///
    /// # Errors
    /// What [`free_pages_frame`](Self::free_pages_frame) says of the first page that is refused: its entry and all
    /// behind it are as before, all before it are empty and freed.
    #[doc(alias = "release_pages")]
    pub fn free_pages_bulk(&self, pages: &mut [Option<Pfn>]) -> Result<(), FreeError> {
        let single = Head::new(FrameKind::Pages, 0, 1);
        for batch in pages.chunks_mut(BATCH) {
            while let Some(first) = batch.iter().flatten().next().copied() {
                let Some((region, _)) = self.memory.frames.find(first.0 as usize) else {
                    return Err(self.memory.foreign());
                };
                let most = if self.memory.poisons() { 0 } else { BATCH };
                let each = batch.iter().flatten().take(most).map_while(|pfn| {
                    let (region, frame) = self.memory.frames.find(pfn.0 as usize)?;
                    Some((region, frame, pfn.0))
                });
                let given = self.memory.zones.give_each(region.zone(), single, each, &self.memory.waiting, |zone| {
                    self.memory.hand_over(region.zone(), zone)
                });
                if given == 0 {
                    // References, or an error.
                    self.free_pages_frame(first, 0)?;
                }
                // The one that was freed by itself was told of.
                let told = batch.iter().flatten().take(given);
                told.for_each(|&pfn| _ = self.freed_frames(Ok(()), pfn, 1));
                batch.iter_mut().filter(|entry| entry.is_some()).take(given.max(1)).for_each(|entry| *entry = None);
            }
        }
        Ok(())
    }
}
