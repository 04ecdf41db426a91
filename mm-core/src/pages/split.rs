//! Splitting a block into single pages.

use super::reference::is_compound;
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::{FreeError, MmError};
use crate::frame::{FrameKind, Head};
use crate::manager::Mm;
use crate::platform::Platform;
use crate::zone::BATCH;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Makes a block of `1 << order` pages as many blocks of one page, each freed by itself, as Linux's `split_page`.
    ///
    /// References on the block stay on its first page. Nothing is allocated.
    ///
    /// ```
    /// use mm_core::{GFP_KERNEL, Manager, MmError, Pfn};
    ///
    /// fn three_pages_that_are_neighbours(mm: impl Manager) -> Result<Pfn, MmError> {
    ///     let first = mm.mm().alloc_pages(GFP_KERNEL, 2)?;
    ///     mm.mm().split_page(first, 2)?;
    ///     mm.mm().free_pages_frame(Pfn(first.0 + 3), 0)?;
    ///     Ok(first)
    /// }
    /// ```
    ///
    /// Context: any. Cost: a few instructions a page, 32 pages in one lock hold.
    ///
    /// # Errors
    /// `Free` with what [`free_pages_frame`](Self::free_pages_frame) would say of the block; `Busy` with the number of
    /// references on a compound page (`Gfp::COMP`), which are on all of it. Nothing was changed.
    pub fn split_page(&self, pfn: Pfn, order: usize) -> Result<(), MmError> {
        // An order no block can have matches none: the count 0 is no block's.
        let pages = if order > B::MAX_ORDER { 0 } else { 1 << order };
        self.split(pfn, pages)?;
        #[cfg(feature = "page-owner")]
        self.own_split(pfn, pages);
        Ok(())
    }

    pub(super) fn split(&self, pfn: Pfn, pages: u32) -> Result<(), MmError> {
        let Some((region, frame)) = self.memory.frames.find(pfn.0 as usize) else {
            return Err(self.memory.foreign().into());
        };
        let mut left = pages;
        loop {
            let _zone = self.memory.zones.zone(region.zone()).lock();
            let head = frame.head();
            if !head.is(FrameKind::Pages) {
                // SAFETY: the zone's lock is held, and there is no reference to its buddies.
                return Err(unsafe { region.refusal(head, pfn.0) }.into());
            }
            if head.count() != left {
                return Err(FreeError::WrongOrder.into());
            }
            if is_compound(frame) && head.class() != 0 {
                return Err(MmError::Busy(head.class()));
            }
            // From the end: what is left is a block all the time, only a shorter one.
            let keep = left.saturating_sub(BATCH as u32).max(1);
            for at in pfn.0 + keep..pfn.0 + left {
                if let Some(page) = region.frame(at as usize) {
                    page.set_link(0);
                    page.set_head(Head::new(FrameKind::Pages, 0, 1));
                }
            }
            left = keep;
            frame.set_head(Head::new(FrameKind::Pages, head.class() as u8, left));
            if left == 1 {
                frame.set_link(0);
                return Ok(());
            }
        }
    }
}
