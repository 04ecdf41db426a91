//! The vmalloc family without an MMU: contiguous pages.
//!
//! An area is one block of exactly its pages. The record of its first frame names the area's record, so `vfree` finds
//! it in constant time. Where an area asks for guards its block has a page more on each side, under regions of an MPU
//! or PMP. An ioremap is the physical address itself, with a record so that it is checked and listed.

use crate::guard::{Covers, GUARD, Guarded, RegionGuard, Regions};
use core::marker::PhantomData;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use mm_core::vmalloc::{Area, AreaFamily, AreaRequest, AreaTally, AreaUses, CopyWay, Cursor, Ioremaps, Withdrawn};
use mm_core::{
    AllocError, AreaHit, AreaInfo, AreaKind, CacheMode, FrameKind, FreeError, Gfp, Guard, Locked, Memory, MmError, NIL,
    Pfn, PhysAddr, Place, Platform, Prot, RamMap, VirtRange,
};

/// What one lock guards: the states of records too.
pub(crate) struct Listed<G: RegionGuard> {
    pub(crate) ioremaps: Ioremaps,
    pub(crate) regions: Regions<G>,
}

/// The record of the mapping that begins at an address, if there is one.
pub(crate) type FindMapping<P, B> = fn(&Contiguous<P, B>, &Memory<P, B>, usize) -> Option<u32>;

/// The family over contiguous pages.
pub struct Contiguous<P: Platform, B: Guarded> {
    listed: Locked<P::Lock, Listed<B::Regions>>,
    /// How mappings are found, null before there was one: a program that maps nothing has none of it.
    finds: AtomicPtr<FindMapping<P, B>>,
    backend: PhantomData<fn() -> B>,
}

impl<P: Platform, B: Guarded> Contiguous<P, B> {
    /// The lock, for the rest of the calling function.
    pub(crate) fn locked(&self) -> Guard<'_, P::Lock, Listed<B::Regions>> {
        // SAFETY: no function of this family takes it twice or calls another that does while it holds it, and each
        // drops it before it returns.
        unsafe { self.listed.acquire() }
    }

    /// The record of the area that begins at `addr` with a block of its own, live or not. The lock is held where areas
    /// can have guards.
    #[inline(always)]
    pub(crate) fn block_record(&self, memory: &Memory<P, B>, addr: usize) -> Option<u32> {
        let pfn = memory.backend().direct_frame(addr);
        let of_block = |pfn| {
            let (_, id) = memory.block_at(pfn, FrameKind::Mapped)?;
            (id != NIL && addr & (B::PAGE_SIZE - 1) == 0).then_some(id)
        };
        if !B::HAS_REGIONS {
            return of_block(pfn);
        }
        // SAFETY: the first frame of an area names a live record, and the lock is held.
        let begins = |id: &u32| unsafe { (*memory.area(*id)).addr == addr };
        of_block(pfn).filter(begins).or_else(|| of_block(pfn.checked_sub(GUARD)?).filter(begins))
    }

    /// Takes an area's block, waiting if the request may.
    #[inline(always)]
    pub(crate) fn take(
        &self,
        memory: &Memory<P, B>,
        request: &AreaRequest,
        pages: usize,
        id: u32,
    ) -> Result<Pfn, AllocError> {
        let flags = request.flags.difference(Gfp::HIGHMEM);
        let taken = if request.uses.stays() {
            memory.take_block_high(pages, flags, FrameKind::Mapped, id)
        } else {
            memory.take_block(pages, flags, FrameKind::Mapped, id)
        };
        match taken {
            Err(_) if P::CAN_WAIT && request.patience.is_some() => {
                memory.take_block_until(pages, flags, FrameKind::Mapped, id, request.patience)
            }
            taken => taken,
        }
    }

    const FIND_MAPPING: &'static FindMapping<P, B> = &(Self::find_mapping as FindMapping<P, B>);

    fn find_mapping(&self, memory: &Memory<P, B>, addr: usize) -> Option<u32> {
        self.locked().ioremaps.find(memory, addr as u64)
    }

    /// The record of the mapping, of any kind, that begins at `addr`.
    pub(crate) fn mapping_at(&self, memory: &Memory<P, B>, addr: usize) -> Option<u32> {
        // SAFETY: null, or `FIND_MAPPING`.
        let find = unsafe { self.finds.load(Relaxed).as_ref() };
        find.and_then(|find| find(self, memory, addr))
    }

    /// Publishes an area that is no block of its own.
    fn list(&self, memory: &Memory<P, B>, mut area: Area) -> Result<(), MmError> {
        self.finds.store(core::ptr::from_ref(Self::FIND_MAPPING).cast_mut(), Relaxed);
        area.publish();
        let id = memory.area_take()?;
        // SAFETY: the record is ours.
        unsafe { memory.area(id).write(area) };
        // SAFETY: the record is live, and `withdraw` removes it before it is given back.
        if let Err(error) = unsafe { self.locked().ioremaps.add(memory, id) } {
            memory.area_give(id);
            return Err(error);
        }
        Ok(())
    }

    /// The first live area that begins at or behind frame `first`.
    fn next_area(&self, memory: &Memory<P, B>, first: usize) -> Option<AreaInfo> {
        // Its block may begin before, with a guard.
        let mut from = if B::HAS_REGIONS { first.saturating_sub(GUARD) } else { first };
        loop {
            let (pfn, id) = memory.next_block(from, FrameKind::Mapped)?;
            let lock = self.locked();
            // The block may have gone since it was seen; while it is there its record is live memory.
            let there = memory.block_at(pfn.0 as usize, FrameKind::Mapped).is_some_and(|(_, link)| link == id);
            // One that names no record is damaged, which the scan tells.
            if there && memory.is_area(id) {
                // SAFETY: as just said, and the lock guards its state.
                let area = unsafe { &*memory.area(id) };
                if area.is_live() && (!B::HAS_REGIONS || memory.backend().direct_frame(area.addr) >= first) {
                    return Some(area.info());
                }
            }
            drop(lock);
            from = pfn.0 as usize + 1;
        }
    }
}

/// True for a mapping that `vunmap` takes back.
fn is_long(area: &Area) -> bool {
    area.kind == AreaKind::Map && !area.uses.contains(AreaUses::RAM)
}

/// True for one of `vm_map_ram`.
fn is_short(area: &Area) -> bool {
    area.kind == AreaKind::Map && area.uses.contains(AreaUses::RAM)
}

// SAFETY: an area is one block of its own, and its record is used under the lock between being published and withdrawn.
unsafe impl<P: Platform, B: Guarded> AreaFamily<P, B> for Contiguous<P, B> {
    const NEW: Self = Contiguous {
        listed: Locked::new(Listed { ioremaps: Ioremaps::new(), regions: Regions::NEW }),
        finds: AtomicPtr::new(core::ptr::null_mut()),
        backend: PhantomData,
    };
    const FREES_ANYWHERE: bool = true;

    fn init<const N: usize>(
        &self,
        _memory: &Memory<P, B>,
        _ram: &mut RamMap<N>,
        window: VirtRange,
    ) -> Result<(), MmError> {
        // There is no address space to hand out; a window means the board was written for another backend.
        if window.is_empty() { Ok(()) } else { Err(MmError::Inval) }
    }

    #[cfg_attr(not(feature = "small"), inline(never))]
    #[cfg_attr(feature = "small", inline(always))]
    fn vmalloc(&self, memory: &Memory<P, B>, request: &AreaRequest) -> Result<NonNull<u8>, AllocError> {
        let pages = request.size.div_ceil(B::PAGE_SIZE);
        // Blocks are aligned to the power of two that holds them, or at the high end to the largest that divides their
        // pages, so a longer one is aligned to more; its tail goes back.
        let align = request.align >> B::PAGE_SHIFT;
        let block = if request.uses.stays() { pages.next_multiple_of(align.max(1)) } else { pages.max(align) };
        let guarded = request.uses.contains(AreaUses::GUARDED);
        if guarded && !B::HAS_REGIONS {
            return Err(AllocError::NoGuard);
        }
        let id = memory.area_take()?;
        let mut area = Area::new(0, request.size, pages as u32, AreaKind::Alloc, request.caller);
        area.uses = request.uses;
        // SAFETY: the record is ours. It gets no node: this area is listed by its block, not among the ioremaps.
        unsafe { Area::fill(memory.area(id), area) };
        if guarded {
            return self.vmalloc_guarded(memory, request, pages, id).inspect_err(|_| memory.area_give(id));
        }
        let taken = match self.take(memory, request, block, id) {
            // The tail of a block that was aligned to more than its length goes back.
            Ok(pfn) if block > pages => memory.trim_block(pfn, FrameKind::Mapped, pages),
            taken => taken,
        };
        match taken {
            Ok(pfn) => {
                let ptr = memory.frame_ptr(pfn);
                let lock = self.locked();
                // SAFETY: the record is ours until it is published, and the lock guards its state.
                let area = unsafe { &mut *memory.area(id) };
                area.addr = ptr.addr();
                area.publish();
                drop(lock);
                NonNull::new(ptr).ok_or(AllocError::NoMemory)
            }
            Err(error) => {
                memory.area_give(id);
                Err(error)
            }
        }
    }

    #[inline]
    fn vfree(&self, memory: &Memory<P, B>, addr: usize, kind: AreaKind) -> Result<(), FreeError> {
        if kind == AreaKind::Alloc {
            return self.free_own(memory, addr);
        }
        let area = self.withdraw(memory, addr, kind)?;
        self.release(memory, area.record);
        Ok(())
    }

    #[inline(never)]
    fn withdraw(&self, memory: &Memory<P, B>, addr: usize, kind: AreaKind) -> Result<Withdrawn, FreeError> {
        let mut lock = self.locked();
        let id = match kind {
            AreaKind::Alloc => self.block_record(memory, addr),
            // What was mapped for a short time goes back by its own call, and may begin where another mapping does.
            AreaKind::Map => lock.ioremaps.find_which(memory, addr as u64, is_long),
            AreaKind::Ioremap => lock.ioremaps.find_which(memory, addr as u64, |area| area.kind == kind),
        };
        let Some(id) = id else {
            drop(lock);
            return Err(self.refusal_of(memory, addr, kind));
        };
        // SAFETY: the first frame of an area, and the list of ioremaps, name live records.
        let area = unsafe { self.hide(memory, &mut lock, id) }?;
        area.next = NIL;
        let pages = area.pages;
        if kind != AreaKind::Alloc {
            // SAFETY: found in it, under the lock that is still held.
            unsafe { lock.ioremaps.remove(memory, id) };
        }
        Ok(Withdrawn { record: id, pages })
    }

    fn release(&self, memory: &Memory<P, B>, first: u32) {
        let mut id = first;
        while id != NIL {
            // SAFETY: a hidden area's record is its freer's.
            let (addr, kind, next, guard) = unsafe {
                let area = &*memory.area(id);
                (area.addr, area.kind, area.next, Self::guard_pages(area))
            };
            if kind == AreaKind::Alloc {
                if B::HAS_REGIONS {
                    // SAFETY: what has a region that cannot be cleared was not withdrawn.
                    unsafe { Self::clear_regions(memory, &mut self.locked(), id) };
                }
                self.give_block(memory, addr, guard);
            }
            memory.area_give(id);
            id = next;
        }
    }

    fn vmap(
        &self,
        memory: &Memory<P, B>,
        frames: &[Pfn],
        _prot: Prot,
        uses: AreaUses,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, MmError> {
        let neighbours = frames.windows(2).all(|two| two[0].0.wrapping_add(1) == two[1].0);
        let (Some(&first), true) = (frames.first(), neighbours) else { return Err(MmError::Unsupported) };
        let ptr = memory.frame_ptr(first);
        let size = frames.len() << B::PAGE_SHIFT;
        let mut area = Area::new(ptr.addr(), size, frames.len() as u32, AreaKind::Map, caller);
        area.phys = ptr.addr() as u64;
        area.uses = uses;
        self.list(memory, area)?;
        NonNull::new(ptr).ok_or(MmError::Unsupported)
    }

    fn unmap_ram(&self, memory: &Memory<P, B>, addr: usize, count: usize) -> Option<Result<(), FreeError>> {
        let mut lock = self.locked();
        lock.ioremaps.find_which(memory, addr as u64, is_short)?;
        // Several may begin here, each of other pages.
        let wanted = |area: &Area| is_short(area) && area.pages as usize == count;
        let Some(id) = lock.ioremaps.find_which(memory, addr as u64, wanted) else {
            return Some(Err(FreeError::WrongOrder));
        };
        // SAFETY: found in it, under the lock that is still held.
        unsafe { lock.ioremaps.remove(memory, id) };
        drop(lock);
        memory.area_give(id);
        Some(Ok(()))
    }

    fn area_at(&self, memory: &Memory<P, B>, addr: usize) -> Option<(AreaInfo, AreaUses)> {
        let lock = self.locked();
        let kinds: [fn(&Area) -> bool; 3] = [is_long, is_short, |area| area.kind == AreaKind::Ioremap];
        let listed = || kinds.iter().find_map(|kind| lock.ioremaps.find_which(memory, addr as u64, kind));
        let id = self.block_record(memory, addr).or_else(listed)?;
        // SAFETY: as in `withdraw`.
        let area = unsafe { &*memory.area(id) };
        area.is_live().then(|| (area.info(), area.uses))
    }

    fn set_size(&self, memory: &Memory<P, B>, addr: usize, size: usize) -> bool {
        let _lock = self.locked();
        let Some(id) = self.block_record(memory, addr) else { return false };
        // SAFETY: as in `withdraw`.
        let area = unsafe { &mut *memory.area(id) };
        let fits = area.is_live() && size.div_ceil(B::PAGE_SIZE) == area.pages as usize;
        if fits {
            area.size = size;
        }
        fits
    }

    unsafe fn copy(&self, memory: &Memory<P, B>, addr: usize, buffer: *mut u8, bytes: usize, way: CopyWay) -> bool {
        let mut lock = self.locked();
        let pfn = memory.backend().direct_frame(addr);
        if memory.frame_is_free(pfn) {
            return false;
        }
        let mut lift = None;
        if B::HAS_REGIONS
            && let Some((_, _, id)) = memory.find_block(pfn, FrameKind::Mapped)
        {
            // SAFETY: the first frame of an area names a live record, and the lock is held.
            let area = unsafe { &*memory.area(id) };
            if Self::place(area, addr) != Place::Inside {
                return false;
            }
            let slot = lock.regions.find(memory.backend().regions(), id, Covers::Whole);
            lift = slot.filter(|_| way == CopyWay::Write).map(|slot| (slot, Covers::Whole.of(area, B::PAGE_SIZE)));
        }
        let frame = memory.frame_ptr(Pfn(pfn as u32)).wrapping_add(addr & (B::PAGE_SIZE - 1));
        // SAFETY: RAM of this manager that is in use; the bytes lie in its page, and the buffer is good for them.
        let copy = || unsafe {
            match way {
                CopyWay::Read => buffer.copy_from_nonoverlapping(frame, bytes),
                CopyWay::Write => frame.copy_from_nonoverlapping(buffer, bytes),
            }
        };
        match lift {
            // SAFETY: the region was set for the area's owner, by a guard that can clear.
            Some((slot, range)) => unsafe { lock.regions.lifted(memory.backend().regions(), slot, range, copy) },
            None => copy(),
        }
        true
    }

    fn reserve_tables(&self, _memory: &Memory<P, B>, _tables: usize) -> Result<(), AllocError> {
        // There are none.
        Ok(())
    }

    fn ioremap(
        &self,
        memory: &Memory<P, B>,
        phys: PhysAddr,
        size: usize,
        cache: CacheMode,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, MmError> {
        let addr = usize::try_from(phys.0).map_err(|_| MmError::BadRange)?;
        // On a machine there is a device behind the address. Under Miri there is none, and nothing is read.
        let start = if cfg!(miri) {
            core::ptr::without_provenance_mut(addr)
        } else {
            core::ptr::with_exposed_provenance_mut(addr)
        };
        let start = NonNull::new(start).ok_or(MmError::Inval)?;
        let offset = addr & (B::PAGE_SIZE - 1);
        let pages = size.checked_add(offset).ok_or(MmError::BadRange)?.div_ceil(B::PAGE_SIZE);
        let mut area = Area::new(addr, size, pages as u32, AreaKind::Ioremap, caller);
        area.phys = phys.0;
        area.cache = cache;
        self.list(memory, area)?;
        Ok(start)
    }

    fn clears_guards(&self, memory: &Memory<P, B>) -> bool {
        !B::HAS_REGIONS || memory.backend().regions().clears()
    }

    fn protect(&self, memory: &Memory<P, B>, addr: usize, pages: usize, prot: Prot) -> Result<(), MmError> {
        if B::HAS_REGIONS { self.protect_whole(memory, addr, pages, prot) } else { Err(MmError::Unsupported) }
    }

    fn to_page(&self, memory: &Memory<P, B>, addr: usize) -> Option<Pfn> {
        let pfn = memory.backend().direct_frame(addr);
        if B::HAS_REGIONS {
            return self
                .around(memory, pfn)
                .filter(|area| Self::place(area, addr) == Place::Inside)
                .map(|_| Pfn(pfn as u32));
        }
        memory.find_block(pfn, FrameKind::Mapped).map(|_| Pfn(pfn as u32))
    }

    fn contains(&self, memory: &Memory<P, B>, addr: usize) -> bool {
        if !B::HAS_REGIONS {
            return memory.is_in_block(memory.backend().direct_frame(addr), FrameKind::Mapped);
        }
        self.to_page(memory, addr).is_some()
    }

    fn find(&self, memory: &Memory<P, B>, addr: usize) -> Option<AreaHit> {
        let area = self.around(memory, memory.backend().direct_frame(addr))?;
        Some(AreaHit { addr, place: Self::place(area, addr), area: area.info(), behind: None })
    }

    fn next(&self, memory: &Memory<P, B>, cursor: &mut Cursor) -> Option<AreaInfo> {
        let list = self.locked();
        let mut behind = *cursor;
        // SAFETY: listed records are live, and the lock is held.
        let ioremap = list.ioremaps.advance(memory, &mut behind).map(|id| unsafe { &*memory.area(id) }.info());
        drop(list);
        let Ok(from) = usize::try_from(cursor.start()) else { return ioremap };
        let area_from = |pfn| self.next_area(memory, pfn);
        // Only an address behind an area surely is one that has a frame number: an arena's RAM can lie above it.
        let area = match area_from(0) {
            Some(first) if first.addr < from => from
                .checked_next_multiple_of(B::PAGE_SIZE)
                .and_then(|from| area_from(memory.backend().direct_frame(from))),
            first => first,
        };
        match (area, ioremap) {
            (Some(area), ioremap) if ioremap.is_none_or(|ioremap| area.addr < ioremap.addr) => {
                *cursor = Cursor::at(area.addr as u64 + 1);
                Some(area)
            }
            (_, ioremap) => {
                *cursor = behind;
                ioremap
            }
        }
    }

    fn drain(&self, _memory: &Memory<P, B>) {}

    fn check(&self, memory: &Memory<P, B>, hidden: u32) -> Result<AreaTally, (&'static str, usize)> {
        self.locked().ioremaps.check(memory)?;
        let mut tally = AreaTally::default();
        let mut id = hidden;
        while id != NIL {
            // SAFETY: the list is of hidden areas, whose records are live; nothing else runs.
            let area = unsafe { &*memory.area(id) };
            tally.records += 1;
            let block = area.pages as usize + 2 * Self::guard_pages(area);
            tally.frames += if area.kind == AreaKind::Alloc { block } else { 0 };
            id = area.next;
        }
        let mut cursor = Cursor::at(0);
        while let Some(area) = self.next(memory, &mut cursor) {
            tally.areas += 1;
            if area.kind == AreaKind::Alloc {
                let pfn = memory.backend().direct_frame(area.addr);
                let block = memory.find_block(pfn, FrameKind::Mapped);
                // SAFETY: the first frame of an area names a live record, and nothing else runs.
                let guard = block.map_or(0, |(_, _, id)| Self::guard_pages(unsafe { &*memory.area(id) }));
                match block {
                    Some((head, pages, _))
                        if head.0 as usize + guard == pfn && pages == area.pages as usize + 2 * guard =>
                    {
                        tally.frames += pages;
                    }
                    _ => return Err(("an area is not the block it names", area.addr)),
                }
            }
        }
        Ok(tally)
    }
}
