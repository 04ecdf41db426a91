//! Giving blocks of frames back, whole or in part.

use super::Memory;
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::bits::Word;
use crate::error::{AllocError, FreeError, PackedFree};
use crate::frame::{Frame, FrameKind, Head, Region, Single};
use crate::platform::{Platform, RawLock};
use crate::zone::ZoneGuard;

/// A live block of which a part is to go.
struct BlockToCut<'a, L: RawLock> {
    region: &'a Region,
    frame: &'a Frame,
    zone: ZoneGuard<'a, L>,
    /// Its pages beside those that were named.
    rest: usize,
}

impl<P: Platform, B: Backend> Memory<P, B> {
    /// Gives back the block at frame number `pfn` (which may be anything), which must be a live block of `kind` and,
    /// when told, of `pages` frames. Returns how many frames it had.
    ///
    /// # Errors
    /// Every [`FreeError`] that fits; nothing was changed.
    #[cfg_attr(feature = "small", inline(always))]
    #[cfg_attr(not(feature = "small"), inline)]
    pub fn free_block(&self, pfn: usize, kind: FrameKind, pages: Option<usize>) -> Result<usize, FreeError> {
        if cfg!(feature = "small") {
            // No block has no pages, nor as many as stand for that.
            let pages = pages.map_or(0, |pages| if pages == 0 { usize::MAX } else { pages });
            return self.free_run(pfn, kind, pages).result();
        }
        self.free_block_here(pfn, kind, pages)
    }

    /// [`free_block`](Self::free_block) by a call; 0 pages are any number.
    #[inline(never)]
    fn free_run(&self, pfn: usize, kind: FrameKind, pages: usize) -> PackedFree {
        PackedFree::new(self.free_block_here(pfn, kind, (pages != 0).then_some(pages)))
    }

    #[inline(always)]
    fn free_block_here(&self, pfn: usize, kind: FrameKind, pages: Option<usize>) -> Result<usize, FreeError> {
        let Some((region, frame)) = self.frames.find(pfn) else {
            return Err(self.foreign());
        };
        self.give(region, frame, pfn as u32, |head, refusal| {
            if !head.is(kind) {
                return Err(refusal());
            }
            let count = head.count() as usize;
            if pages.is_some_and(|pages| pages != count) {
                return Err(FreeError::WrongOrder);
            }
            // Where code is to be small, pages that others hold references on are told from others here, by an error that
            // no block has.
            if cfg!(feature = "small") && kind == FrameKind::Pages && head.class() != 0 {
                return Err(FreeError::WrongCache);
            }
            Ok(count)
        })
    }

    /// The live block of `kind` at `pfn`, with its zone locked, and how many pages it has beside `pages`, which are some.
    fn block_to_cut(&self, pfn: Pfn, kind: FrameKind, pages: usize) -> Option<BlockToCut<'_, P::Lock>> {
        let (region, frame) = self.frames.find(pfn.0 as usize)?;
        let zone = self.zones.zone(region.zone()).lock();
        let head = frame.head();
        let rest =
            (head.count() as usize).checked_sub(pages).filter(|rest| *rest != 0 && pages != 0 && head.is(kind))?;
        Some(BlockToCut { region, frame, zone, rest })
    }

    /// Shortens the live block of `kind` at `pfn` to `pages`; the tail is free again. Returns the block.
    ///
    /// Context: any. Cost: as freeing the tail.
    ///
    /// # Errors
    /// `BadPointer` when there is no such block, or it is not longer.
    pub fn trim_block(&self, pfn: Pfn, kind: FrameKind, pages: usize) -> Result<Pfn, AllocError> {
        let block = self.block_to_cut(pfn, kind, pages).ok_or(AllocError::BadPointer)?;
        block.frame.set_head(Head::new(kind, block.frame.head().class() as u8, pages as u32));
        let (behind, tail) = (pfn.0 as usize + pages, block.rest);
        if let Some(frame) = block.region.frame(behind) {
            frame.set_head(Head::new(FrameKind::Held, 0, tail as u32));
        }
        drop(block.zone);
        // As any block, for somebody may wait for it.
        let _ = self.free_block(behind, FrameKind::Held, Some(tail));
        Ok(pfn)
    }

    /// Cuts the first `pages` frames off the live block of `kind` at `pfn`; they are free again. Returns what is left, which
    /// keeps the link.
    ///
    /// Context: any. Cost: as freeing what is cut off.
    ///
    /// # Errors
    /// `BadPointer` when there is no such block, or it is not longer, or `pages` is 0.
    pub fn trim_front(&self, pfn: Pfn, kind: FrameKind, pages: usize) -> Result<Pfn, AllocError> {
        let first = pfn.0 as usize;
        let block = self.block_to_cut(pfn, kind, pages).ok_or(AllocError::BadPointer)?;
        let rest = block.region.frame(first + pages).ok_or(AllocError::BadPointer)?;
        rest.set_link(block.frame.link());
        rest.set_head(Head::new(kind, block.frame.head().class() as u8, block.rest as u32));
        block.frame.set_head(Head::new(FrameKind::Held, 0, pages as u32));
        drop(block.zone);
        // As any block, for somebody may wait for it.
        let _ = self.free_block(first, FrameKind::Held, Some(pages));
        Ok(Pfn((first + pages) as u32))
    }

    /// [`Zones::give`], which hands the block over if somebody waits for it. No lock is held.
    #[inline(always)]
    pub(crate) fn give<E>(
        &self,
        region: &Region,
        frame: &Frame,
        pfn: u32,
        admit: impl FnOnce(Head, &dyn Fn() -> FreeError) -> Result<usize, E>,
    ) -> Result<usize, E> {
        #[cfg(feature = "page-poison")]
        if self.poisons() {
            return self.give_poisoned(region, frame, pfn, admit);
        }
        self.zones.give(region, frame, pfn, admit, &self.waiting, |zone| self.hand_over(region.zone(), zone))
    }

    /// [`Zones::give_single`], which hands the frame over if somebody waits for it. No lock is held.
    #[inline(always)]
    pub(crate) fn give_single(&self, single: Single<'_>, head: Head) -> bool {
        if self.poisons() {
            return false;
        }
        let edge = |token, region: &Region, word| self.page_edge(token, region, word);
        self.zones.give_single(single, head, edge)
    }

    /// [`give`](Self::give) of a block that is found already, if its record is `head`: one of `pages` frames.
    #[inline(always)]
    pub(crate) fn give_known(&self, single: Single<'_>, head: Head, pages: usize) -> bool {
        if self.poisons() {
            return false;
        }
        let region = single.region();
        self.zones.give_known(single, head, pages, &self.waiting, |zone| self.hand_over(region.zone(), zone))
    }

    /// A frame of a word that is not the open one was given back, or somebody waits.
    #[inline(never)]
    fn page_edge(&self, mut token: <P::Lock as RawLock>::Token, region: &Region, word: *mut Word) {
        if !self.waiting.is_any() {
            // SAFETY: `give_single` said so.
            token = match unsafe { self.zones.settle(token, region, word) } {
                Ok(()) => return,
                Err(token) => token,
            };
        }
        self.page_told(token, region, word);
    }

    /// [`page_edge`](Self::page_edge), when the tree may have to be told or somebody served.
    #[inline(never)]
    fn page_told(&self, token: <P::Lock as RawLock>::Token, region: &Region, word: *mut Word) {
        // SAFETY: `give_single` said so.
        let zone = unsafe { self.zones.retell(token, region, word) };
        if self.waiting.is_any() {
            self.hand_over(region.zone(), zone);
        }
    }
}
