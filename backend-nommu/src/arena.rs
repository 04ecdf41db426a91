//! The same backend over an arena of a process, for the host.

use crate::{Contiguous, Guarded, RegionGuard, Unguarded};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};
use mm_core::{Backend, InManager, Platform, RawLock};

/// A machine whose RAM is a stretch of a process's memory, at a physical address of the caller's choice.
///
/// Pages are 4 KiB, blocks up to `1 << MAX_ORDER` of them. `ioremap` gives the physical address itself, where a process
/// has nothing.
#[derive(Debug, Default)]
pub struct Arena<const MAX_ORDER: usize = 10, G = Unguarded> {
    regions: G,
    base: AtomicPtr<u8>,
    phys: AtomicUsize,
}

impl<const MAX_ORDER: usize> Arena<MAX_ORDER> {
    /// An arena that is placed later.
    pub const fn new() -> Self {
        Arena::guarded_by(Unguarded)
    }
}

impl<const MAX_ORDER: usize, G: RegionGuard> Arena<MAX_ORDER, G> {
    /// An arena that is placed later, with something that guards areas.
    pub const fn guarded_by(regions: G) -> Self {
        Arena { regions, base: AtomicPtr::new(core::ptr::null_mut()), phys: AtomicUsize::new(0) }
    }

    /// Puts physical address `phys` at `base`. Before the manager's `init`, once.
    ///
    /// # Safety
    /// `base` and `phys` are equal modulo the size of the largest block (4 MiB for order 10), or modulo the largest
    /// block that fits the RAM: alignment is that of physical addresses. `base` is valid for reads and writes for as
    /// much RAM as the manager will be told of, for as long as the manager lives, and nothing else uses it.
    pub unsafe fn place(&self, base: *mut u8, phys: usize) {
        self.phys.store(phys, Relaxed);
        self.base.store(base, Relaxed);
    }
}

impl<const ORDER: usize, G: RegionGuard> Guarded for Arena<ORDER, G> {
    type Regions = G;

    #[inline(always)]
    fn regions(&self) -> &G {
        &self.regions
    }
}

// SAFETY: by the contract of `place`, the RAM is valid at its offset from the base, with the base's provenance.
unsafe impl<const ORDER: usize, G: RegionGuard> Backend for Arena<ORDER, G> {
    const PAGE_SHIFT: u32 = 12;
    const MAX_ORDER: usize = ORDER;
    const PHYS_BITS: u32 = if usize::BITS == 64 { 44 } else { 32 };
    const HAS_MMU: bool = false;
    const HAS_REGIONS: bool = G::ANY;

    type Areas<P: Platform> = Contiguous<P, Self>;
    type Classes<L: RawLock> = InManager<L>;

    #[inline(always)]
    fn direct_ptr(&self, phys: usize) -> *mut u8 {
        self.base.load(Relaxed).wrapping_add(phys.wrapping_sub(self.phys.load(Relaxed)))
    }

    #[inline(always)]
    fn direct_frame(&self, addr: usize) -> usize {
        // Addresses below the base wrap to frame numbers no RAM has.
        let offset = addr.wrapping_sub(self.base.load(Relaxed).addr());
        (offset >> Self::PAGE_SHIFT).wrapping_add(self.phys.load(Relaxed) >> Self::PAGE_SHIFT)
    }
}
