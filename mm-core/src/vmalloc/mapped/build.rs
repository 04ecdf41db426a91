//! Making an area: address space, record, frames, entries, and last the guard that makes it visible.

use super::{BATCH, Mapped, UNIT_SHIFT};
use crate::addr::{PageRange, Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::backend::PageTable;
use crate::error::{AllocError, MmError};
use crate::fault::FaultClass;
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use crate::prot::{CacheMode, Prot};
use crate::vmalloc::AreaRequest;
use crate::vmalloc::area::{Area, AreaKind};
use crate::vmalloc::unflushed::{Chain, Tables, Unflushed};
use core::panic::Location;
use core::ptr::NonNull;

/// An area under construction. Dropping it undoes what was done.
struct Build<'a, P: Platform, B: PageTable> {
    memory: &'a Memory<P, B>,
    family: &'a Mapped<P, B>,
    tables: Tables<'a, P, B>,
    record: u32,
    kind: AreaKind,
    units: (usize, usize),
    /// First page of the area, and how many pages are mapped so far.
    addr: usize,
    mapped: u32,
}

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// Address space and a record for an area of `pages`.
    fn begin<'a>(
        &'a self,
        memory: &'a Memory<P, B>,
        size: usize,
        pages: usize,
        kind: AreaKind,
        caller: &'static Location<'static>,
    ) -> Result<Build<'a, P, B>, MmError> {
        memory.fault_point(FaultClass::AddressSpace)?;
        let count = (pages + 1).div_ceil(Self::UNIT_PAGES);
        let start = self.space.lock().take(count, 1).ok_or(AllocError::NoAddressSpace)?;
        let addr = self.window_start() + (start << UNIT_SHIFT) + B::PAGE_SIZE;
        match memory.area_take(Area::new(addr, size, pages as u32, kind, caller)) {
            Ok(record) => Ok(Build {
                memory,
                family: self,
                tables: Tables::new(memory, self),
                record,
                kind,
                units: (start, count),
                addr,
                mapped: 0,
            }),
            Err(error) => {
                self.give_units(memory, (start, count));
                Err(error.into())
            }
        }
    }

    pub(super) fn build_alloc(&self, memory: &Memory<P, B>, request: AreaRequest) -> Result<NonNull<u8>, MmError> {
        let pages = request.size.div_ceil(B::PAGE_SIZE);
        let mut build = self.begin(memory, request.size, pages, AreaKind::Alloc, request.caller)?;
        let mut want = pages.min(1 << B::MAX_ORDER);
        while (build.mapped as usize) < pages {
            want = want.min(pages - build.mapped as usize);
            memory.fault_point(FaultClass::Page)?;
            // A block that is not to be had is no failure yet: only of a single page is it told.
            let flags = if want == 1 { request.flags } else { request.flags | Gfp::NOWARN };
            match memory.take_block_now(want, flags, FrameKind::Mapped, build.record) {
                Ok(pfn) => build.map_block(pfn, want as u32, request.prot)?,
                Err(error) if want == 1 => {
                    return Err(match error {
                        AllocError::NoContig => AllocError::NoMemory,
                        error => error,
                    }
                    .into());
                }
                // The next smaller power of two: what the buddy may still have.
                Err(_) => {
                    crate::trace::smaller_blocks(want);
                    want = want.next_power_of_two() / 2;
                }
            }
        }
        build.publish()
    }

    pub(super) fn build_ioremap(
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
        if pages >= self.space.lock().units() * Self::UNIT_PAGES {
            return Err(AllocError::NoAddressSpace.into());
        }
        let mut build = self.begin(memory, size, pages, AreaKind::Ioremap, caller)?;
        // SAFETY: the record is ours until it is published.
        let area = unsafe { &mut *memory.area(build.record) };
        area.phys = phys.0;
        area.cache = cache;
        // Before anything is mapped: even for a moment no page has two cache modes.
        // SAFETY: the record is live, and `Unflushed` removes it before it gives it back.
        unsafe { self.tables.lock().add(memory, build.record) }?;
        build.map_run(PageRange { start: pfn, count: pages as u32 }, Prot::ReadWrite, cache)?;
        let start = build.publish()?;
        // Of the address only: what is mapped is no object of this program.
        Ok(start.map_addr(|addr| addr | offset))
    }
}

impl<P: Platform, B: PageTable> Build<'_, P, B> {
    /// Maps a block of frames behind what is mapped so far; on failure the block goes back too.
    fn map_block(&mut self, pfn: Pfn, pages: u32, prot: Prot) -> Result<(), MmError> {
        let before = self.mapped;
        let run = PageRange { start: pfn, count: pages };
        let result = self.map_run(run, prot, CacheMode::WriteBack);
        if result.is_err() && self.mapped == before {
            // Nothing of it is mapped, so the undo would not find it.
            let _ = self.memory.free_block(pfn.0 as usize, FrameKind::Mapped, None);
        }
        result
    }

    /// Maps frames behind what is mapped so far, a batch at a time.
    fn map_run(&mut self, run: PageRange, prot: Prot, cache: CacheMode) -> Result<(), MmError> {
        let (memory, root) = (self.memory, self.memory.backend.kernel_root());
        let mut done = 0;
        while done < run.count {
            let at = VirtAddr(self.addr + self.mapped as usize * B::PAGE_SIZE);
            let left = run.count - done;
            // A whole large entry is one store; anything else goes by batches.
            let large = at.0.is_multiple_of(B::LARGE_PAGES as usize * B::PAGE_SIZE)
                && (run.start.0 + done).is_multiple_of(B::LARGE_PAGES)
                && left >= B::LARGE_PAGES;
            let count = if large { B::LARGE_PAGES } else { left.min(BATCH) };
            let part = PageRange { start: Pfn(run.start.0 + done), count };
            let mapped = self.family.step(&mut self.tables, |tables| {
                // SAFETY: the lock of the tables is held, and the range and the frames are this area's.
                unsafe { memory.backend.map(root, at, part, prot, cache, tables) }
            })?;
            done += mapped;
            self.mapped += mapped;
        }
        Ok(())
    }

    /// Writes the guard entry, and from then on the area is there.
    fn publish(mut self) -> Result<NonNull<u8>, MmError> {
        let (memory, root, record) = (self.memory, self.memory.backend.kernel_root(), self.record);
        let guard = VirtAddr(self.addr - B::PAGE_SIZE);
        self.family.step(&mut self.tables, |tables| {
            // SAFETY: the lock of the tables is held, and the guard's address is this area's.
            unsafe { memory.backend.set_guard(root, guard, record, tables) }?;
            // SAFETY: the record is live, and the lock that guards its state is held.
            unsafe { (*memory.area(record)).publish() };
            Ok(())
        })?;
        let addr = self.addr;
        self.record = NIL;
        // On a machine the tables just written make the address good. Under Miri there is none, only simulated loads.
        let start = if cfg!(miri) {
            core::ptr::without_provenance_mut(addr)
        } else {
            core::ptr::with_exposed_provenance_mut(addr)
        };
        // SAFETY: the window is in the kernel's half, so the address is not null.
        Ok(unsafe { NonNull::new_unchecked(start) })
    }
}

impl<P: Platform, B: PageTable> Drop for Build<'_, P, B> {
    fn drop(&mut self) {
        if self.record == NIL {
            return;
        }
        let range = VirtRange { start: self.addr, end: self.addr + self.mapped as usize * B::PAGE_SIZE };
        let mut tables = Tables::new(self.memory, self.family);
        let blocks = self.family.unmap_pages(self.memory, range, self.kind, &mut tables);
        let retired = core::mem::replace(&mut tables.retired, Chain::new());
        Unflushed::new(self.memory, self.family, range, self.units, blocks, retired, self.record).flush();
    }
}
