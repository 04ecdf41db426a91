//! rtmm without an MMU: addresses are physical, and vmalloc is contiguous pages of exact size.
//!
//! As Linux's `mm/nommu.c`, with what that leaves out mended: the tail of the power of two goes back at once, areas
//! are page-aligned and listed, and a call this machine cannot serve says [`Unsupported`](mm_core::MmError) instead of
//! doing nothing.
#![no_std]

mod arena;
mod contiguous;
mod frees;
mod guard;

pub use arena::Arena;
pub use contiguous::Contiguous;
#[cfg(all(feature = "pmsav7", target_arch = "arm", target_os = "none"))]
pub use guard::Pmsav7;
pub use guard::{Allows, Guarded, RegionGuard, Slot, Unguarded};
#[cfg(all(feature = "pmp", target_arch = "riscv32"))]
pub use guard::{Pmp, RuleLocking};

use mm_core::{Backend, Platform, RawLock, SetAside};

/// A machine without an MMU, with pages of `1 << PAGE_SHIFT` bytes and blocks of up to `1 << MAX_ORDER` pages.
///
/// Cache lines are taken to be of 64 bytes ([`Backend::CACHE_LINE`]): whole lines also on machines of 16 or 32.
///
/// Areas that ask for guards ([`AreaGuards`](mm_core::AreaGuards)) get them from `G`: with features `pmsav7` and `pmp`
/// there are those of Armv7-M and of RISC-V. With [`Unguarded`] they are refused, as
/// [`AllocError::NoGuard`](mm_core::AllocError::NoGuard).
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMmu<const PAGE_SHIFT: u32 = 12, const MAX_ORDER: usize = 10, G = Unguarded> {
    regions: G,
}

impl<const PAGE_SHIFT: u32, const MAX_ORDER: usize> NoMmu<PAGE_SHIFT, MAX_ORDER> {
    /// The backend.
    pub const fn new() -> Self {
        NoMmu { regions: Unguarded }
    }
}

impl<const PAGE_SHIFT: u32, const MAX_ORDER: usize, G: RegionGuard> NoMmu<PAGE_SHIFT, MAX_ORDER, G> {
    /// The backend of a machine whose regions are the manager's.
    pub const fn guarded_by(regions: G) -> Self {
        NoMmu { regions }
    }
}

impl<const SHIFT: u32, const ORDER: usize, G: RegionGuard> Guarded for NoMmu<SHIFT, ORDER, G> {
    type Regions = G;

    #[inline(always)]
    fn regions(&self) -> &G {
        &self.regions
    }
}

// SAFETY: addresses are physical, so the RAM handed to `Mm::init` is valid at its own address, and an address's frame
// is its quotient by the page size.
unsafe impl<const SHIFT: u32, const ORDER: usize, G: RegionGuard> Backend for NoMmu<SHIFT, ORDER, G> {
    const PAGE_SHIFT: u32 = SHIFT;
    const MAX_ORDER: usize = ORDER;
    // No 64-bit processor has more address lines than Arm's and x86's 52.
    const PHYS_BITS: u32 = if usize::BITS > 52 { 52 } else { usize::BITS };
    const HAS_MMU: bool = false;
    const HAS_REGIONS: bool = G::ANY;

    type Areas<P: Platform> = Contiguous<P, Self>;
    type Classes<L: RawLock> = SetAside<L>;

    #[inline(always)]
    fn direct_ptr(&self, phys: usize) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(phys)
    }

    #[inline(always)]
    fn direct_frame(&self, addr: usize) -> usize {
        addr >> SHIFT
    }
}
