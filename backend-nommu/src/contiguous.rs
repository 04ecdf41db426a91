//! The vmalloc family without an MMU: contiguous pages.
//!
//! An area is one block of exactly its pages. The record of its first frame names the area's record, so `vfree` finds
//! it in constant time. An ioremap is the physical address itself, with a record so that it is checked and listed.

use core::marker::PhantomData;
use core::panic::Location;
use core::ptr::NonNull;
use mm_core::vmalloc::{Area, AreaFamily, AreaRequest, AreaTally, Cursor, Ioremaps};
use mm_core::{
    AllocError, AreaHit, AreaInfo, AreaKind, Backend, CacheMode, FrameKind, FreeError, Gfp, Guard, Locked, Memory,
    MmError, NIL, Pfn, PhysAddr, Place, Platform, Prot, RamMap, VirtRange,
};

/// The family over contiguous pages.
pub struct Contiguous<P: Platform, B: Backend> {
    /// Guards the states of records too.
    ioremaps: Locked<P::Lock, Ioremaps>,
    backend: PhantomData<fn() -> B>,
}

impl<P: Platform, B: Backend> Contiguous<P, B> {
    /// The lock, for the rest of the calling function.
    fn locked(&self) -> Guard<'_, P::Lock, Ioremaps> {
        // SAFETY: no function of this file takes it twice or calls another that does while it holds it, and each drops
        // it before it returns.
        unsafe { self.ioremaps.acquire() }
    }

    /// Why `addr`, which is not the first byte of a live area, is refused.
    #[cold]
    fn refusal(&self, memory: &Memory<P, B>, addr: usize) -> FreeError {
        if memory.find_block(memory.backend().direct_frame(addr), FrameKind::Mapped).is_some() {
            let misaligned = addr & (B::PAGE_SIZE - 1) != 0;
            return if misaligned { FreeError::Misaligned } else { FreeError::Interior };
        }
        if self.locked().find(memory, addr as u64).is_some() {
            return FreeError::WrongAllocator;
        }
        match memory.refusal(addr) {
            // Inside a block of another call's.
            FreeError::Interior => FreeError::WrongAllocator,
            error => error,
        }
    }

    /// The first live area at or behind frame `from`.
    fn next_area(&self, memory: &Memory<P, B>, mut from: usize) -> Option<AreaInfo> {
        loop {
            let (pfn, id) = memory.next_block(from, FrameKind::Mapped)?;
            let lock = self.locked();
            // The block may have gone since it was seen; while it is there its record is live memory.
            if memory.block_at(pfn.0 as usize, FrameKind::Mapped).is_some_and(|(_, link)| link == id) {
                // SAFETY: as just said, and the lock guards its state.
                let area = unsafe { &*memory.area(id) };
                if area.is_live() {
                    return Some(area.info());
                }
            }
            drop(lock);
            from = pfn.0 as usize + 1;
        }
    }
}

// SAFETY: an area is one block of its own, and its record is used under the lock between being published and withdrawn.
unsafe impl<P: Platform, B: Backend> AreaFamily<P, B> for Contiguous<P, B> {
    const NEW: Self = Contiguous { ioremaps: Locked::new(Ioremaps::new()), backend: PhantomData };

    fn init<const N: usize>(
        &self,
        _memory: &Memory<P, B>,
        _ram: &mut RamMap<N>,
        window: VirtRange,
    ) -> Result<(), MmError> {
        // There is no address space to hand out; a window means the board was written for another backend.
        if window.is_empty() { Ok(()) } else { Err(MmError::Inval) }
    }

    #[inline(never)]
    fn vmalloc(&self, memory: &Memory<P, B>, request: &AreaRequest) -> Result<NonNull<u8>, AllocError> {
        let pages = request.size.div_ceil(B::PAGE_SIZE);
        let id = memory.area_take()?;
        // SAFETY: the record is ours.
        unsafe { memory.area(id).write(Area::new(0, request.size, pages as u32, AreaKind::Alloc, request.caller)) };
        let flags = request.flags.difference(Gfp::HIGHMEM);
        let block = match memory.take_block(pages, flags, FrameKind::Mapped, id) {
            Err(_) if P::CAN_WAIT && request.until.is_some() => {
                memory.take_block_until(pages, flags, FrameKind::Mapped, id, request.until)
            }
            block => block,
        };
        match block {
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

    #[inline(never)]
    fn vfree(&self, memory: &Memory<P, B>, addr: usize) -> Result<(), FreeError> {
        let pfn = memory.backend().direct_frame(addr);
        let lock = self.locked();
        let id = match memory.block_at(pfn, FrameKind::Mapped) {
            Some((_, id)) if id != NIL && addr & (B::PAGE_SIZE - 1) == 0 => id,
            _ => {
                drop(lock);
                return Err(self.refusal(memory, addr));
            }
        };
        // SAFETY: the first frame of an area names its record, which is live while the block is, under the lock.
        let area = unsafe { &mut *memory.area(id) };
        if !area.is_live() {
            return Err(FreeError::DoubleFree);
        }
        area.withdraw();
        // From here on it is nobody's but ours; behind the lock, because the free may wake who waits for it.
        drop(lock);
        memory.free_block(pfn, FrameKind::Mapped, None)?;
        memory.area_give(id);
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
        area.publish();
        let id = memory.area_take()?;
        // SAFETY: the record is ours.
        unsafe { memory.area(id).write(area) };
        // SAFETY: the record is live, and `iounmap` removes it before it gives it back.
        if let Err(error) = unsafe { self.locked().add(memory, id) } {
            memory.area_give(id);
            return Err(error);
        }
        Ok(start)
    }

    fn iounmap(&self, memory: &Memory<P, B>, addr: usize) -> Result<(), FreeError> {
        let mut ioremaps = self.locked();
        let Some(id) = ioremaps.find(memory, addr as u64) else {
            drop(ioremaps);
            return Err(match memory.refusal_of_area(addr) {
                // Not RAM either: nothing is mapped there, or no more.
                FreeError::Foreign => FreeError::DoubleFree,
                error => error,
            });
        };
        // SAFETY: found in it, under the lock that is still held.
        unsafe { ioremaps.remove(memory, id) };
        drop(ioremaps);
        memory.area_give(id);
        Ok(())
    }

    fn protect(&self, _memory: &Memory<P, B>, _addr: usize, _prot: Prot) -> Result<(), MmError> {
        Err(MmError::Unsupported)
    }

    fn to_page(&self, memory: &Memory<P, B>, addr: usize) -> Option<Pfn> {
        let pfn = memory.backend().direct_frame(addr);
        memory.find_block(pfn, FrameKind::Mapped).map(|_| Pfn(pfn as u32))
    }

    fn contains(&self, memory: &Memory<P, B>, addr: usize) -> bool {
        self.to_page(memory, addr).is_some()
    }

    fn find(&self, memory: &Memory<P, B>, addr: usize) -> Option<AreaHit> {
        let (_, _, id) = memory.find_block(memory.backend().direct_frame(addr), FrameKind::Mapped)?;
        // SAFETY: the first frame of a live area names its record.
        let area = unsafe { &*memory.area(id) }.info();
        Some(AreaHit { addr, place: Place::Inside, area, behind: None })
    }

    fn next(&self, memory: &Memory<P, B>, cursor: &mut Cursor) -> Option<AreaInfo> {
        let list = self.locked();
        let mut behind = *cursor;
        // SAFETY: listed records are live, and the lock is held.
        let ioremap = list.advance(memory, &mut behind).map(|id| unsafe { &*memory.area(id) }.info());
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

    fn check(&self, memory: &Memory<P, B>) -> Result<AreaTally, (&'static str, usize)> {
        self.locked().check(memory)?;
        let mut tally = AreaTally::default();
        let mut cursor = Cursor::at(0);
        while let Some(area) = self.next(memory, &mut cursor) {
            tally.areas += 1;
            if area.kind == AreaKind::Alloc {
                let pfn = memory.backend().direct_frame(area.addr);
                match memory.find_block(pfn, FrameKind::Mapped) {
                    Some((head, pages, _)) if head.0 as usize == pfn && pages == area.pages as usize => {
                        tally.frames += pages;
                    }
                    _ => return Err(("an area is not the block it names", area.addr)),
                }
            }
        }
        Ok(tally)
    }
}
