//! Where an area lies in its units of address space, and the room that areas are made from.

use super::Mapped;
use crate::addr::Pfn;
use crate::backend::PageTable;
use crate::error::{AllocError, MmError};
use crate::fault::FaultClass;
use crate::lock::Guard;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::{Bug, Platform};
use crate::vmalloc::area::Area;
use crate::vmalloc::space::{AddressSpace, NotTaken, in_steps};
use core::sync::atomic::Ordering::Relaxed;

/// log2 of the bytes in a unit of address space.
pub(super) const UNIT_SHIFT: u32 = 16;
const UNIT: usize = 1 << UNIT_SHIFT;

/// Tables of freed areas that are kept: those of an area of 32 MiB in small entries come and go without being zeroed.
const SPARES: usize = 16;

/// What every area needs at its beginning and gives back at its end, under one lock: address space, a record, and the
/// tables that went with the area before.
///
/// Tables are all zero. The records are `Mapped::kept`.
pub(in crate::vmalloc) struct Room {
    pub(in crate::vmalloc) units: AddressSpace,
    pub(in crate::vmalloc) tables: heapless::Vec<Pfn, SPARES>,
}

impl Room {
    pub(super) const fn new() -> Self {
        Room { units: AddressSpace::EMPTY, tables: heapless::Vec::new() }
    }
}

/// Where the first page of an area may lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// A page into its first unit, behind the guard.
    Packed,
    /// As `Packed`, in units that begin at a multiple of eight, so that up to so many share a lowest table.
    Whole,
    /// At a multiple of so many units; the guard is the last page of the unit before.
    Aligned(usize),
}

impl Layout {
    /// The layout for areas aligned to `align`, a power of two.
    pub(super) fn of(align: usize, page_size: usize) -> Layout {
        if align <= page_size { Layout::Packed } else { Layout::Aligned(align.div_ceil(UNIT)) }
    }
}

/// Units of address space: the first, and how many.
pub(in crate::vmalloc) type Units = (usize, usize);

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// Pages in a unit of address space.
    pub(super) const UNIT_PAGES: usize = 1 << (UNIT_SHIFT - B::PAGE_SHIFT);

    /// How many units an area of `pages` takes.
    #[inline(always)]
    fn unit_count(layout: Layout, pages: usize) -> usize {
        match layout {
            Layout::Packed | Layout::Whole => (pages + Self::UNIT_PAGES) >> (UNIT_SHIFT - B::PAGE_SHIFT),
            Layout::Aligned(_) => 1 + ((pages + Self::UNIT_PAGES - 1) >> (UNIT_SHIFT - B::PAGE_SHIFT)),
        }
    }

    /// The units of the area whose first page is at `addr`.
    #[inline(always)]
    pub(in crate::vmalloc) fn units_of(&self, addr: usize, pages: usize) -> Units {
        let layout = if addr & (UNIT - 1) == 0 { Layout::Aligned(1) } else { Layout::Packed };
        ((addr - B::PAGE_SIZE - self.window_start()) >> UNIT_SHIFT, Self::unit_count(layout, pages))
    }

    /// Takes address space for `pages` and a record: the first page's address, and the record's id. The record is as its
    /// last owner left it.
    ///
    /// # Errors
    /// `NoAddressSpace`, `NoMemory`.
    #[inline(always)]
    pub(super) fn take_room(
        &self,
        memory: &Memory<P, B>,
        pages: usize,
        layout: Layout,
    ) -> Result<(usize, u32), AllocError> {
        memory.fault_point(FaultClass::AddressSpace)?;
        memory.fault_point(FaultClass::Descriptor)?;
        let count = Self::unit_count(layout, pages);
        let mut room = self.room.lock();
        let (align, offset) = match layout {
            Layout::Packed => (1, 0),
            Layout::Whole => (8, 0),
            Layout::Aligned(units) => (units, units - 1),
        };
        let start = in_steps(&mut room, |room| room.units.take(count, align, offset), Guard::pause);
        let Some(start) = start else { return Err(AllocError::NoAddressSpace) };
        let record = self.kept.pop();
        drop(room);
        let lead = if matches!(layout, Layout::Aligned(_)) { UNIT } else { B::PAGE_SIZE };
        let addr = self.window_start() + (start << UNIT_SHIFT) + lead;
        match record {
            Some(record) => Ok((addr, record)),
            None => self.make_record(memory, (start, count)).map(|record| (addr, record)),
        }
    }

    #[cold]
    #[inline(never)]
    fn make_record(&self, memory: &Memory<P, B>, units: Units) -> Result<u32, AllocError> {
        self.take_record(memory).inspect_err(|_| self.give_units(memory, units))
    }

    /// Gives address space back.
    #[cold]
    fn give_units(&self, memory: &Memory<P, B>, (start, count): Units) {
        let mut room = self.room.lock();
        let given = Self::give_to(&mut room, (start, count));
        drop(room);
        if given.is_err() {
            memory.platform.bug(&Bug::Damage { what: "address space was free already", at: start });
        }
    }

    /// Gives units back, in as many holds of the lock as it takes.
    #[inline(always)]
    fn give_to(room: &mut Guard<'_, P::Lock, Room>, (start, count): Units) -> Result<(), NotTaken> {
        in_steps(room, |room| room.units.give(start, count), Guard::pause)
    }

    /// Gives the address space and the record of a hidden area back, after its flush.
    #[inline(always)]
    pub(in crate::vmalloc) fn give_room(&self, memory: &Memory<P, B>, id: u32) {
        // SAFETY: the record is live and hidden: its area's builder or freer owns it.
        let area = unsafe { &*memory.area(id) };
        if area.is_listed() {
            self.unlist(memory, id);
        }
        self.give_room_of(memory, (area.addr & !(B::PAGE_SIZE - 1), area.pages as usize), id);
    }

    /// Takes a hidden ioremap out of the list of them, after its flush: what it mapped may have any cache mode again.
    #[inline(always)]
    pub(in crate::vmalloc) fn unlist(&self, memory: &Memory<P, B>, id: u32) {
        // SAFETY: an ioremap is listed before anything of it is mapped, and until here.
        unsafe { self.tables.lock().ioremaps.remove(memory, id) };
    }

    /// [`give_room`](Self::give_room) of an area that is not listed as an ioremap, by its first page and their number.
    #[inline(always)]
    pub(in crate::vmalloc) fn give_room_of(&self, memory: &Memory<P, B>, (first, pages): (usize, usize), id: u32) {
        let units = self.units_of(first, pages);
        let mut room = self.room.lock();
        let given = Self::give_to(&mut room, units);
        // What is kept aside comes first.
        let over = if self.lacks_records.load(Relaxed) { Some(id) } else { self.kept.push(id) };
        drop(room);
        if let Some(record) = over {
            self.give_record(memory, record);
        }
        if given.is_err() {
            memory.platform.bug(&Bug::Damage { what: "address space was free already", at: units.0 });
        }
    }

    /// Gives the records back that were kept, to those set aside first.
    pub(super) fn free_records(&self, memory: &Memory<P, B>) {
        loop {
            let held = self.room.lock();
            let Some(id) = self.kept.pop() else { return };
            drop(held);
            self.give_record(memory, id);
        }
    }

    /// A filled record is one's own until it is published.
    #[inline(always)]
    pub(super) fn fill_record(memory: &Memory<P, B>, id: u32, area: Area) {
        debug_assert_ne!(id, NIL);
        // SAFETY: the record was taken by the caller, and nobody else knows it.
        unsafe { Area::fill(memory.area(id), area) };
    }
}

/// The pages from `at` to where its lowest table ends; all that one has entries for when `at` is the first.
#[inline(always)]
pub(super) fn pages_left<B: PageTable>(at: usize) -> u32 {
    B::LARGE_PAGES - ((at >> B::PAGE_SHIFT) as u32 & (B::LARGE_PAGES - 1))
}

/// What the walker refused, as the caller of an area is told it.
#[cold]
pub(super) fn refused(error: crate::backend::MapError) -> MmError {
    use crate::backend::MapError;
    match error {
        MapError::NeedTables(_) | MapError::BadAddress | MapError::BadFrame => MmError::BadRange,
        MapError::AlreadyMapped => MmError::AlreadyMapped,
        MapError::NotMapped => MmError::NotMapped,
    }
}
