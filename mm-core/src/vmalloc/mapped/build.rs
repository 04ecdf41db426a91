//! Making an area: address space, record, frames, entries and guard; visible when all of it is there.

use super::layout::{Layout, pages_left};
use super::lowest::look_first;
use super::{BATCH, Lowest, Mapped, area_pointer};
use crate::addr::{PageRange, Pfn, PhysAddr, VirtAddr};
use crate::backend::{MapFrames, PageTable};
use crate::error::{AllocError, MmError};
use crate::fault::FaultClass;
use crate::frame::{FrameKind, Head};
use crate::gfp::Gfp;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use crate::prot::{CacheMode, Prot};
use crate::vmalloc::area::{Area, AreaKind, AreaUses};
use crate::vmalloc::unflushed::{Retired, SINGLES, Tables};
use crate::vmalloc::{AreaRequest, Entries};
use core::panic::Location;
use core::ptr::NonNull;

/// The flags for a block of several pages, without which smaller ones do: nobody waits for it or is told of it.
#[inline(always)]
fn quiet(flags: Gfp) -> Gfp {
    flags.difference(Gfp::WAIT) | Gfp::NOWARN
}

/// A block of several pages for a small area.
#[inline(never)]
fn take_several<P: Platform, B: PageTable>(
    memory: &Memory<P, B>,
    pages: usize,
    flags: Gfp,
    record: u32,
) -> Result<Pfn, AllocError> {
    memory.take_block_now(pages, quiet(flags), FrameKind::Mapped, record)
}

/// An area under construction. Dropping it undoes what was done.
struct Build<'a, P: Platform, B: PageTable> {
    memory: &'a Memory<P, B>,
    family: &'a Mapped<P, B>,
    tables: Tables<'a, P, B>,
    record: u32,
    kind: AreaKind,
    prot: Prot,
    cache: CacheMode,
    entries: Entries,
    /// The guard is written.
    guarded: bool,
    /// First page of the area, how many it will have, and how many are mapped so far.
    addr: usize,
    pages: u32,
    mapped: u32,
}

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// Address space and a record for an area of `pages`.
    #[inline(always)]
    fn begin<'a>(
        &'a self,
        memory: &'a Memory<P, B>,
        size: usize,
        pages: usize,
        kind: AreaKind,
        layout: Layout,
        caller: &'static Location<'static>,
    ) -> Result<Build<'a, P, B>, AllocError> {
        let (addr, record) = self.take_room(memory, pages, layout)?;
        Self::fill_record(memory, record, Area::new(addr, size, pages as u32, kind, caller));
        Ok(self.resume(memory, addr, record, pages as u32, kind))
    }

    /// An area that has address space and a record, and nothing else yet.
    #[inline(always)]
    fn resume<'a>(
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
        }
    }

    /// [`begin`](Self::begin) for an area of at least one large entry: where those fit, when there is room.
    #[cold]
    #[inline(never)]
    fn begin_large<'a>(
        &'a self,
        memory: &'a Memory<P, B>,
        size: usize,
        pages: usize,
        kind: AreaKind,
        caller: &'static Location<'static>,
    ) -> Result<Build<'a, P, B>, AllocError> {
        let large = Layout::of(B::LARGE_PAGES as usize * B::PAGE_SIZE, B::PAGE_SIZE);
        match self.begin(memory, size, pages, kind, large, caller) {
            Err(AllocError::NoAddressSpace) => self.begin(memory, size, pages, kind, Layout::Packed, caller),
            result => result,
        }
    }

    /// The common case written out: one block, one batch of entries, in a table that is there.
    #[inline(always)]
    pub(super) fn build_alloc(&self, memory: &Memory<P, B>, request: &AreaRequest) -> Result<NonNull<u8>, MmError> {
        let pages = request.size.div_ceil(B::PAGE_SIZE);
        if pages >= BATCH as usize || request.align > B::PAGE_SIZE || request.patience.is_some() {
            return self.build_any(memory, request, pages);
        }
        let (addr, record) = self.take_room(memory, pages, Layout::Packed)?;
        let mut area = Area::new(addr, request.size, pages as u32, AreaKind::Alloc, request.caller);
        // Nobody finds it before its guard is there.
        area.publish();
        area.uses = request.uses;
        Self::fill_record(memory, record, area);
        let block = match memory.fault_point(FaultClass::Page) {
            Ok(()) if pages == 1 => memory.take_frame_now(request.flags, FrameKind::Mapped, record),
            Ok(()) => take_several(memory, pages, request.flags, record),
            Err(error) => Err(error),
        };
        let block = match block {
            Ok(block) => block,
            Err(error) => return self.build_on(memory, request, addr, record, Err(error)),
        };
        let mut held = self.tables.lock();
        // The guard of an area that is packed lies in its table: the unit they begin is not cut by one.
        let mapped = held.lowest(memory, addr).map_or(0, |Lowest { leaf, frame }| {
            let run = MapFrames::Run(PageRange { start: block, count: pages as u32 });
            let (guard, cache) = (Some(record), CacheMode::WriteBack);
            let mut counts = Retired::of(memory, frame);
            let at = VirtAddr(addr);
            // SAFETY: the lock is held, the table was found for `at`, the range and the frames are this area's.
            unsafe { memory.backend.leaf_map(leaf, at, guard, run, request.prot, cache, &mut counts, &mut || ()) }
        });
        drop(held);
        if mapped == 0 {
            return self.build_on(memory, request, addr, record, Ok(block));
        }
        Ok(area_pointer(addr))
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
        block: Result<Pfn, AllocError>,
    ) -> Result<NonNull<u8>, MmError> {
        // SAFETY: the record is the caller's.
        let pages = unsafe {
            (*memory.area(record)).withdraw();
            (*memory.area(record)).pages
        };
        let mut build = self.resume(memory, addr, record, pages, AreaKind::Alloc);
        build.prot = request.prot;
        build.entries = request.entries;
        match block {
            Ok(block) => build.map_block(block, pages)?,
            Err(error) => {
                let want = Build::<P, B>::smaller(pages as usize, error)?;
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
        let mut build = if large && layout == Layout::Packed {
            self.begin_large(memory, request.size, pages, AreaKind::Alloc, request.caller)?
        } else {
            self.begin(memory, request.size, pages, AreaKind::Alloc, layout, request.caller)?
        };
        // SAFETY: the record is ours until it is published.
        unsafe { (*memory.area(build.record)).uses = request.uses };
        build.prot = request.prot;
        build.entries = request.entries;
        build.tables.patience = request.patience;
        build.fill(request.flags, pages)?;
        build.publish()
    }

    pub(super) fn build_map(
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
        let mut build = self.begin(memory, pages << B::PAGE_SHIFT, pages, AreaKind::Map, Layout::Packed, caller)?;
        // SAFETY: the record is ours until it is published.
        unsafe { (*memory.area(build.record)).uses = uses };
        build.prot = prot;
        let mut done = 0;
        while done < pages {
            done += build.map_table(MapFrames::Each(&frames[done..]))? as usize;
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
        let run = PageRange { start: pfn, count: pages as u32 };
        if !memory.backend.can_address(run) {
            return Err(MmError::BadRange);
        }
        if pages >= self.window_pages() {
            return Err(AllocError::NoAddressSpace.into());
        }
        let large = pages >= B::LARGE_PAGES as usize && pfn.0.is_multiple_of(B::LARGE_PAGES);
        let mut build = if large {
            self.begin_large(memory, size, pages, AreaKind::Ioremap, caller)?
        } else {
            self.begin(memory, size, pages, AreaKind::Ioremap, Layout::Packed, caller)?
        };
        build.cache = cache;
        // SAFETY: the record is ours until it is published.
        let area = unsafe { &mut *memory.area(build.record) };
        area.phys = phys.0;
        area.cache = cache;
        // Before anything is mapped: even for a moment no page has two cache modes.
        // SAFETY: the record is live, and is removed before it is given back.
        unsafe { self.tables.lock().ioremaps.add(memory, build.record) }?;
        build.map_run(run)?;
        let start = build.publish()?;
        // Of the address only: what is mapped is no object of this program.
        Ok(start.map_addr(|addr| addr | offset))
    }
}

impl<P: Platform, B: PageTable> Build<'_, P, B> {
    /// Takes frames in the largest blocks on offer, of up to `first` pages, and maps them.
    #[inline(always)]
    fn fill(&mut self, flags: Gfp, first: usize) -> Result<(), MmError> {
        let memory = self.memory;
        let mut want = first.min(1 << B::MAX_ORDER);
        loop {
            if want == 1 && !memory.poisons() && self.fill_singles(flags)? {
                return Ok(());
            }
            memory.fault_point(FaultClass::Page)?;
            // A block that is not to be had is no failure yet: only of a single page is it told.
            let quiet = if want == 1 { flags } else { quiet(flags) };
            let block = match memory.take_block_now(want, quiet, FrameKind::Mapped, self.record) {
                Err(_) if want == 1 && self.tables.patience.is_some() => {
                    memory.take_block_until(1, flags, FrameKind::Mapped, self.record, self.tables.patience)
                }
                block => block,
            };
            match block {
                Ok(pfn) => self.map_block(pfn, want as u32)?,
                Err(error) => want = Self::smaller(want, error)?,
            }
            let left = (self.pages - self.mapped) as usize;
            if left == 0 {
                return Ok(());
            }
            want = want.min(left);
        }
    }

    /// Maps single frames as long as there are any at hand, a batch of entries at a time; true when the area has all.
    #[cold]
    #[inline(never)]
    fn fill_singles(&mut self, flags: Gfp) -> Result<bool, MmError> {
        let (memory, mark) = (self.memory, (Head::new(FrameKind::Mapped, 0, 1), self.record));
        let mut frames: heapless::Vec<Pfn, { BATCH as usize }> = heapless::Vec::new();
        loop {
            let want = ((self.pages - self.mapped) as usize).min(frames.capacity());
            let mut taken: Result<(), AllocError> = Ok(());
            while taken.is_ok() && frames.len() < want {
                let most = (want - frames.len()).min(SINGLES);
                // Each frame is a step that can fail.
                let steps = (0..most).take_while(|_| {
                    taken = memory.fault_point(FaultClass::Page);
                    taken.is_ok()
                });
                let found = memory.zones.take_each(&memory.frames, flags, mark, steps.count(), |pfn| {
                    let _ = frames.push(Pfn(pfn));
                });
                if found == 0 {
                    break;
                }
            }
            if flags.contains(Gfp::ZERO) {
                frames.iter().for_each(|&start| memory.zero(PageRange { start, count: 1 }));
            }
            let before = self.mapped;
            let mut mapped = taken.map_err(MmError::from);
            while mapped.is_ok() && ((self.mapped - before) as usize) < frames.len() {
                let done = (self.mapped - before) as usize;
                mapped = self.map_table(MapFrames::Each(&frames[done..])).map(|_| ());
            }
            if let Err(error) = mapped {
                // What is not mapped the undo would not find.
                for pfn in &frames[(self.mapped - before) as usize..] {
                    let _ = memory.free_block(pfn.0 as usize, FrameKind::Mapped, Some(1));
                }
                return Err(error);
            }
            if self.mapped == self.pages || frames.len() < want {
                return Ok(self.mapped == self.pages);
            }
            frames.clear();
        }
    }

    /// The next smaller power of two: what the buddy may still have.
    #[cold]
    fn smaller(want: usize, error: AllocError) -> Result<usize, AllocError> {
        if want == 1 {
            return Err(match error {
                AllocError::NoContig => AllocError::NoMemory,
                error => error,
            });
        }
        crate::trace::smaller_blocks(want);
        Ok(want.next_power_of_two() / 2)
    }

    /// Maps a block of frames behind what is mapped so far; on failure the block goes back too.
    #[inline(always)]
    fn map_block(&mut self, pfn: Pfn, pages: u32) -> Result<(), MmError> {
        let before = self.mapped;
        let result = self.map_run(PageRange { start: pfn, count: pages });
        if result.is_err() && self.mapped == before {
            // Nothing of it is mapped, so the undo would not find it.
            let _ = self.memory.free_block(pfn.0 as usize, FrameKind::Mapped, None);
        }
        result
    }

    /// Maps frames behind what is mapped so far, a batch at a time.
    #[inline(always)]
    fn map_run(&mut self, run: PageRange) -> Result<(), MmError> {
        let mut done = 0;
        while done < run.count {
            let rest = PageRange { start: Pfn(run.start.0 + done), count: run.count - done };
            done += match self.map_large(rest)? {
                0 => self.map_table(MapFrames::Run(rest))?,
                large => large,
            };
        }
        Ok(())
    }

    /// Maps large entries when the run and the address have the length and alignment; returns their pages, or 0.
    #[inline(always)]
    fn map_large(&mut self, run: PageRange) -> Result<u32, MmError> {
        if run.count < B::LARGE_PAGES || self.entries == Entries::Small {
            return Ok(0);
        }
        let at = VirtAddr(self.addr + self.mapped as usize * B::PAGE_SIZE);
        if (at.0 >> B::PAGE_SHIFT | run.start.0 as usize) & (B::LARGE_PAGES as usize - 1) != 0 {
            return Ok(0);
        }
        let (memory, prot, cache) = (self.memory, self.prot, self.cache);
        // As many as there are; the rest of the run is for small ones.
        let run = PageRange { start: run.start, count: run.count & !(B::LARGE_PAGES - 1) };
        let mapped = self.family.step(&mut self.tables, |tables| {
            // SAFETY: the lock of the tables is held, and the range and the frames are this area's.
            unsafe { memory.backend.map(memory.backend.kernel_root(), at, run, prot, cache, tables) }
        })?;
        self.mapped += mapped;
        Ok(mapped)
    }

    /// Maps as many frames as the table of its first page has entries for, batch by batch, with the guard when it is
    /// still missing. Returns how many pages were mapped.
    #[inline(never)]
    fn map_table(&mut self, frames: MapFrames<'_>) -> Result<u32, MmError> {
        let memory = self.memory;
        let at = self.addr + self.mapped as usize * B::PAGE_SIZE;
        let in_table = pages_left::<B>(at);
        let total = frames.count().min(in_table);
        let frames = frames.first(total);
        let guard = if self.guarded { None } else { Some(self.record) };
        // The first page of a table has its guard in the table before.
        if guard.is_some() && in_table == B::LARGE_PAGES {
            return self.map_first(at, frames);
        }
        let mut held = self.family.tables.lock();
        if !held.is_known(at) {
            look_first(memory, &mut held, at);
        }
        let Some(Lowest { leaf, frame }) = held.lowest(memory, at) else {
            drop(held);
            return self.map_first(at, frames);
        };
        let (at, counts) = (VirtAddr(at), &mut Retired::of(memory, frame));
        // SAFETY: the lock is held, the table was found for `at`, the range and the frames are this area's.
        let mapped = unsafe {
            memory.backend.leaf_map(leaf, at, guard, frames, self.prot, self.cache, counts, &mut || held.pause())
        };
        drop(held);
        self.guarded |= mapped != 0;
        self.mapped += mapped;
        if mapped == total { Ok(total) } else { Err(MmError::AlreadyMapped) }
    }

    /// [`map_table`](Self::map_table) where a table is missing: writes the guard, or maps the first batch of the run.
    #[cold]
    #[inline(never)]
    fn map_first(&mut self, at: usize, frames: MapFrames<'_>) -> Result<u32, MmError> {
        let (memory, record) = (self.memory, self.record);
        let root = memory.backend.kernel_root();
        if !self.guarded {
            let guard = VirtAddr(self.addr - B::PAGE_SIZE);
            self.family.step(&mut self.tables, |tables| {
                // SAFETY: the lock of the tables is held, and the guard's address is this area's.
                unsafe { memory.backend.set_guard(root, guard, record, tables) }
            })?;
            self.guarded = true;
            return Ok(0);
        }
        let (prot, cache) = (self.prot, self.cache);
        // Not a large entry, whatever the run is: that was decided before.
        let run = match frames.first(BATCH) {
            MapFrames::Run(run) => run,
            MapFrames::Each(frames) => PageRange { start: frames.first().copied().unwrap_or_default(), count: 1 },
        };
        let mapped = self.family.step(&mut self.tables, |tables| {
            // SAFETY: the lock of the tables is held, and the range and the frames are this area's.
            unsafe { memory.backend.map(root, VirtAddr(at), run, prot, cache, tables) }
        })?;
        self.mapped += mapped;
        Ok(mapped)
    }

    /// From here on the area is there.
    #[inline(always)]
    fn publish(mut self) -> Result<NonNull<u8>, MmError> {
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
        let guards = u32::from(self.guarded);
        self.family.tear_down(self.memory, self.record, self.kind, self.mapped, guards).flush();
    }
}
