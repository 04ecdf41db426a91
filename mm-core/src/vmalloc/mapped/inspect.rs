//! Looking at areas: for fault reports, listings and the scan.

use super::layout::UNIT_SHIFT;
use super::lowest::Tabled;
use super::{BATCH, Mapped};
use crate::addr::VirtAddr;
use crate::backend::{PageTable, Walk};
use crate::frame::FrameKind;
use crate::lock::{Guard, Locked};
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use crate::smp::EVERYTHING;
use crate::vmalloc::AreaTally;
use crate::vmalloc::area::{AreaHit, AreaInfo, AreaKind, Place};
use crate::vmalloc::space::in_steps;

impl<P: Platform, B: PageTable> Mapped<P, B> {
    fn walk(&self, memory: &Memory<P, B>, addr: usize) -> Walk {
        memory.backend.walk_kernel(VirtAddr(addr))
    }

    /// The lock of the tables, for a look at records: with one CPU none is needed, and with several it is waited for as
    /// `hold` says.
    fn look(&self, memory: &Memory<P, B>, hold: Hold) -> Look<'_, P, B> {
        match hold {
            _ if P::CPUS == 1 => Ok(None),
            Hold::Wait => Ok(Some(self.tables.lock())),
            Hold::Try => try_for(memory, &self.tables).map(Some),
        }
    }

    /// The area an address has to do with, so that a fault handler can ask: with one CPU it takes no lock, and with several
    /// none that this one may hold, for then nothing is found.
    pub(super) fn find_hit(&self, memory: &Memory<P, B>, addr: usize) -> Option<AreaHit> {
        if !self.holds(addr) {
            return None;
        }
        if let Some(hit) = self.find_slot(addr) {
            return hit;
        }
        let page = addr & !(B::PAGE_SIZE - 1);
        let held = self.look(memory, Hold::Try).ok()?;
        if let Walk::Guard(id) = self.walk(memory, page) {
            // SAFETY: a guard entry names a record, with several CPUs for as long as the lock is held; the caller reports a
            // fault, and with one CPU a torn read costs a wrong name.
            let area = unsafe { &*memory.area(id) }.info();
            drop(held);
            let behind = self
                .area_below(memory, page.wrapping_sub(B::PAGE_SIZE), Hold::Try)
                .filter(|below| end(below, B::PAGE_SIZE) == page);
            return Some(AreaHit { addr, place: Place::GuardBefore, area, behind });
        }
        drop(held);
        if let Some(area) = self.area_below(memory, page, Hold::Try) {
            let place = if addr < end(&area, B::PAGE_SIZE) { Place::Inside } else { Place::GuardAfter };
            return Some(AreaHit { addr, place, area, behind: None });
        }
        let _kept = if P::CPUS == 1 { None } else { Some(try_for(memory, &self.room).ok()?) };
        let area = self.kept.find(memory, addr)?;
        Some(AreaHit { addr, place: Place::Freed, area, behind: None })
    }

    /// The area whose pages, or the unmapped rest of whose last unit, hold `page`. With several CPUs the lock of the tables
    /// is held for a batch of pages at a time.
    pub(super) fn area_below(&self, memory: &Memory<P, B>, page: usize, hold: Hold) -> Option<AreaInfo> {
        let mut at = page;
        let mut absent = 0;
        while self.holds(at) {
            let _held = self.look(memory, hold).ok()?;
            for _ in 0..BATCH {
                match self.walk(memory, at) {
                    Walk::Guard(id) => {
                        // SAFETY: as in `find_hit`.
                        let area = unsafe { &*memory.area(id) }.info();
                        let last = end(&area, B::PAGE_SIZE) + (Self::UNIT_PAGES - 1) * B::PAGE_SIZE;
                        return (page <= last).then_some(area);
                    }
                    Walk::Mapped(mapping) => {
                        absent = 0;
                        // To the start of a large entry at once.
                        at &= !(mapping.pages as usize * B::PAGE_SIZE - 1);
                    }
                    // Behind an area at most one unit, less its guard and one page, is unmapped.
                    Walk::Absent if absent == Self::UNIT_PAGES => return None,
                    Walk::Absent => absent += 1,
                }
                at = at.wrapping_sub(B::PAGE_SIZE);
                if !self.holds(at) {
                    break;
                }
            }
        }
        None
    }

    /// The first live area at or above `from`.
    pub(super) fn next_area(&self, memory: &Memory<P, B>, from: usize) -> Option<AreaInfo> {
        let (area, slot) = (self.next_recorded(memory, from), self.next_slot(from));
        [area, slot].into_iter().flatten().min_by_key(|area| area.addr)
    }

    /// The first one that has a record.
    fn next_recorded(&self, memory: &Memory<P, B>, from: usize) -> Option<AreaInfo> {
        let start = self.window_start();
        // An area at `from` has its guard right before it.
        let mut unit = from.saturating_sub(start).saturating_sub(B::PAGE_SIZE) >> UNIT_SHIFT;
        loop {
            let mut room = self.room.lock();
            let taken = in_steps(&mut room, |room| room.units.next_taken(unit), Guard::pause);
            drop(room);
            unit = taken?;
            let first = start + (unit << UNIT_SHIFT);
            let held = self.tables.lock();
            for guard in [first, first + ((Self::UNIT_PAGES - 1) << B::PAGE_SHIFT)] {
                if let Walk::Guard(id) = self.walk(memory, guard) {
                    // SAFETY: a guard entry names a live record for as long as the lock of the tables is held.
                    let area = unsafe { &*memory.area(id) };
                    if area.is_live() && area.addr >= from {
                        return Some(area.info());
                    }
                }
            }
            drop(held);
            unit += 1;
        }
    }

    pub(super) fn check_areas(&self, memory: &Memory<P, B>, hidden: u32) -> Result<AreaTally, (&'static str, usize)> {
        self.room.lock().units.check()?;
        self.tables.lock().ioremaps.check(memory)?;
        let kmaps = self.check_slots(memory)?;
        let room = self.room.lock();
        let mut tally = AreaTally {
            held: room.tables.len() + self.reserve.lock().kept,
            records: self.kept.len() + self.records.lock().kept(),
            kmaps,
            ..AreaTally::default()
        };
        drop(room);
        let mut from = self.window_start();
        let (mut units, mut ioremaps) = (0, 0);
        let mut id = hidden;
        while id != NIL {
            // SAFETY: the list is of hidden areas, whose records are live; nothing else runs.
            let area = unsafe { &*memory.area(id) };
            tally.records += 1;
            units += self.units_of(area.addr, area.pages as usize).1;
            ioremaps += usize::from(area.kind == AreaKind::Ioremap);
            tally.frames += if area.kind == AreaKind::Alloc { area.pages as usize } else { 0 };
            id = area.next;
        }
        let late = self.tally_late(memory, |id| {
            // SAFETY: as above.
            let area = unsafe { &*memory.area(id) };
            tally.records += 1;
            units += self.units_of(area.addr & !(B::PAGE_SIZE - 1), area.pages as usize).1;
            ioremaps += usize::from(area.is_listed());
        });
        tally.unflushed = late;
        units += self.check_ram(memory, &mut tally)?;
        while let Some(area) = self.next_recorded(memory, from) {
            tally.areas += 1;
            ioremaps += usize::from(area.kind == AreaKind::Ioremap);
            let first = area.addr & !(B::PAGE_SIZE - 1);
            units += self.units_of(first, area.pages as usize).1;
            let id = self.record_at(memory, first);
            for page in 0..area.pages as usize {
                let addr = first + page * B::PAGE_SIZE;
                let Walk::Mapped(mapping) = self.walk(memory, addr) else {
                    return Err(("a page of an area is not mapped", addr));
                };
                if area.kind == AreaKind::Alloc {
                    tally.frames += 1;
                    let block = memory.find_block(mapping.pfn.0 as usize, FrameKind::Mapped);
                    if block.is_none_or(|(_, _, link)| Some(link) != id) {
                        return Err(("an area maps a frame that is not its own", addr));
                    }
                }
            }
            if !matches!(self.walk(memory, first - B::PAGE_SIZE), Walk::Guard(_)) {
                return Err(("an area has no guard before it", area.addr));
            }
            if !matches!(self.walk(memory, end(&area, B::PAGE_SIZE)), Walk::Guard(_) | Walk::Absent) {
                return Err(("an area has no guard behind it", area.addr));
            }
            from = end(&area, B::PAGE_SIZE);
        }
        if ioremaps != self.tables.lock().ioremaps.count() {
            return Err(("the ioremaps and the areas disagree", ioremaps));
        }
        let room = self.room.lock();
        let taken = room.units.units().saturating_sub(room.units.free_units());
        if taken != units {
            return Err(("address space is taken that no area has", taken));
        }
        Ok(tally)
    }
}

/// How a lock is come by.
#[derive(Clone, Copy)]
pub(super) enum Hold {
    /// By waiting.
    Wait,
    /// For a moment only: this CPU itself may have it, and have been interrupted by a fault.
    Try,
}

/// The lock of the tables, if one is needed; an error when it was not to be had.
type Look<'a, P, B> = Result<Option<Guard<'a, <P as Platform>::Lock, Tabled<B>>>, ()>;

/// How often a lock is tried for: much longer than any is held.
const TRIES: usize = 1 << 20;

fn try_for<'a, P: Platform, B: PageTable, T>(
    memory: &Memory<P, B>,
    lock: &'a Locked<P::Lock, T>,
) -> Result<Guard<'a, P::Lock, T>, ()> {
    for _ in 0..TRIES {
        if let Some(guard) = lock.try_lock() {
            return Ok(guard);
        }
        memory.poll(|range| memory.backend.flush(range.unwrap_or(EVERYTHING)));
        core::hint::spin_loop();
    }
    Err(())
}

/// One past the last page of an area.
fn end(area: &AreaInfo, page_size: usize) -> usize {
    (area.addr & !(page_size - 1)) + area.pages as usize * page_size
}
