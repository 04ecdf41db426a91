//! References: others keep a block of pages, or the first page of one, beyond its owner's free.
//!
//! The count lies in the block's frame record. The owner's own reference is not in it: a block that nobody else holds
//! is freed by one comparison.

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::FreeError;
use crate::frame::{Frame, FrameKind, Head, Region};
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::Platform;

/// The most references beside the owner's.
const MOST: usize = u8::MAX as usize;

crate::error::errors! {
    /// Why a reference was not taken or not given back. Nothing was changed.
    RefError {
        /// The manager is not initialised.
        NotReady = "the memory manager is not initialised", 11;
        /// The page is free.
        Free = "the page is free", 2;
        /// A later page of a block that is no compound page (`Gfp::COMP`): references are on the first.
        Interior = "not the first page of its block", 22;
        /// No memory of this manager.
        Foreign = "not memory of this manager", 22;
        /// A reserved, boot or metadata page.
        Reserved = "reserved memory", 22;
        /// Memory of another call: kmalloc, a cache, vmalloc.
        WrongAllocator = "allocated by another call", 22;
        /// 255 references are out: one more could not be counted.
        TooMany = "too many references", 75;
        /// Nobody but the owner has the page.
        NotHeld = "no reference to give back", 22;
    }
}

impl From<FreeError> for RefError {
    fn from(error: FreeError) -> Self {
        match error {
            FreeError::NotReady => RefError::NotReady,
            FreeError::DoubleFree => RefError::Free,
            FreeError::Interior => RefError::Interior,
            FreeError::Foreign => RefError::Foreign,
            FreeError::Reserved => RefError::Reserved,
            _ => RefError::WrongAllocator,
        }
    }
}

/// What a change of the count under the zone's lock leads to.
enum Then {
    Nothing,
    /// The block is nobody's any more, and marked as in the manager's hand.
    Give {
        pfn: Pfn,
        pages: usize,
    },
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Takes a reference on a page, as Linux's `get_page`: it is not handed out again before
    /// [`put_page`](Self::put_page), even when its owner frees it meanwhile.
    ///
    /// Only a block's first page outlives the owner's free; the others go back at once. A block that was allocated with
    /// `Gfp::COMP` outlives it as a whole, and the reference may be on any of its pages. A page that is free is
    /// refused, so whoever only believes a page to be in use may try.
    ///
    /// ```
    /// use mm_core::{GFP_KERNEL, Manager, RefError};
    ///
    /// fn share(mm: impl Manager) {
    ///     let mm = mm.mm();
    ///     let Ok(page) = mm.alloc_page(GFP_KERNEL) else { return };
    ///     assert_eq!(mm.get_page(page), Ok(()));
    ///     assert_eq!(mm.free_pages_frame(page, 0), Ok(())); // the owner is done
    ///     assert_eq!(mm.page_count(page), 1); // and the page still there
    ///     assert_eq!(mm.put_page(page), Ok(()));
    ///     assert_eq!(mm.get_page(page), Err(RefError::Free));
    /// }
    /// ```
    ///
    /// Context: any. Cost: one zone lock and O(orders).
    ///
    /// # Errors
    /// Every [`RefError`] but `NotHeld`.
    #[doc(alias = "get_page_unless_zero")]
    #[doc(alias = "try_get_page")]
    pub fn get_page(&self, pfn: Pfn) -> Result<(), RefError> {
        self.use_references();
        self.change(pfn, |_, frame, head| {
            if head.class() >= MOST {
                return Err(RefError::TooMany);
            }
            frame.set_head(Head::new(head.kind(), head.class() as u8 + 1, head.count()));
            Ok(Then::Nothing)
        })
    }

    /// Gives a reference of [`get_page`](Self::get_page) back; with the last one of a block whose owner freed it, the
    /// memory goes back too.
    ///
    /// Context and cost: as [`free_pages`](Self::free_pages), plus O(orders).
    ///
    /// # Errors
    /// Every [`RefError`] but `TooMany`. The owner's own reference is no one else's to give back: `NotHeld`.
    pub fn put_page(&self, pfn: Pfn) -> Result<(), RefError> {
        self.change(pfn, |first, frame, head| {
            let kind = head.kind();
            match (kind, head.class()) {
                (_, 0) => return Err(RefError::NotHeld),
                (FrameKind::Deferred, 1) => {
                    frame.set_head(Head::new(FrameKind::Held, 0, head.count()));
                    return Ok(Then::Give { pfn: first, pages: head.count() as usize });
                }
                (_, refs) => frame.set_head(Head::new(kind, refs as u8 - 1, head.count())),
            }
            Ok(Then::Nothing)
        })
    }

    /// How many hold a page of [`alloc_pages`](Self::alloc_pages) or [`get_free_pages`](Self::get_free_pages), its
    /// owner included; 0 for what is free or of another kind.
    ///
    /// Context: any. Cost: O(orders). Out of date when it returns, unless the caller knows better.
    pub fn page_count(&self, pfn: Pfn) -> usize {
        let Some((region, _)) = self.memory.frames.find(pfn.0 as usize) else { return 0 };
        match referenced(region, pfn, B::MAX_ORDER) {
            Some((_, _, head)) => head.class() + usize::from(head.is(FrameKind::Pages)),
            None => 0,
        }
    }

    /// Runs `change` on the record that counts the references of `pfn`, which may be anything, under its zone's lock.
    fn change(
        &self,
        pfn: Pfn,
        change: impl FnOnce(Pfn, &Frame, Head) -> Result<Then, RefError>,
    ) -> Result<(), RefError> {
        let Some((region, frame)) = self.memory.frames.find(pfn.0 as usize) else {
            return Err(self.memory.foreign().into());
        };
        let zone = self.memory.zones.zone(region.zone()).lock();
        let then = match referenced(region, pfn, B::MAX_ORDER) {
            Some((first, frame, head)) => change(first, frame, head)?,
            None => {
                // SAFETY: the zone's lock is held, and there is no reference to its buddies.
                return Err(unsafe { region.refusal(frame.head(), pfn.0) }.into());
            }
        };
        drop(zone);
        if let Then::Give { pfn, pages } = then {
            let _ = self.memory.free_block(pfn.0 as usize, FrameKind::Held, Some(pages));
        }
        Ok(())
    }

    /// What the free of a block comes to when it is not simply the free of a block nobody else holds: a deferred free,
    /// or an error.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_referenced(&self, pfn: usize, pages: usize) -> Result<(), FreeError> {
        let Some((region, frame)) = self.memory.frames.find(pfn) else {
            return Err(self.memory.foreign());
        };
        let zone = self.memory.zones.zone(region.zone()).lock();
        let head = frame.head();
        if !head.is(FrameKind::Pages) {
            // SAFETY: the zone's lock is held, and there is no reference to its buddies.
            return Err(unsafe { region.refusal(head, pfn as u32) });
        }
        if head.count() as usize != pages {
            return Err(FreeError::WrongOrder);
        }
        let refs = head.class() as u8;
        let whole = refs == 0 || is_compound(frame);
        let (from, count) = if whole { (pfn, pages) } else { (pfn + 1, pages - 1) };
        if refs != 0 {
            frame.set_head(Head::new(FrameKind::Deferred, refs, if whole { pages as u32 } else { 1 }));
        }
        // In the manager's hand until it goes back the ordinary way, behind this lock.
        let give = count != 0 && (refs == 0 || !whole);
        if give && let Some(first) = region.frame(from) {
            first.set_head(Head::new(FrameKind::Held, 0, count as u32));
        }
        drop(zone);
        if give {
            let _ = self.memory.free_block(from, FrameKind::Held, Some(count));
        }
        Ok(())
    }
}

/// True when references on any frame of the block are on all of it.
pub(super) fn is_compound(frame: &Frame) -> bool {
    frame.link() & Gfp::COMP.bits() != 0
}

/// The record that counts the references of `pfn`, which lies in `region`: its own, or its compound page's. To be acted
/// upon, the zone's lock must be held.
///
/// A block is aligned to the power of two that holds it, so its head is one of few.
fn referenced(region: &Region, pfn: Pfn, max_order: usize) -> Option<(Pfn, &Frame, Head)> {
    for order in 0..=max_order {
        let first = pfn.0 >> order << order;
        let frame = region.frame(first as usize)?;
        let head = frame.head();
        if head.is(FrameKind::Tail) {
            continue;
        }
        let counts = head.is(FrameKind::Pages) || head.is(FrameKind::Deferred);
        let holds = first == pfn.0 || (pfn.0 - first < head.count() && is_compound(frame));
        return (counts && holds).then_some((Pfn(first), frame, head));
    }
    None
}
