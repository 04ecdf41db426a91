//! Areas of what is not their own: devices, and the caller's frames.

use super::build::Build;
use super::layout::{Layout, pages_left};
use super::lowest::{Tabled, look_first};
use super::teardown::Teardown;
use super::{BATCH, Lowest, Mapped, area_pointer};
use crate::addr::{PageRange, Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::backend::{MapFrames, PageTable};
use crate::error::{AllocError, FreeError, MmError, PackedMap};
use crate::lock::Guard;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::prot::{CacheMode, Prot};
use crate::vmalloc::area::{Area, AreaKind, AreaUses};
use crate::vmalloc::unflushed::{Chain, Retired, Tables, Unflushed};
use core::panic::Location;
use core::ptr::NonNull;

/// Entries cleared in one hold of the lock, which is a store or two for each.
const CLEARED: u32 = 2 * BATCH;

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// An area of the caller's frames.
    #[inline(never)]
    pub(super) fn build_map(
        &self,
        memory: &Memory<P, B>,
        frames: &[Pfn],
        prot: Prot,
        uses: AreaUses,
        caller: &'static Location<'static>,
    ) -> PackedMap {
        PackedMap::new(self.try_build_map(memory, frames, prot, uses, caller))
    }

    #[inline(always)]
    fn try_build_map(
        &self,
        memory: &Memory<P, B>,
        frames: &[Pfn],
        prot: Prot,
        uses: AreaUses,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, MmError> {
        if prot.writable() && self.is_any_executable(memory, frames) {
            return Err(MmError::Unsupported);
        }
        let pages = frames.len();
        if pages >= self.window_pages() {
            return Err(AllocError::NoAddressSpace.into());
        }
        let (addr, record) = self.take_room(memory, pages, Layout::Packed)?;
        let mut area = Area::new(addr, pages << B::PAGE_SHIFT, pages as u32, AreaKind::Map, caller);
        area.uses = uses;
        Self::fill_record(memory, record, area);
        let (held, frames_of) = (self.tables.lock(), MapFrames::Each(frames));
        let mapped = Self::place(memory, held, addr, record, frames_of, prot, CacheMode::WriteBack);
        if mapped as usize == pages {
            return Ok(area_pointer(addr));
        }
        let mut build = self.resume(memory, addr, record, pages as u32, AreaKind::Map);
        (build.mapped, build.guarded, build.prot) = (mapped, mapped != 0, prot);
        build.map_rest(frames)
    }

    /// An area of a device's addresses.
    #[inline(never)]
    pub(super) fn build_ioremap(
        &self,
        memory: &Memory<P, B>,
        phys: PhysAddr,
        size: usize,
        cache: CacheMode,
        caller: &'static Location<'static>,
    ) -> PackedMap {
        PackedMap::new(self.try_build_ioremap(memory, phys, size, cache, caller))
    }

    #[inline(always)]
    fn try_build_ioremap(
        &self,
        memory: &Memory<P, B>,
        phys: PhysAddr,
        size: usize,
        cache: CacheMode,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, MmError> {
        let offset = (phys.0 & (B::PAGE_SIZE as u64 - 1)) as usize;
        let pages = size.checked_add(offset).ok_or(MmError::BadRange)?.div_ceil(B::PAGE_SIZE);
        let pfn = Pfn::containing(phys, B::PAGE_SHIFT).ok_or(MmError::BadRange)?;
        // The end of a run is a frame number, too.
        if pages > (u32::MAX - pfn.0) as usize {
            return Err(MmError::BadRange);
        }
        let run = PageRange { start: pfn, count: pages as u32 };
        if !memory.backend.can_address(run) {
            return Err(MmError::BadRange);
        }
        if pages >= self.window_pages() {
            return Err(AllocError::NoAddressSpace.into());
        }
        let device = Device { phys, size, cache, caller, run };
        // Of the address only: what is mapped is no object of this program.
        let at = |start: NonNull<u8>| start.map_addr(|addr| addr | offset);
        if run.count >= B::LARGE_PAGES {
            return self.build_large_ioremap(memory, &device).map(at);
        }
        let (addr, record) = self.take_room(memory, pages, Layout::Packed)?;
        Self::fill_record(memory, record, device.area(addr));
        let mut held = self.tables.lock();
        // SAFETY: the record is live, and is removed before it is given back.
        if !unsafe { held.ioremaps.add_only(memory, record) } {
            drop(held);
            if let Err(error) = self.list(memory, record) {
                self.give_room(memory, record);
                return Err(error);
            }
            held = self.tables.lock();
        }
        let mapped = Self::place(memory, held, addr, record, MapFrames::Run(run), Prot::ReadWrite, cache);
        if mapped == run.count {
            return Ok(at(area_pointer(addr)));
        }
        let mut build = self.resume(memory, addr, record, run.count, AreaKind::Ioremap);
        (build.mapped, build.guarded, build.cache) = (mapped, mapped != 0, cache);
        build.map_device(run).map(at)
    }

    /// [`build_ioremap`](Self::build_ioremap) of at least as many pages as a large entry has, where those fit.
    #[cold]
    #[inline(never)]
    fn build_large_ioremap(&self, memory: &Memory<P, B>, device: &Device) -> Result<NonNull<u8>, MmError> {
        let &Device { run, cache, .. } = device;
        let pages = run.count as usize;
        let (addr, record) = if run.start.0.is_multiple_of(B::LARGE_PAGES) {
            self.take_room_for(memory, pages, Layout::Packed)?
        } else {
            self.take_room(memory, pages, Layout::Packed)?
        };
        Self::fill_record(memory, record, device.area(addr));
        let mut build = self.resume(memory, addr, record, run.count, AreaKind::Ioremap);
        build.cache = cache;
        self.list(memory, build.record)?;
        build.map_device(run)
    }

    /// Puts an ioremap into the list of them, before anything of it is mapped: not even for a moment has a page two cache
    /// modes.
    #[inline(never)]
    fn list(&self, memory: &Memory<P, B>, record: u32) -> Result<(), MmError> {
        // SAFETY: the record is live, and is removed before it is given back.
        unsafe { self.tables.lock().ioremaps.add(memory, record) }
    }

    /// Maps an area whose record is filled, with its guard, in the table of its first page, and publishes it; returns how
    /// many pages were mapped. When these are not all it is as hidden as before, and the guard is there if any page is.
    #[inline(always)]
    fn place(
        memory: &Memory<P, B>,
        mut held: Guard<'_, P::Lock, Tabled<B>>,
        addr: usize,
        record: u32,
        frames: MapFrames<'_>,
        prot: Prot,
        cache: CacheMode,
    ) -> u32 {
        let pages = frames.count();
        // The guard of an area that is packed lies in its table: the unit they begin is not cut by one.
        if pages > pages_left::<B>(addr) {
            return 0;
        }
        if !held.is_known(addr) {
            look_first(memory, &mut held, addr);
        }
        let Some(Lowest { leaf, frame }) = held.lowest(memory, addr) else { return 0 };
        let (at, guard, mut counts) = (VirtAddr(addr), Some(record), Retired::of(memory, frame));
        // SAFETY: the lock is held, the table was found for `at`, the range and the frames are this area's.
        let mapped =
            unsafe { memory.backend.leaf_map(leaf, at, guard, frames, prot, cache, &mut counts, &mut || held.pause()) };
        if mapped == pages {
            // SAFETY: the record is live, and the lock that guards its state is held.
            unsafe { (*memory.area(record)).publish() };
        }
        mapped
    }

    /// Unmaps and frees the live area of `kind` at `addr`, which is not that of `vmalloc`.
    #[inline(never)]
    pub(super) fn unmap_foreign(&self, memory: &Memory<P, B>, addr: usize, kind: AreaKind) -> Result<(), FreeError> {
        let guard = addr.wrapping_sub(B::PAGE_SIZE);
        // Before the first page of the window there is no guard.
        if !self.holds(guard) || addr & (B::PAGE_SIZE - 1) != 0 {
            return Err(self.refusal(memory, addr, kind));
        }
        let mut held = self.tables.lock();
        let Some((Lowest { leaf, frame }, id)) = self.guard_at(memory, &mut held, guard) else {
            drop(held);
            return Err(self.refusal(memory, addr, kind));
        };
        // SAFETY: a guard entry names a live record for as long as the lock of the tables is held.
        let area = unsafe { &mut *memory.area(id) };
        if !area.is_live() || area.addr != addr || !area.is_freed_as(kind) {
            drop(held);
            return Err(self.refusal(memory, addr, kind));
        }
        area.withdraw();
        let pages = area.pages;
        let range = VirtRange { start: addr, end: addr + pages as usize * B::PAGE_SIZE };
        let in_table = pages_left::<B>(addr);
        // Mostly it lies in one table with its guard, and nothing need be read.
        if in_table <= pages || in_table == B::LARGE_PAGES {
            drop(held);
            self.unmap_any(memory, range, id, kind).flush();
            return Ok(());
        }
        let mut left = pages;
        // From the end; all stay counted meanwhile, and the table there.
        while left >= CLEARED {
            left -= CLEARED;
            let at = VirtAddr(addr + ((left as usize) << B::PAGE_SHIFT));
            // SAFETY: the lock is held, the entries are this area's, and what was mapped waits for a flush.
            unsafe { memory.backend.leaf_clear(leaf, at, CLEARED) };
            held.pause();
        }
        let keeps = frame.is_none_or(|table| table.head().count() > pages + 1);
        // Without others the guard goes the way that unlinks the table.
        let guards = u32::from(keeps);
        let first = VirtAddr(addr - ((guards as usize) << B::PAGE_SHIFT));
        // SAFETY: as above.
        unsafe { memory.backend.leaf_clear(leaf, first, left + guards) };
        if let Some(table) = frame {
            table.set_head(table.head().less(pages + guards));
        }
        drop(held);
        if keeps {
            Unflushed::of_foreign(memory, self, range, id).flush_foreign(pages, kind);
        } else {
            self.unmap_guard(memory, range, id).flush();
        }
        Ok(())
    }

    /// Clears the guard of an area whose pages are unmapped.
    #[cold]
    #[inline(never)]
    fn unmap_guard<'a>(&'a self, memory: &'a Memory<P, B>, range: VirtRange, id: u32) -> Unflushed<'a, P, B> {
        let (tables, blocks) = (Tables::new(memory, self), Chain::new());
        let (at, end) = (range.start, range.start);
        let mut down = Teardown { memory, family: self, tables, at, end, guards: 1, own: false, blocks, carry: 0 };
        down.finish();
        down.take_unflushed(range, id)
    }
}

/// What an ioremap is made of.
struct Device {
    phys: PhysAddr,
    size: usize,
    cache: CacheMode,
    caller: &'static Location<'static>,
    run: PageRange,
}

impl Device {
    /// Its record, hidden.
    #[inline(always)]
    fn area(&self, addr: usize) -> Area {
        let area = Area::new(addr, self.size, self.run.count, AreaKind::Ioremap, self.caller);
        Area { phys: self.phys.0, cache: self.cache, ..area }
    }
}

impl<P: Platform, B: PageTable> Build<'_, P, B> {
    /// Maps what is missing of the caller's frames, table by table.
    #[cold]
    #[inline(never)]
    fn map_rest(mut self, frames: &[Pfn]) -> Result<NonNull<u8>, MmError> {
        while self.mapped != self.pages {
            self.map_table(MapFrames::Each(&frames[self.mapped as usize..]))?;
        }
        self.publish()
    }

    /// Maps what is missing of a device's pages.
    #[cold]
    #[inline(never)]
    fn map_device(mut self, run: PageRange) -> Result<NonNull<u8>, MmError> {
        let (start, count) = (Pfn(run.start.0 + self.mapped), run.count - self.mapped);
        self.map_run(PageRange { start, count })?;
        self.publish()
    }
}
