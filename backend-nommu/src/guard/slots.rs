//! Which area has which region.

use super::{Allows, RegionGuard, Slot};
use mm_core::NIL;
use mm_core::vmalloc::Area;

/// The part of an area that a region covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Covers {
    /// The page before its first.
    Before,
    /// The page behind its last.
    After,
    /// Its pages.
    Whole,
}

impl Covers {
    /// Where that is, and how long.
    pub(crate) fn of(self, area: &Area, page_size: usize) -> (usize, usize) {
        let bytes = area.pages as usize * page_size;
        match self {
            Covers::Before => (area.addr - page_size, page_size),
            Covers::After => (area.addr + bytes, page_size),
            Covers::Whole => (area.addr, bytes),
        }
    }
}

/// The slots of a guard, under the family's lock.
pub(crate) struct Regions<G: RegionGuard> {
    slots: G::Slots,
    /// How many of them are kept for areas: most systems have areas to free and no guards to look for.
    kept: usize,
}

impl<G: RegionGuard> Regions<G> {
    pub(crate) const NEW: Self = Regions { slots: G::FREE, kept: 0 };

    /// Whether any area has one.
    #[inline(always)]
    pub(crate) fn is_any(&self) -> bool {
        self.kept != 0
    }

    fn usable(&mut self, guard: &G) -> &mut [Slot] {
        let slots = self.slots.as_mut();
        let most = guard.slots().min(slots.len());
        &mut slots[..most]
    }

    /// Keeps a slot for each of the parts of `record`'s area, all or none; `set` is still to come. False when there are
    /// too few.
    pub(crate) fn reserve(&mut self, guard: &G, record: u32, parts: &[(Covers, Allows)]) -> bool {
        let slots = self.usable(guard);
        if slots.iter().filter(|slot| slot.record == NIL).count() < parts.len() {
            return false;
        }
        for (slot, &(covers, allows)) in slots.iter_mut().filter(|slot| slot.record == NIL).zip(parts) {
            *slot = Slot { record, covers, allows };
        }
        self.kept += parts.len();
        true
    }

    /// Whether `record`'s area has a slot for that part of it; its number.
    pub(crate) fn find(&mut self, guard: &G, record: u32, covers: Covers) -> Option<usize> {
        self.usable(guard).iter().position(|slot| slot.record == record && slot.covers == covers)
    }

    /// Whether the area has any.
    pub(crate) fn has(&mut self, guard: &G, record: u32) -> bool {
        self.usable(guard).iter().any(|slot| slot.record == record)
    }

    /// Sets what was reserved for the area.
    ///
    /// # Safety
    /// What it covers is the area's, and nobody uses it otherwise than it allows.
    pub(crate) unsafe fn set(&mut self, guard: &G, record: u32, area: &Area, page_size: usize) {
        for (index, slot) in self.usable(guard).iter().enumerate().filter(|(_, slot)| slot.record == record) {
            let (start, bytes) = slot.covers.of(area, page_size);
            // SAFETY: by the caller's word; the slot is the family's, and nobody else's since it was reserved.
            unsafe { guard.set(index, start, bytes, slot.allows) };
        }
    }

    /// What a slot allows from now on; [`set`](Self::set) is still to come.
    pub(crate) fn allow(&mut self, slot: usize, allows: Allows) {
        if let Some(slot) = self.slots.as_mut().get_mut(slot) {
            slot.allows = allows;
        }
    }

    /// Gives the slots of the area back that cover such a part, or all; those that were set are cleared when `clear`
    /// says so.
    ///
    /// # Safety
    /// None was set, or `clear` is `Clear::Set` and the guard can clear.
    pub(crate) unsafe fn release(&mut self, guard: &G, record: u32, covers: Option<Covers>, clear: Clear) {
        let mut released = 0;
        for (index, slot) in self.usable(guard).iter_mut().enumerate() {
            if slot.record == record && covers.is_none_or(|covers| slot.covers == covers) {
                if clear == Clear::Set {
                    // SAFETY: by the caller's word.
                    unsafe { guard.clear(index) };
                }
                *slot = Slot::FREE;
                released += 1;
            }
        }
        self.kept -= released;
    }

    /// Runs `store` with the region of a slot out of force, and sets it again.
    ///
    /// # Safety
    /// As [`set`](Self::set), and the guard can clear.
    pub(crate) unsafe fn lifted(&mut self, guard: &G, slot: usize, range: (usize, usize), store: impl FnOnce()) {
        let Some(&Slot { allows, .. }) = self.slots.as_ref().get(slot) else { return store() };
        // SAFETY: by the caller's word.
        unsafe { guard.clear(slot) };
        store();
        // SAFETY: as above; it was so before.
        unsafe { guard.set(slot, range.0, range.1, allows) };
    }
}

/// Whether slots that are given back were set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clear {
    /// Only reserved.
    Reserved,
    /// Set.
    Set,
}
