//! Freeing areas, and why what is none is refused.

use crate::Contiguous;
use crate::contiguous::Listed;
use crate::guard::{Clear, Guarded, RegionGuard};
use mm_core::vmalloc::Area;
use mm_core::{AreaKind, Bug, FrameKind, FreeError, Memory, Platform};

impl<P: Platform, B: Guarded> Contiguous<P, B> {
    /// Whether the area has a region that stays until reset. The lock is held.
    #[inline(always)]
    pub(crate) fn is_kept(&self, memory: &Memory<P, B>, listed: &mut Listed<B::Regions>, id: u32) -> bool {
        let regions = memory.backend().regions();
        B::HAS_REGIONS && listed.regions.is_any() && !regions.clears() && listed.regions.has(regions, id)
    }

    /// Clears the regions of an area, if it has any. The lock is held.
    ///
    /// # Safety
    /// They can be cleared: the area is not [kept](Self::is_kept).
    #[inline(always)]
    pub(crate) unsafe fn clear_regions(memory: &Memory<P, B>, listed: &mut Listed<B::Regions>, id: u32) {
        if B::HAS_REGIONS && listed.regions.is_any() {
            // SAFETY: by the caller.
            unsafe { listed.regions.release(memory.backend().regions(), id, None, Clear::Set) };
        }
    }

    /// Gives back the block of an area at `addr` that nobody finds any more, with `guard` pages before.
    #[inline(always)]
    pub(crate) fn give_block(&self, memory: &Memory<P, B>, addr: usize, guard: usize) {
        let pfn = memory.backend().direct_frame(addr) - guard;
        if memory.free_block(pfn, FrameKind::Mapped, None).is_err() {
            memory.platform().bug(&Bug::Damage { what: "an area is not the block it names", at: addr });
        }
    }

    /// Hides a live area that may go from everybody but its freer. The lock is held.
    ///
    /// # Safety
    /// `id` is of a record whose state that lock guards.
    #[inline(always)]
    pub(crate) unsafe fn hide<'a>(
        &self,
        memory: &Memory<P, B>,
        listed: &'a mut Listed<B::Regions>,
        id: u32,
    ) -> Result<&'a mut Area, FreeError> {
        // SAFETY: by the caller.
        let area = unsafe { &mut *memory.area(id) };
        if !area.is_live() {
            return Err(FreeError::DoubleFree);
        }
        if self.is_kept(memory, listed, id) {
            return Err(FreeError::Reserved);
        }
        area.withdraw();
        Ok(area)
    }

    /// [`withdraw`](AreaFamily::withdraw) and [`release`](AreaFamily::release) of one area with a block of its own, under
    /// one lock until the block goes.
    #[inline(never)]
    pub(crate) fn free_own(&self, memory: &Memory<P, B>, addr: usize) -> Result<(), FreeError> {
        let mut lock = self.locked();
        let Some(id) = self.block_record(memory, addr) else {
            drop(lock);
            return Err(self.refusal_of(memory, addr, AreaKind::Alloc));
        };
        // SAFETY: the first frame of an area names a live record.
        let area = unsafe { self.hide(memory, &mut lock, id) }?;
        let guard = Self::guard_pages(area);
        // SAFETY: just asked.
        unsafe { Self::clear_regions(memory, &mut lock, id) };
        drop(lock);
        self.give_block(memory, addr, guard);
        memory.area_give(id);
        Ok(())
    }

    /// Why `addr` is not the first byte of a live area of `kind`.
    #[cold]
    pub(crate) fn refusal_of(&self, memory: &Memory<P, B>, addr: usize, kind: AreaKind) -> FreeError {
        if kind == AreaKind::Alloc {
            return self.refusal(memory, addr);
        }
        let other = if kind == AreaKind::Map { AreaKind::Ioremap } else { AreaKind::Map };
        if self.locked().ioremaps.find_which(memory, addr as u64, |area| area.kind == other).is_some() {
            return FreeError::WrongAllocator;
        }
        match memory.refusal_of_area(addr) {
            // Not RAM either: nothing is mapped there, or no more.
            FreeError::Foreign => FreeError::DoubleFree,
            error => error,
        }
    }

    /// Why `addr`, which is not the first byte of a live area, is refused.
    #[cold]
    fn refusal(&self, memory: &Memory<P, B>, addr: usize) -> FreeError {
        if memory.is_in_block(memory.backend().direct_frame(addr), FrameKind::Mapped) {
            let misaligned = addr & (B::PAGE_SIZE - 1) != 0;
            return if misaligned { FreeError::Misaligned } else { FreeError::Interior };
        }
        if self.mapping_at(memory, addr).is_some() {
            return FreeError::WrongAllocator;
        }
        match memory.refusal(addr) {
            // Inside a block of another call's.
            FreeError::Interior => FreeError::WrongAllocator,
            error => error,
        }
    }
}
