//! The vmalloc family over page tables.
//!
//! An area is `[guard page][pages][unmapped rest of its last unit]` in a window of addresses given out in units of
//! 64 KiB, lowest first fit. Its guard entry, just below it, is not present and carries the id of the area's record,
//! so that `vfree` and a fault report find the area by one walk. The tables themselves are the record of which frames
//! back an area.
//!
//! Entries are written and cleared in batches of 32, each under the lock of the tables; table frames are made ready
//! outside it. An area becomes visible when all of it is mapped, and is hidden before any of it is unmapped.

mod build;
mod inspect;
mod kmap;
mod teardown;

use super::area::{AreaHit, AreaInfo, AreaKind, FreedAreas};
use super::interval::Cursor;
use super::ioremaps::Ioremaps;
use super::space::AddressSpace;
use super::{AreaFamily, AreaRequest, AreaTally};
use crate::addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::backend::{MapError, PageTable, Walk};
use crate::boot::RamMap;
use crate::error::{AllocError, FreeError, MmError};
use crate::lock::Locked;
use crate::manager::boot_alloc;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::prot::{CacheMode, Prot};
use crate::vmalloc::unflushed::{SpareTables, Tables};
use core::marker::PhantomData;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Entries written or cleared in one hold of the lock.
const BATCH: u32 = 32;
/// log2 of the bytes in a unit of address space.
const UNIT_SHIFT: u32 = 16;

/// The family over page tables.
pub struct Mapped<P: Platform, B: PageTable> {
    /// First byte of the window, and its length; set once by `init`.
    start: AtomicUsize,
    len: AtomicUsize,
    space: Locked<P::Lock, AddressSpace>,
    /// Guards the page tables of the window, the states of area records, and the list of ioremaps.
    tables: Locked<P::Lock, Ioremaps>,
    pub(super) spares: Locked<P::Lock, SpareTables>,
    freed: FreedAreas,
    /// Guards the page tables of the window of `kmap`, too.
    kmaps: Locked<P::Lock, kmap::KmapSlots>,
    backend: PhantomData<fn() -> B>,
}

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// Pages in a unit of address space.
    const UNIT_PAGES: usize = 1 << (UNIT_SHIFT - B::PAGE_SHIFT);

    #[inline(always)]
    fn window_start(&self) -> usize {
        self.start.load(Relaxed)
    }

    #[inline(always)]
    fn holds(&self, addr: usize) -> bool {
        addr.wrapping_sub(self.start.load(Relaxed)) < self.len.load(Relaxed)
    }

    /// Runs one step of the walker under the lock of the tables, bringing the table frames it asks for.
    fn step<R>(
        &self,
        tables: &mut Tables<'_, P, B>,
        mut walk: impl FnMut(&mut Tables<'_, P, B>) -> Result<R, MapError>,
    ) -> Result<R, MmError> {
        loop {
            let guard = self.tables.lock();
            let result = walk(tables);
            drop(guard);
            match result {
                Ok(value) => return Ok(value),
                // At most `MAX_TABLES` are ever asked for, so the second round has them.
                Err(MapError::NeedTables(wanted)) if wanted <= B::MAX_TABLES => tables.stock(wanted)?,
                Err(MapError::NeedTables(_) | MapError::BadAddress) => return Err(MmError::BadRange),
                Err(MapError::BadFrame) => return Err(MmError::BadRange),
                Err(MapError::AlreadyMapped) => return Err(MmError::AlreadyMapped),
                Err(MapError::NotMapped) => return Err(MmError::NotMapped),
            }
        }
    }

    /// Gives address space back, which `Unflushed` does after its flush.
    pub(super) fn give_units(&self, memory: &Memory<P, B>, (start, count): (usize, usize)) {
        if self.space.lock().give(start, count).is_err() {
            memory.platform.bug(&crate::Bug::Damage { what: "address space was free already", at: start });
        }
    }

    /// Gives a record back, after the flush of its area.
    pub(super) fn give_record(&self, memory: &Memory<P, B>, id: u32) {
        // SAFETY: the record is live and hidden: its area's builder or freer owns it.
        if unsafe { (*memory.area(id)).is_listed() } {
            // SAFETY: listed, by `build_ioremap`.
            unsafe { self.tables.lock().remove(memory, id) };
        }
        memory.area_give(id);
    }

    /// The live area whose guard entry stands just below `addr`, if it begins there.
    fn record_at(&self, memory: &Memory<P, B>, addr: usize) -> Option<u32> {
        let guard = VirtAddr(addr.wrapping_sub(B::PAGE_SIZE));
        match memory.backend.walk_kernel(guard) {
            Walk::Guard(id) => Some(id),
            _ => None,
        }
    }
}

// SAFETY: frames belong to one area through its entries, and come back only from `Unflushed`, after the flush.
unsafe impl<P: Platform, B: PageTable> AreaFamily<P, B> for Mapped<P, B> {
    const NEW: Self = Mapped {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        space: Locked::new(AddressSpace::EMPTY),
        tables: Locked::new(Ioremaps::new()),
        spares: Locked::new(SpareTables::new()),
        freed: FreedAreas::new(),
        kmaps: Locked::new(kmap::KmapSlots::new()),
        backend: PhantomData,
    };

    fn init<const N: usize>(
        &self,
        memory: &Memory<P, B>,
        ram: &mut RamMap<N>,
        window: VirtRange,
    ) -> Result<(), MmError> {
        // Aligned to the reach of a leaf table at least, so that no table is shared with other mappings.
        let align = (B::PAGE_SIZE * B::LARGE_PAGES as usize).max(1 << UNIT_SHIFT);
        if window.is_empty() || !window.start.is_multiple_of(align) || !window.len().is_multiple_of(align) {
            return Err(MmError::Inval);
        }
        // The last unit is never given out: its first page is the guard behind the last area.
        let units = (window.len() >> UNIT_SHIFT) - 1;
        if units == 0 || units > AddressSpace::<32, 31>::MAX_UNITS {
            return Err(MmError::Inval);
        }
        let storage = boot_alloc(memory, ram, AddressSpace::<32, 31>::storage_bytes(units))?;
        // SAFETY: the storage is zeroed, aligned, long enough and never given back.
        *self.space.lock() = unsafe { AddressSpace::new(storage, units) };
        self.start.store(window.start, Relaxed);
        self.len.store(window.len(), Relaxed);
        Ok(())
    }

    fn vmalloc(&self, memory: &Memory<P, B>, request: AreaRequest) -> Result<NonNull<u8>, AllocError> {
        self.build_alloc(memory, request).map_err(|error| match error {
            MmError::Alloc(error) => error,
            // The range is ours and fresh, so the walker cannot refuse it: its tables are damaged.
            _ => AllocError::NoAddressSpace,
        })
    }

    fn vfree(&self, memory: &Memory<P, B>, addr: usize) -> Result<(), FreeError> {
        self.unmap_area(memory, addr, AreaKind::Alloc)
    }

    fn ioremap(
        &self,
        memory: &Memory<P, B>,
        phys: PhysAddr,
        size: usize,
        cache: CacheMode,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, MmError> {
        self.build_ioremap(memory, phys, size, cache, caller)
    }

    fn iounmap(&self, memory: &Memory<P, B>, addr: usize) -> Result<(), FreeError> {
        self.unmap_area(memory, addr & !(B::PAGE_SIZE - 1), AreaKind::Ioremap)
    }

    fn protect(&self, memory: &Memory<P, B>, addr: usize, prot: Prot) -> Result<(), MmError> {
        self.protect_area(memory, addr, prot)
    }

    fn to_page(&self, memory: &Memory<P, B>, addr: usize) -> Option<Pfn> {
        if !self.holds(addr) {
            return None;
        }
        let _tables = self.tables.lock();
        match memory.backend.walk_kernel(VirtAddr(addr)) {
            Walk::Mapped(mapping) => memory.frames.frame(mapping.pfn).map(|_| mapping.pfn),
            _ => None,
        }
    }

    fn contains(&self, _memory: &Memory<P, B>, addr: usize) -> bool {
        self.holds(addr)
    }

    fn find(&self, memory: &Memory<P, B>, addr: usize) -> Option<AreaHit> {
        self.find_hit(memory, addr)
    }

    fn next(&self, memory: &Memory<P, B>, cursor: &mut Cursor) -> Option<AreaInfo> {
        let area = self.next_area(memory, cursor.start() as usize)?;
        *cursor = Cursor::at(area.addr as u64 + 1);
        Some(area)
    }

    fn kmap(&self, memory: &Memory<P, B>, pfn: Pfn) -> Result<NonNull<u8>, AllocError> {
        self.map_slot(memory, pfn)
    }

    fn kunmap(&self, memory: &Memory<P, B>, addr: usize) -> Result<(), FreeError> {
        self.unmap_slot(memory, addr)
    }

    fn drain(&self, memory: &Memory<P, B>) {
        self.free_spares(memory);
    }

    fn check(&self, memory: &Memory<P, B>) -> Result<AreaTally, (&'static str, usize)> {
        self.check_areas(memory)
    }
}
