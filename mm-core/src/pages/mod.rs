//! Whole pages: get_free_pages and its kin by address, by frame and of exact size, and the RAII form.

mod bulk;
mod exact;
mod frame;
mod owned;
mod reference;
mod split;

pub use owned::{Frames, Pages};
pub use reference::RefError;

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::bits::{order_for, rarely};
use crate::debug::ON_ALLOC;
use crate::error::{AllocError, FreeError, Packed};
use crate::fault::FaultClass;
use crate::frame::{FrameKind, Head};
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::memory::wipe;
use crate::platform::{Platform, RawLock};
use crate::wait::Block;
use crate::zone::{ZoneKind, ZoneState};
use core::panic::Location;
use core::ptr::NonNull;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Allocates `1 << order` contiguous pages, aligned to their size, as Linux's `__get_free_pages`.
    ///
    /// The memory always has a kernel address: `HIGHMEM` in the flags is ignored. It is not zeroed unless the flags
    /// hold `ZERO`.
    ///
    /// Context: any; a task when the flags hold `WAIT`. Cost: a few instructions for one page, O(levels) for more.
    ///
    /// # Errors
    /// `BadOrder` above the backend's largest order, `BadFlags`, `NoMemory`, `NoContig` (there is as much free memory,
    /// but no run of it), `NotReady`.
    #[inline]
    #[track_caller]
    pub fn get_free_pages(&self, flags: Gfp, order: usize) -> Result<NonNull<u8>, AllocError> {
        let caller = Location::caller();
        self.made_pages(self.get_free_pages_at(flags, order, caller), 1 << (order & 31), flags, caller)
    }

    #[inline(always)]
    fn get_free_pages_at(
        &self,
        flags: Gfp,
        order: usize,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        let flags = flags.union(ON_ALLOC);
        // One way for every request, where code is to be small.
        if cfg!(feature = "small") || order != 0 || flags.bits() & !Gfp::PLAIN.bits() != 0 || self.memory.poisons() {
            return self.pages_other(flags, order, caller).result();
        }
        if let Err(error) = self.memory.fault_point(FaultClass::Page) {
            self.memory.admit(flags, caller)?;
            return Err(error);
        }
        match self.memory.zones.take_single(Head::new(FrameKind::Pages, 0, 1), flags.bits()) {
            Ok((pfn, masked)) => Ok(self.memory.told(self.block_ptr(Pfn(pfn)), flags, masked, caller)),
            Err(token) => {
                rarely();
                self.page_next(token, flags, caller).result()
            }
        }
    }

    /// One page, when the open word has none. The zone for `Normal` is locked.
    #[inline(never)]
    fn page_next(&self, token: <P::Lock as RawLock>::Token, flags: Gfp, caller: &'static Location<'static>) -> Packed {
        // SAFETY: `take_single` locked this zone, and left its section to this function.
        let mut zone = unsafe { self.memory.zones.normal().resume(token) };
        let limit = zone.limit(ZoneKind::Normal);
        if let Some(pfn) = zone.take_next(limit, Head::new(FrameKind::Pages, 0, 1), flags.bits()) {
            let masked = zone.was_masked();
            drop(zone);
            return Packed::new(Ok(self.memory.told(self.block_ptr(Pfn(pfn)), flags, masked, caller)));
        }
        if let Some(pfn) = zone.take((1, 0), limit, Head::new(FrameKind::Pages, 0, 1), flags.bits()) {
            let masked = zone.was_masked();
            drop(zone);
            return Packed::new(Ok(self.memory.told(self.block_ptr(Pfn(pfn)), flags, masked, caller)));
        }
        drop(zone);
        self.pages_slow(flags, 1, caller)
    }

    /// Blocks, and pages by special flags.
    #[inline(never)]
    fn pages_other(&self, flags: Gfp, order: usize, caller: &'static Location<'static>) -> Packed {
        if order > B::MAX_ORDER {
            rarely();
            return Packed::new(Err(AllocError::BadOrder));
        }
        let take = |zone: &mut ZoneState, limit, head, link| zone.take_order(order, limit, head, link);
        self.block_by(flags, 1 << order, caller, take)
    }

    /// As many pages as a block can have, by any flags.
    #[inline(never)]
    fn block_of_pages(&self, flags: Gfp, pages: usize, caller: &'static Location<'static>) -> Packed {
        let take = |zone: &mut ZoneState, limit, head, link| zone.take((pages, order_for(pages)), limit, head, link);
        self.block_by(flags, pages, caller, take)
    }

    /// A block of the zone for `Normal`, as `take` takes it above the low mark, or by any means the flags allow.
    #[inline(always)]
    fn block_by(
        &self,
        flags: Gfp,
        pages: usize,
        caller: &'static Location<'static>,
        take: impl FnOnce(&mut ZoneState, usize, Head, u32) -> Option<u32>,
    ) -> Packed {
        if let Err(error) = self.memory.fault_point(FaultClass::Page) {
            return Packed::new(Err(self.memory.admit(flags, caller).err().unwrap_or(error)));
        }
        if !cfg!(feature = "small") && flags.bits() & !Gfp::PLAIN.bits() == 0 && !self.memory.poisons() {
            let mut zone = self.memory.zones.normal().lock();
            let limit = zone.limit(ZoneKind::Normal);
            let taken = take(&mut zone, limit, Head::new(FrameKind::Pages, 0, pages as u32), flags.bits());
            let masked = zone.was_masked();
            drop(zone);
            if let Some(pfn) = taken {
                return Packed::new(Ok(self.memory.told(self.block_ptr(Pfn(pfn)), flags, masked, caller)));
            }
        }
        self.pages_slow(flags, pages, caller)
    }

    /// A block, behind a fault point of the caller's, by any means the flags allow.
    #[inline(never)]
    fn pages_slow(&self, flags: Gfp, pages: usize, caller: &'static Location<'static>) -> Packed {
        let flags = match self.memory.admit(flags, caller) {
            Ok(flags) => flags.difference(Gfp::HIGHMEM),
            Err(error) => return Packed::new(Err(error)),
        };
        let block = Block { pages, flags, kind: FrameKind::Pages, link: flags.bits() };
        if Self::OBTAINS {
            let mut found = self.pages_once(pages, flags);
            if found.result().is_err()
                && let Some(again) = self.again()
            {
                found = (again.pages)(self, pages, flags, found);
            }
            match found.result() {
                // SAFETY: just taken, and as long.
                Ok(memory) if flags.contains(Gfp::ZERO) => unsafe { wipe(memory.as_ptr(), pages << B::PAGE_SHIFT) },
                Ok(_) => {}
                Err(error) => crate::trace::pages_failed(pages, flags, error),
            }
            return found;
        }
        let now = self.memory.take_block_now(block.pages, flags, block.kind, block.link);
        let taken = now.or_else(|error| self.take_block_slow(block, error, None));
        Packed::new(taken.map(|pfn| self.block_ptr(pfn)))
    }

    /// One page; [`get_free_pages`](Self::get_free_pages) of order 0.
    ///
    /// # Errors
    /// As `get_free_pages`.
    #[inline]
    #[track_caller]
    pub fn get_free_page(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.get_free_pages(flags, 0)
    }

    /// One page of zeroes.
    ///
    /// # Errors
    /// As `get_free_pages`.
    #[inline]
    #[track_caller]
    pub fn get_zeroed_page(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.get_free_pages(flags | Gfp::ZERO, 0)
    }

    /// Frees pages of [`get_free_pages`](Self::get_free_pages) of the same order. Null is fine.
    ///
    /// What others hold references on ([`get_page`](Self::get_page)) goes back with the last of them.
    ///
    /// Context: any. Cost: as `get_free_pages`.
    ///
    /// # Errors
    /// `DoubleFree`, `Interior` (a later page of a block), `WrongOrder`, `Misaligned`, `Foreign`, `Reserved`,
    /// `WrongAllocator`, `NotReady`; nothing was changed.
    #[inline]
    pub fn free_pages(&self, addr: *const u8, order: usize) -> Result<(), FreeError> {
        if !cfg!(feature = "small") && order == 0 {
            return self.freed_pages(self.free_page_block(addr.addr(), 1), addr, 1);
        }
        // An order no block can have matches none: neither count is a block's.
        let none = if cfg!(feature = "small") { usize::MAX } else { 0 };
        let pages = if order > B::MAX_ORDER { none } else { 1 << order };
        if cfg!(feature = "small") {
            return self.freed_pages(self.free_page_elsewhere(addr.addr(), pages), addr, pages);
        }
        self.freed_pages(self.free_page_other(addr.addr(), pages), addr, pages)
    }

    /// Frees one page.
    ///
    /// # Errors
    /// As [`free_pages`](Self::free_pages).
    #[inline]
    pub fn free_page(&self, addr: *const u8) -> Result<(), FreeError> {
        self.free_pages(addr, 0)
    }

    #[inline(always)]
    fn free_page_block(&self, addr: usize, pages: usize) -> Result<(), FreeError> {
        if pages == 1
            && let Some(single) = self.memory.frames.single_at(addr, B::PAGE_SHIFT)
            // One comparison: the kind, the pages, and that nobody holds a reference.
            && self.memory.give_single(single, Head::new(FrameKind::Pages, 0, 1))
        {
            return Ok(());
        }
        if pages == 1 { self.free_page_still(addr) } else { self.free_page_other(addr, pages) }
    }

    /// One page that is not at hand. (By itself, so that the common case need not have the number of its pages in a register.)
    #[cold]
    #[inline(never)]
    fn free_page_still(&self, addr: usize) -> Result<(), FreeError> {
        self.free_page_other(addr, 1)
    }

    /// Blocks, pages outside the largest region, null, and everything wrong.
    #[inline(never)]
    fn free_page_other(&self, addr: usize, pages: usize) -> Result<(), FreeError> {
        // A count that does not fit the record must not be cut down to one that does.
        if pages <= 1 << B::MAX_ORDER
            && let Some(single) = self.memory.frames.single_at(addr, B::PAGE_SHIFT)
            && self.memory.give_known(single, Head::new(FrameKind::Pages, 0, pages as u32), pages)
        {
            return Ok(());
        }
        self.free_page_elsewhere(addr, pages)
    }

    /// Pages outside the largest region, null, and everything wrong.
    #[inline(never)]
    fn free_page_elsewhere(&self, addr: usize, pages: usize) -> Result<(), FreeError> {
        if addr & (B::PAGE_SIZE - 1) != 0 || addr == 0 {
            return if addr == 0 { Ok(()) } else { Err(self.misaligned(addr)) };
        }
        match self.free_frames(self.memory.backend.direct_frame(addr), pages) {
            Err(FreeError::Foreign) if self.areas_hold(addr) => Err(FreeError::WrongAllocator),
            result => result,
        }
    }

    /// Frees the block that begins at frame number `pfn`, which may be anything, and has `pages` frames.
    #[inline(always)]
    fn free_frames(&self, pfn: usize, pages: usize) -> Result<(), FreeError> {
        if cfg!(feature = "small") {
            // The whole count is compared with the record's.
            return match self.memory.free_block(pfn, FrameKind::Pages, Some(pages)) {
                Err(FreeError::WrongCache) => self.free_any_referenced(pfn, pages),
                result => result.map(drop),
            };
        }
        // No block has 0 pages. A count that does not fit the record must not be cut down to one that does.
        let pages = if pages <= 1 << B::MAX_ORDER { pages } else { 0 };
        let Some((region, frame)) = self.memory.frames.find(pfn) else {
            return Err(self.memory.foreign());
        };
        // One comparison: the kind, the pages, and that nobody holds a reference.
        let wanted = Head::new(FrameKind::Pages, 0, pages as u32);
        let admit = |head, _: &dyn Fn() -> FreeError| if head == wanted && pages != 0 { Ok(pages) } else { Err(()) };
        let given = self.memory.give(region, frame, pfn as u32, admit);
        given.map(drop).or_else(|()| self.free_referenced(pfn, pages))
    }

    #[cold]
    fn misaligned(&self, addr: usize) -> FreeError {
        match self.memory.frames.find(self.memory.backend.direct_frame(addr)) {
            Some(_) => FreeError::Misaligned,
            None => self.memory.foreign(),
        }
    }
}
