//! Areas between guards, and areas under a region.

use super::{Allows, Clear, Covers, GUARD, Guarded, RegionGuard};
use crate::Contiguous;
use core::ptr::NonNull;
use mm_core::vmalloc::{Area, AreaRequest, AreaUses};
use mm_core::{AllocError, FaultClass, FrameKind, Memory, MmError, NIL, Pfn, Place, Platform, Prot};

impl<P: Platform, B: Guarded> Contiguous<P, B> {
    /// Pages of an area's block before its own: its guard's.
    pub(crate) fn guard_pages(area: &Area) -> usize {
        if B::HAS_REGIONS && area.uses.contains(AreaUses::GUARDED) { GUARD } else { 0 }
    }

    /// The live or hidden area whose block holds frame `pfn`, guards included.
    pub(crate) fn around(&self, memory: &Memory<P, B>, pfn: usize) -> Option<&Area> {
        let (_, _, id) = memory.find_block(pfn, FrameKind::Mapped)?;
        // SAFETY: the first frame of a live area names its record.
        (id != NIL).then(|| unsafe { &*memory.area(id) })
    }

    /// Whether the pages from `addr` on, at least one, are all the area's.
    fn holds(area: &Area, addr: usize, pages: usize) -> bool {
        let before = addr.wrapping_sub(area.addr) >> B::PAGE_SHIFT;
        addr >= area.addr && before < area.pages as usize && pages <= area.pages as usize - before
    }

    /// Where an address lies that is in the block of an area.
    pub(crate) fn place(area: &Area, addr: usize) -> Place {
        if addr < area.addr & !(B::PAGE_SIZE - 1) {
            Place::GuardBefore
        } else if addr - area.addr >= area.pages as usize * B::PAGE_SIZE {
            Place::GuardAfter
        } else {
            Place::Inside
        }
    }

    /// [`vmalloc`](AreaFamily::vmalloc) between guards: the regions first, since nothing is to be undone when they are
    /// used up. The record is filled, and is given back by the caller after an error.
    #[cold]
    #[inline(never)]
    pub(crate) fn vmalloc_guarded(
        &self,
        memory: &Memory<P, B>,
        request: &AreaRequest,
        pages: usize,
        id: u32,
    ) -> Result<NonNull<u8>, AllocError> {
        const PARTS: [(Covers, Allows); 2] = [(Covers::Before, Allows::Nothing), (Covers::After, Allows::Nothing)];
        memory.fault_point(FaultClass::Guard)?;
        let regions = memory.backend().regions();
        let lasts = regions.clears() || request.uses.contains(AreaUses::KEPT);
        if !lasts || !self.locked().regions.reserve(regions, id, &PARTS) {
            return Err(AllocError::NoGuard);
        }
        let align = (request.align >> B::PAGE_SHIFT).max(GUARD);
        match self.take_between_guards(memory, request, align, pages, id) {
            Ok(first) => {
                let ptr = memory.frame_ptr(Pfn(first.0 + GUARD as u32));
                let mut lock = self.locked();
                // SAFETY: the record is ours until it is published, and the lock guards its state.
                let area = unsafe { &mut *memory.area(id) };
                area.addr = ptr.addr();
                // SAFETY: both guards are pages of the block that was just taken, which nobody else has.
                unsafe { lock.regions.set(regions, id, area, B::PAGE_SIZE) };
                area.publish();
                drop(lock);
                NonNull::new(ptr).ok_or(AllocError::NoMemory)
            }
            Err(error) => {
                // SAFETY: they were reserved and not set.
                unsafe { self.locked().regions.release(regions, id, None, Clear::Reserved) };
                Err(error)
            }
        }
    }

    /// Takes a block of `pages` and the guards, its second page aligned to `align` pages; returns its first.
    fn take_between_guards(
        &self,
        memory: &Memory<P, B>,
        request: &AreaRequest,
        align: usize,
        pages: usize,
        id: u32,
    ) -> Result<Pfn, AllocError> {
        // The block itself is aligned to the largest power of two that divides its pages.
        let spare = align - GUARD;
        let wanted = GUARD + pages + GUARD;
        let whole = (spare + wanted).next_multiple_of(align);
        if whole > 1 << B::MAX_ORDER {
            return Err(AllocError::TooBig);
        }
        let block = self.take(memory, request, whole, id)?;
        let block = if spare == 0 { block } else { memory.trim_front(block, FrameKind::Mapped, spare)? };
        if whole - spare == wanted { Ok(block) } else { memory.trim_block(block, FrameKind::Mapped, wanted) }
    }

    /// [`protect`](AreaFamily::protect) of the whole of the live area at `addr`, by one region.
    pub(crate) fn protect_whole(
        &self,
        memory: &Memory<P, B>,
        addr: usize,
        pages: usize,
        prot: Prot,
    ) -> Result<(), MmError> {
        let regions = memory.backend().regions();
        let mut lock = self.locked();
        let Some(id) = self.block_record(memory, addr) else {
            return Err(match self.around(memory, memory.backend().direct_frame(addr)) {
                Some(area) if area.is_live() && Self::holds(area, addr, pages) => MmError::Unsupported,
                _ => MmError::NotMapped,
            });
        };
        // SAFETY: the first frame of an area names a live record, and the lock is held.
        let area = unsafe { &*memory.area(id) };
        if !area.is_live() || !Self::holds(area, addr, pages) {
            return Err(MmError::NotMapped);
        }
        let bytes = pages << B::PAGE_SHIFT;
        let exact = pages == area.pages as usize && pages.is_power_of_two() && addr.is_multiple_of(bytes);
        if !exact || !regions.clears() {
            return Err(MmError::Unsupported);
        }
        let slot = lock.regions.find(regions, id, Covers::Whole);
        let allows = match prot {
            Prot::ReadWrite => {
                // SAFETY: a slot of the whole area was set, and the guard can clear.
                unsafe { lock.regions.release(regions, id, Some(Covers::Whole), Clear::Set) };
                return Ok(());
            }
            Prot::Read => Allows::Reads,
            Prot::ReadExecute => Allows::Fetches,
        };
        match slot {
            Some(slot) => lock.regions.allow(slot, allows),
            None => {
                memory.fault_point(FaultClass::Guard).map_err(|_| MmError::NoGuard)?;
                if !lock.regions.reserve(regions, id, &[(Covers::Whole, allows)]) {
                    return Err(MmError::NoGuard);
                }
            }
        }
        // SAFETY: the area's owner asks for it; its guards, if any, are set again as they are.
        unsafe { lock.regions.set(regions, id, area, B::PAGE_SIZE) };
        Ok(())
    }
}
