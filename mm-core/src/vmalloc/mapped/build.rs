//! Making an area: address space, record, frames, entries and guard; visible when all of it is there.

use super::fill::{NO_BLOCKS, quiet, take_own};
use super::layout::Layout;
use super::{BATCH, Lowest, Mapped, area_pointer};
use crate::addr::{PageRange, Pfn, VirtAddr};
use crate::backend::{MapFrames, PageTable};
use crate::error::{AllocError, MmError, PackedFrame};
use crate::fault::FaultClass;
use crate::frame::FrameKind;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use crate::prot::{CacheMode, Prot};
use crate::vmalloc::area::{Area, AreaKind};
use crate::vmalloc::unflushed::{Tables, Uncounted};
use crate::vmalloc::{AreaRequest, Entries};
use core::ptr::NonNull;

/// An area under construction. Dropping it undoes what was done.
pub(super) struct Build<'a, P: Platform, B: PageTable> {
    pub(super) memory: &'a Memory<P, B>,
    pub(super) family: &'a Mapped<P, B>,
    pub(super) tables: Tables<'a, P, B>,
    pub(super) record: u32,
    pub(super) kind: AreaKind,
    pub(super) prot: Prot,
    pub(super) cache: CacheMode,
    pub(super) entries: Entries,
    /// The guard is written.
    pub(super) guarded: bool,
    /// First page of the area, how many it will have, and how many are mapped so far.
    pub(super) addr: usize,
    pub(super) pages: u32,
    pub(super) mapped: u32,
    /// Blocks that are taken and not mapped yet, neighbours.
    pub(super) pending: PageRange,
}

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// An area that has address space and a record, and nothing else yet.
    #[inline(always)]
    pub(super) fn resume<'a>(
        &'a self,
        memory: &'a Memory<P, B>,
        addr: usize,
        record: u32,
        pages: u32,
        kind: AreaKind,
    ) -> Build<'a, P, B> {
        Build {
            memory,
            family: self,
            tables: Tables::new(memory, self),
            record,
            kind,
            prot: Prot::ReadWrite,
            cache: CacheMode::WriteBack,
            entries: Entries::Largest,
            guarded: false,
            addr,
            pages,
            mapped: 0,
            pending: NO_BLOCKS,
        }
    }

    /// Address space and a record where `layout` says; for an area of at least one large entry that may lie anywhere, where
    /// such entries fit, when there is room.
    #[cold]
    #[inline(never)]
    pub(super) fn take_room_for(
        &self,
        memory: &Memory<P, B>,
        pages: usize,
        layout: Layout,
    ) -> Result<(usize, u32), AllocError> {
        let large = Layout::of(B::LARGE_PAGES as usize * B::PAGE_SIZE, B::PAGE_SIZE);
        let first = if layout == Layout::Packed { large } else { layout };
        match self.take_room(memory, pages, first) {
            Err(AllocError::NoAddressSpace) if layout == Layout::Packed => self.take_room(memory, pages, layout),
            result => result,
        }
    }

    /// The common case written out: one block, one batch of entries, in a table that is there.
    #[inline(always)]
    pub(super) fn build_alloc(&self, memory: &Memory<P, B>, request: &AreaRequest) -> Result<NonNull<u8>, MmError> {
        let pages = request.size.div_ceil(B::PAGE_SIZE);
        if pages >= BATCH as usize || request.align > B::PAGE_SIZE || request.patience.is_some() {
            // A copy, here and below, which is made there: the common case keeps what it asks for in registers.
            return self.build_any(memory, &{ *request }, pages);
        }
        let (addr, record) = self.take_room(memory, pages, Layout::Packed)?;
        let mut area = Area::new(addr, request.size, pages as u32, AreaKind::Alloc, request.caller);
        // Nobody finds it before its guard is there.
        area.publish();
        area.uses = request.uses;
        Self::fill_record(memory, record, area);
        let block = match memory.fault_point(FaultClass::Page) {
            Ok(()) if pages == 1 => memory.take_frame_now(request.flags, FrameKind::Mapped, record),
            Ok(()) => take_own(memory, pages, quiet(request.flags), record),
            Err(error) => PackedFrame::new(Err(error)),
        };
        let Ok(block) = block.result() else {
            return self.build_on(memory, &{ *request }, addr, record, block);
        };
        let mut held = self.tables.lock();
        // The guard of an area that is packed lies in its table: the unit they begin is not cut by one.
        if let Some(Lowest { leaf, frame }) = held.lowest(memory, addr) {
            let run = MapFrames::Run(PageRange { start: Pfn(block), count: pages as u32 });
            let (at, guard, cache) = (VirtAddr(addr), Some(record), CacheMode::WriteBack);
            // All of them in this hold of the lock, or none.
            // SAFETY: the lock is held, the table was found for `at`, the range and the frames are this area's.
            let mapped = unsafe {
                memory.backend.leaf_map(leaf, at, guard, run, request.prot, cache, &mut Uncounted, &mut || ())
            };
            if mapped != 0 {
                if let Some(table) = frame {
                    table.set_head(table.head().more(pages as u32 + 1));
                }
                return Ok(area_pointer(addr));
            }
        }
        drop(held);
        self.build_on(memory, &{ *request }, addr, record, PackedFrame::new(Ok(block)))
    }

    /// Goes on where [`build_alloc`](Self::build_alloc) found less than it hoped for.
    #[cold]
    #[inline(never)]
    fn build_on(
        &self,
        memory: &Memory<P, B>,
        request: &AreaRequest,
        addr: usize,
        record: u32,
        block: PackedFrame,
    ) -> Result<NonNull<u8>, MmError> {
        // SAFETY: the record is the caller's.
        let pages = unsafe {
            (*memory.area(record)).withdraw();
            (*memory.area(record)).pages
        };
        let mut build = self.resume(memory, addr, record, pages, AreaKind::Alloc);
        build.prot = request.prot;
        build.entries = request.entries;
        match block.result() {
            Ok(start) => build.map_blocks(PageRange { start: Pfn(start), count: pages })?,
            Err(error) => {
                let want = Build::<P, B>::smaller(memory, pages as usize, request.flags, error)?;
                build.fill(request.flags, want)?;
            }
        }
        build.publish()
    }

    /// An area of any size and alignment.
    #[inline(never)]
    fn build_any(&self, memory: &Memory<P, B>, request: &AreaRequest, pages: usize) -> Result<NonNull<u8>, MmError> {
        let layout = Layout::of(request.align, B::PAGE_SIZE);
        let large = pages >= B::LARGE_PAGES as usize && request.entries == Entries::Largest;
        let (addr, record) = if large || layout != Layout::Packed {
            self.take_room_for(memory, pages, layout)?
        } else {
            self.take_room(memory, pages, Layout::Packed)?
        };
        let mut area = Area::new(addr, request.size, pages as u32, AreaKind::Alloc, request.caller);
        area.uses = request.uses;
        Self::fill_record(memory, record, area);
        let mut build = self.resume(memory, addr, record, pages as u32, AreaKind::Alloc);
        build.prot = request.prot;
        build.entries = request.entries;
        build.tables.patience = request.patience;
        build.fill(request.flags, pages)?;
        build.publish()
    }
}

impl<P: Platform, B: PageTable> Build<'_, P, B> {
    /// From here on the area is there.
    #[inline(always)]
    pub(super) fn publish(&mut self) -> Result<NonNull<u8>, MmError> {
        if !self.guarded {
            self.map_first(self.addr, MapFrames::Each(&[]))?;
        }
        let held = self.family.tables.lock();
        // SAFETY: the record is live, and the lock that guards its state is held.
        unsafe { (*self.memory.area(self.record)).publish() };
        drop(held);
        self.record = NIL;
        Ok(area_pointer(self.addr))
    }
}

impl<P: Platform, B: PageTable> Drop for Build<'_, P, B> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.record != NIL {
            self.undo();
        }
    }
}

impl<P: Platform, B: PageTable> Build<'_, P, B> {
    /// Takes back what was done: the mapping as if the area were freed, then the rest.
    #[cold]
    #[inline(never)]
    fn undo(&mut self) {
        let pending = core::mem::replace(&mut self.pending, NO_BLOCKS);
        Self::give_blocks(self.memory, pending, 0);
        let guards = u32::from(self.guarded);
        self.family.tear_down(self.memory, self.record, self.kind, self.mapped, guards).flush();
    }
}
