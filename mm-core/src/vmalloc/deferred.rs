//! Frees that are put off: those of interrupts, and batches that share a flush.
//!
//! The list goes through the areas' own records, so putting an area on it cannot fail and none can be lost.

use super::area::AreaKind;
use super::{AreaFamily, Withdrawn};
use crate::backend::Backend;
use crate::error::FreeError;
use crate::manager::Mm;
use crate::meta::NIL;
use crate::platform::Platform;

/// A list of hidden areas, through their records.
pub(crate) struct AreaList {
    first: u32,
    areas: usize,
    pages: usize,
}

impl AreaList {
    pub(crate) const EMPTY: AreaList = AreaList { first: NIL, areas: 0, pages: 0 };
}

impl<P: Platform, B: Backend> Mm<P, B> {
    fn push(&self, list: &mut AreaList, area: Withdrawn) {
        // SAFETY: a withdrawn area's record is its freer's.
        unsafe { (&raw mut (*self.memory.area(area.record)).next).write(list.first) };
        *list = AreaList { first: area.record, areas: list.areas + 1, pages: list.pages + area.pages as usize };
    }

    /// Hides an area, and leaves the rest of its free to [`flush_deferred`](Self::flush_deferred).
    #[cold]
    #[inline(never)]
    pub(super) fn defer_free(&self, addr: usize, kind: AreaKind) -> Result<(), FreeError> {
        let area = self.areas.withdraw(&self.memory, addr, kind)?;
        self.use_reclaim();
        self.push(&mut self.deferred.lock(), area);
        if let Some(servants) = self.memory.servants() {
            (servants.rouse)(&self.memory);
        }
        Ok(())
    }

    /// Leaves hidden areas, at most a batch's, to [`flush_deferred`](Self::flush_deferred).
    #[cold]
    fn defer_all(&self, list: AreaList) {
        let next = |record: u32| {
            // SAFETY: a withdrawn area's record is its freer's, who handed the list over.
            unsafe { &raw mut (*self.memory.area(record)).next }
        };
        self.use_reclaim();
        let mut last = list.first;
        // SAFETY: as above.
        while unsafe { next(last).read() } != NIL {
            // SAFETY: as above.
            last = unsafe { next(last).read() };
        }
        let mut all = self.deferred.lock();
        // SAFETY: as above.
        unsafe { next(last).write(all.first) };
        *all = AreaList { first: list.first, areas: all.areas + list.areas, pages: all.pages + list.pages };
    }

    /// Frees the areas whose frees were put off because they came from interrupts, under one flush; returns how many
    /// there were.
    ///
    /// [`drain`](Self::drain) does it too, and every call for an area that finds too little memory or address space.
    /// Until then they hold what they are made of. Who waits for memory is woken by such a free, and does it.
    ///
    /// Context: task. Cost: that of their frees, less all flushes but one.
    pub fn flush_deferred(&self) -> usize {
        if !self.memory.may_flush() {
            return 0;
        }
        let list = core::mem::replace(&mut *self.deferred.lock(), AreaList::EMPTY);
        if list.first != NIL {
            self.areas.release(&self.memory, list.first);
        }
        self.areas.release_late(&self.memory);
        list.areas
    }

    /// How many areas wait in the list, and how many pages they have, for the scan and for reports.
    pub fn deferred_areas(&self) -> (usize, usize) {
        let list = self.deferred.lock();
        (list.areas, list.pages)
    }

    /// The records that wait, for the scan.
    pub(crate) fn first_deferred(&self) -> u32 {
        self.deferred.lock().first
    }

    /// Begins a batch of frees that share a flush.
    pub fn free_batch(&self) -> FreeBatch<'_, P, B> {
        FreeBatch { mm: self, list: AreaList::EMPTY }
    }
}

/// Frees of areas that share one flush of the TLBs.
///
/// An area that was freed by it is hidden at once, and what it is made of comes back when the batch is flushed: by
/// [`flush`](Self::flush), by dropping it, or by itself as soon as it holds [`AREAS`](Self::AREAS) areas or
/// [`PAGES`](Self::PAGES) pages. A batch that is forgotten leaks, which `Mm::check` tells, and reuses nothing.
#[must_use = "what it holds comes back when it is flushed"]
pub struct FreeBatch<'a, P: Platform, B: Backend> {
    mm: &'a Mm<P, B>,
    list: AreaList,
}

impl<P: Platform, B: Backend> FreeBatch<'_, P, B> {
    /// The most areas it holds back.
    pub const AREAS: usize = 32;
    /// So many pages, or more by the last area, are flushed at once.
    pub const PAGES: usize = 1024;

    /// Frees an area of `vmalloc` as soon as the batch is flushed. Null is fine.
    ///
    /// # Errors
    /// As [`Mm::vfree`].
    pub fn vfree(&mut self, addr: *const u8) -> Result<(), FreeError> {
        self.add(addr.addr(), AreaKind::Alloc)
    }

    /// As [`vfree`](Self::vfree), for [`Mm::vunmap`].
    ///
    /// # Errors
    /// As [`Mm::vunmap`].
    pub fn vunmap(&mut self, addr: *const u8) -> Result<(), FreeError> {
        self.mm.refuse_ram(addr.addr())?;
        self.add(addr.addr(), AreaKind::Map)
    }

    fn add(&mut self, addr: usize, kind: AreaKind) -> Result<(), FreeError> {
        if addr == 0 {
            return Ok(());
        }
        if !self.mm.memory.is_ready() {
            return Err(FreeError::NotReady);
        }
        let area = self.mm.areas.withdraw(&self.mm.memory, addr, kind)?;
        self.mm.push(&mut self.list, area);
        if self.list.areas >= Self::AREAS || self.list.pages >= Self::PAGES {
            self.release();
        }
        Ok(())
    }

    /// How many areas and pages it holds back.
    pub fn held(&self) -> (usize, usize) {
        (self.list.areas, self.list.pages)
    }

    /// Flushes, and gives everything back.
    ///
    /// Context: task. Cost: one flush, and what the frees cost without theirs.
    pub fn flush(self) {}

    fn release(&mut self) {
        let list = core::mem::replace(&mut self.list, AreaList::EMPTY);
        if list.first == NIL {
            return;
        }
        if self.mm.memory.may_flush() {
            self.mm.areas.release(&self.mm.memory, list.first);
        } else {
            self.mm.defer_all(list);
        }
    }
}

impl<P: Platform, B: Backend> Drop for FreeBatch<'_, P, B> {
    fn drop(&mut self) {
        self.release();
    }
}
