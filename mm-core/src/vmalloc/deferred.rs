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

/// So many areas, or so many pages, are enough to share a flush, and no more than a task should be kept from. (Linux's
/// `lazy_max_pages` is 32 MiB and more, which here may be all there is.)
const AREAS: usize = 32;
const PAGES: usize = 1024;

/// A list of hidden areas, through their records.
pub(crate) struct AreaList {
    first: u32,
    areas: usize,
    pages: usize,
}

impl AreaList {
    pub(crate) const EMPTY: AreaList = AreaList { first: NIL, areas: 0, pages: 0 };

    fn is_enough(&self) -> bool {
        self.areas >= AREAS || self.pages >= PAGES
    }
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
        let mut all = self.deferred.lock();
        self.push(&mut all, area);
        self.note_deferred(&all);
        drop(all);
        self.rouse_deferred();
        Ok(())
    }

    /// Wakes who waits for memory, to flush the list.
    fn rouse_deferred(&self) {
        if let Some(servants) = self.memory.servants() {
            (servants.rouse)(&self.memory);
        }
    }

    /// Has the next call for an area flush the list, when that is enough. Its lock is held.
    fn note_deferred(&self, all: &AreaList) {
        if all.is_enough() {
            self.memory.set_overdue();
        }
    }

    /// True after `init`. Every call asks here before it makes or frees an area: what interrupts put off is freed first when
    /// it is much, if that can be done here.
    #[inline(always)]
    pub(super) fn is_ready_for_areas(&self) -> bool {
        if !Self::PUTS_OFF {
            return self.memory.is_ready();
        }
        self.memory.is_at_rest() || self.flush_overdue()
    }

    /// Frees are never put off where they flush nothing and there is one CPU.
    const PUTS_OFF: bool = P::CPUS > 1 || !B::Areas::<P>::FREES_ANYWHERE;

    #[cold]
    #[inline(never)]
    fn flush_overdue(&self) -> bool {
        if !self.memory.is_ready() {
            return false;
        }
        if !self.memory.puts_frees_off() {
            self.flush_deferred();
        }
        true
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
        self.note_deferred(&all);
        drop(all);
        self.rouse_deferred();
    }

    /// Frees the areas whose frees were put off because they came from interrupts, under one flush; returns how many
    /// there were.
    ///
    /// [`drain`](Self::drain) does it too, every request of a task that finds too little memory or address space, and, as
    /// soon as 32 areas or 1024 pages are put off, the next `vmalloc`, `ioremap`, `vmap` or free of one in a task, before
    /// anything else. Until then they hold what they are made of. Who waits for memory is woken by such a free, and does it.
    ///
    /// Context: task. Cost: that of their frees, less all flushes but one.
    pub fn flush_deferred(&self) -> usize {
        if !self.memory.may_flush() {
            return 0;
        }
        let mut all = self.deferred.lock();
        let list = core::mem::replace(&mut *all, AreaList::EMPTY);
        if list.first != NIL {
            self.memory.rest();
        }
        drop(all);
        if list.first != NIL {
            self.areas.release(&self.memory, list.first);
        }
        self.areas.release_late(&self.memory);
        list.areas
    }

    /// How many areas wait in the list, and how many pages they have, for the scan and for reports: fewer than
    /// 32 and than 1024 when a task has made or freed an area and no interrupt freed one since.
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
    pub const AREAS: usize = AREAS;
    /// So many pages, or more by the last area, are flushed at once.
    pub const PAGES: usize = PAGES;

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
        if !self.mm.is_ready_for_areas() {
            return Err(FreeError::NotReady);
        }
        let area = self.mm.areas.withdraw(&self.mm.memory, addr, kind)?;
        self.mm.push(&mut self.list, area);
        if self.list.is_enough() {
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
