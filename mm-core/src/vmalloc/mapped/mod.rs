//! The vmalloc family over page tables.
//!
//! An area is `[guard page][pages][unmapped rest of its last unit]` in a window of addresses given out in units of
//! 64 KiB, lowest first fit; where its first page is aligned to more than a page, the guard is the last page of the unit
//! before. Its guard entry, just below it, is not present and carries the id of the area's record,
//! so that `vfree` and a fault report find the area by one walk. The tables themselves are the record of which frames
//! back an area.
//!
//! Entries are written in batches of 32 at most and cleared in batches of 64 at most, each under the lock of the tables and each
//! in one lowest table, which is found once; runs of 2 MiB that are aligned to that are one entry. Table frames are made ready outside the lock. An area becomes visible when all of it is mapped, and is hidden before any of it is unmapped.

mod build;
mod fill;
mod foreign;
mod inspect;
mod kmap;
mod layout;
mod lookup;
mod lowest;
mod protect;
mod ram;
mod records;
mod singles;
mod teardown;

use super::area::{Area, AreaHit, AreaInfo, AreaKind, AreaUses, KeptRecords};
use super::interval::Cursor;
use super::space::AddressSpace;
use super::{AreaFamily, AreaRequest, AreaTally, CopyWay, Withdrawn};
use crate::addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::backend::{MapError, PageTable, Walk};
use crate::boot::RamMap;
use crate::error::{AllocError, FreeError, MmError, PackedMap};
use crate::lock::Locked;
use crate::manager::boot_alloc;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::prot::{CacheMode, Prot};
use crate::vmalloc::unflushed::{Late, TableReserve, Tables};
use core::marker::PhantomData;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use layout::{Room, UNIT_SHIFT};
pub(super) use lowest::Lowest;
use lowest::Tabled;

/// The pointer to an area that was just mapped.
#[inline(always)]
fn area_pointer(addr: usize) -> NonNull<u8> {
    // On a machine the tables just written make the address good. Under Miri there is none, only simulated loads.
    let start =
        if cfg!(miri) { core::ptr::without_provenance_mut(addr) } else { core::ptr::with_exposed_provenance_mut(addr) };
    // SAFETY: the window is in the kernel's half, so the address is not null.
    unsafe { NonNull::new_unchecked(start) }
}

/// Entries written or cleared in one hold of the lock.
const BATCH: u32 = 32;

/// The family over page tables.
pub struct Mapped<P: Platform, B: PageTable> {
    /// First byte of the window, and its length; set once by `init`.
    start: AtomicUsize,
    len: AtomicUsize,
    pub(super) room: Locked<P::Lock, Room>,
    /// Guards the page tables of the window, the states of area records, and the list of ioremaps.
    tables: Locked<P::Lock, Tabled<B>>,
    /// Guarded by the lock of `room`.
    kept: KeptRecords,
    /// Guarded by the lock of the tables.
    ram: ram::RamNames,
    pub(super) reserve: Locked<P::Lock, TableReserve>,
    records: Locked<P::Lock, records::RecordReserve>,
    /// Fewer records are kept aside than are wanted; stored under their lock.
    lacks_records: AtomicBool,
    /// How many live areas had an executable page; changed under the lock of the tables.
    executed: AtomicUsize,
    /// How often aliases of frames were changed; the lock of the tables is held for it to be compared.
    alias_changes: Locked<P::Lock, usize>,
    /// Guards the page tables of the window of `kmap`, too.
    kmaps: Locked<P::Lock, kmap::KmapSlots>,
    /// What could not be flushed, with several CPUs.
    pub(super) late: Late<P::Lock>,
    backend: PhantomData<fn() -> B>,
}

impl<P: Platform, B: PageTable> Mapped<P, B> {
    #[inline(always)]
    fn window_start(&self) -> usize {
        self.start.load(Relaxed)
    }

    /// Pages of the window.
    fn window_pages(&self) -> usize {
        self.len.load(Relaxed) >> B::PAGE_SHIFT
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
                Err(error) => return Err(layout::refused(error)),
            }
        }
    }
}

// SAFETY: frames belong to one area through its entries, and come back only from `Unflushed`, after the flush.
unsafe impl<P: Platform, B: PageTable> AreaFamily<P, B> for Mapped<P, B> {
    const NEW: Self = Mapped {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        room: Locked::new(Room::new()),
        tables: Locked::new(Tabled::new()),
        kept: KeptRecords::new(),
        ram: ram::RamNames::new(),
        reserve: Locked::new(TableReserve::new()),
        records: Locked::new(records::RecordReserve::new()),
        lacks_records: AtomicBool::new(false),
        executed: AtomicUsize::new(0),
        alias_changes: Locked::new(0),
        kmaps: Locked::new(kmap::KmapSlots::new()),
        late: Late::new(),
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
        self.room.lock().units = unsafe { AddressSpace::new(storage, units) };
        self.start.store(window.start, Relaxed);
        self.len.store(window.len(), Relaxed);
        Ok(())
    }

    #[inline(always)]
    fn vmalloc(&self, memory: &Memory<P, B>, request: &AreaRequest) -> Result<NonNull<u8>, AllocError> {
        let area = self.build_alloc(memory, request).map_err(|error| match error {
            MmError::Alloc(error) => error,
            // The range is ours and fresh, so the walker cannot refuse it: its tables are damaged.
            _ => AllocError::NoAddressSpace,
        })?;
        self.settled(memory, area, AreaKind::Alloc)
    }

    #[inline]
    fn vfree(&self, memory: &Memory<P, B>, addr: usize, kind: AreaKind) -> Result<(), FreeError> {
        match kind {
            AreaKind::Alloc => self.unmap_area(memory, addr, kind),
            AreaKind::Ioremap | AreaKind::Map => self.unmap_foreign(memory, addr, kind),
        }
    }

    #[inline]
    fn ioremap(
        &self,
        memory: &Memory<P, B>,
        phys: PhysAddr,
        size: usize,
        cache: CacheMode,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, MmError> {
        let area = self.build_ioremap(memory, phys, size, cache, caller).result()?;
        Ok(self.settled(memory, area, AreaKind::Ioremap)?)
    }

    #[inline]
    fn vmap(
        &self,
        memory: &Memory<P, B>,
        frames: &[Pfn],
        prot: Prot,
        uses: AreaUses,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, MmError> {
        let area = self.build_map(memory, frames, prot, uses, caller).result()?;
        Ok(self.settled(memory, area, AreaKind::Map)?)
    }

    #[inline]
    fn map_ram(
        &self,
        memory: &Memory<P, B>,
        frames: &[Pfn],
        caller: &'static Location<'static>,
    ) -> Result<Option<NonNull<u8>>, MmError> {
        self.map_slots(memory, frames, caller).map(PackedMap::result).transpose()
    }

    #[inline]
    fn unmap_ram(&self, memory: &Memory<P, B>, addr: usize, count: usize) -> Option<Result<(), FreeError>> {
        self.unmap_slots(memory, addr, count)
    }

    const TELLS_RAM: bool = true;

    fn release_ram(&self, memory: &Memory<P, B>, addr: usize, count: usize) -> Result<(), FreeError> {
        // As one of `vmap` it can be freed, and none but its owner does.
        let release = |area: &mut Area| match area.uses.contains(AreaUses::RAM) {
            false => Err(FreeError::WrongAllocator),
            true if area.pages as usize != count => Err(FreeError::WrongOrder),
            true => {
                area.uses.remove(AreaUses::RAM);
                Ok(())
            }
        };
        self.with_live(memory, addr, release).unwrap_or(Ok(()))
    }

    fn withdraw(&self, memory: &Memory<P, B>, addr: usize, kind: AreaKind) -> Result<Withdrawn, FreeError> {
        self.withdraw_area(memory, addr, kind)
    }

    fn release(&self, memory: &Memory<P, B>, first: u32) {
        self.release_areas(memory, first);
    }

    #[inline(always)]
    fn area_at(&self, memory: &Memory<P, B>, addr: usize) -> Option<(AreaInfo, AreaUses)> {
        self.with_live(memory, addr, |area| (area.info(), area.uses)).or_else(|| self.slot_at(addr))
    }

    fn set_size(&self, memory: &Memory<P, B>, addr: usize, size: usize) -> bool {
        self.with_live(memory, addr, |area| {
            let fits = area.kind == AreaKind::Alloc && size.div_ceil(B::PAGE_SIZE) == area.pages as usize;
            if fits {
                area.size = size;
            }
            fits
        })
        .unwrap_or(false)
    }

    unsafe fn copy(&self, memory: &Memory<P, B>, addr: usize, buffer: *mut u8, bytes: usize, way: CopyWay) -> bool {
        if !self.holds(addr) {
            return false;
        }
        let _tables = self.tables.lock();
        let Walk::Mapped(mapping) = memory.backend.walk_kernel(VirtAddr(addr)) else { return false };
        if memory.frames.frame(mapping.pfn).is_none() {
            return false;
        }
        let offset = addr & (B::PAGE_SIZE - 1);
        // SAFETY: a frame of this manager's RAM, which stays an area's while the lock of the tables is held; the bytes lie in
        // its page, and the buffer is good for them.
        unsafe {
            memory.backend.with_frame(mapping.pfn, |frame| match way {
                CopyWay::Read => buffer.copy_from_nonoverlapping(frame.add(offset), bytes),
                CopyWay::Write => frame.add(offset).copy_from_nonoverlapping(buffer, bytes),
            });
        }
        true
    }

    fn reserve_tables(&self, memory: &Memory<P, B>, tables: usize) -> Result<(), AllocError> {
        self.set_reserve(memory, tables)
    }

    fn protect(&self, memory: &Memory<P, B>, addr: usize, pages: usize, prot: Prot) -> Result<(), MmError> {
        self.protect_pages(memory, addr, pages, prot)
    }

    #[inline(always)]
    fn to_page(&self, memory: &Memory<P, B>, addr: usize) -> Option<Pfn> {
        self.frame_at(memory, addr)
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

    fn flush_here(&self, memory: &Memory<P, B>, range: Option<VirtRange>) {
        memory.backend.flush(range.unwrap_or(crate::smp::EVERYTHING));
    }

    fn release_late(&self, memory: &Memory<P, B>) {
        if P::CPUS > 1 {
            self.flush_late(memory);
            self.flush_late_slots(memory);
            self.flush_late_ram(memory);
        }
    }

    fn free_addresses(&self, memory: &Memory<P, B>) -> bool {
        self.free_blocks(memory)
    }

    fn drain(&self, memory: &Memory<P, B>) {
        self.free_blocks(memory);
        self.free_spares(memory);
        self.free_records(memory);
    }

    fn check(&self, memory: &Memory<P, B>, hidden: u32) -> Result<AreaTally, (&'static str, usize)> {
        self.check_areas(memory, hidden)
    }
}
