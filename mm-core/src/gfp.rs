//! Allocation flags: how hard to try, and where the memory may lie.

use crate::error::AllocError;
use crate::zone::Depth;

/// Allocation flags, in the manner of Linux's `gfp_t`.
///
/// Bits this build does not know are refused with [`AllocError::BadFlags`], never ignored. `USER` is known and changes
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct Gfp(pub u32);

bitflags::bitflags! {
    impl Gfp: u32 {
        /// `__GFP_DMA`: only memory below the DMA limit.
        const DMA = 1 << 0;
        /// `__GFP_HIGHMEM`: memory without a kernel address will do.
        const HIGHMEM = 1 << 1;
        /// `__GFP_DMA32`: only memory below 4 GiB.
        const DMA32 = 1 << 2;
        /// `__GFP_HIGH`: may use five eighths of the last frames, which other requests leave alone.
        const HIGH = 1 << 5;
        /// `__GFP_ZERO`: hand the memory out zeroed.
        const ZERO = 1 << 8;
        /// `__GFP_DIRECT_RECLAIM`: the caller may wait.
        const WAIT = 1 << 10;
        /// `__GFP_NOWARN`: no report on failure.
        const NOWARN = 1 << 13;
        /// `__GFP_NORETRY`: one round of reclaim at most, and no waiting.
        const NORETRY = 1 << 16;
        /// `__GFP_COMP`: the block is one compound page: a reference on any of its frames keeps all of it.
        const COMP = 1 << 18;
        /// `__GFP_HARDWALL`: memory for a user.
        const USER = 1 << 20;
    }
}

/// May wait, and may ask others for memory; the usual choice of a task, never right in an interrupt.
pub const GFP_KERNEL: Gfp = Gfp::WAIT;
/// As [`GFP_KERNEL`], for memory a user will see.
pub const GFP_USER: Gfp = Gfp::WAIT.union(Gfp::USER);
/// Never waits; right in an interrupt. May use five eighths of what ordinary requests leave free (the `min` mark).
pub const GFP_ATOMIC: Gfp = Gfp::HIGH;
/// Never waits, and leaves a reserve alone.
pub const GFP_NOWAIT: Gfp = Gfp::empty();
/// Memory below the DMA limit; combine with [`GFP_KERNEL`] or [`GFP_ATOMIC`].
pub const GFP_DMA: Gfp = Gfp::DMA;
/// Memory below 4 GiB; combine with [`GFP_KERNEL`] or [`GFP_ATOMIC`].
pub const GFP_DMA32: Gfp = Gfp::DMA32;
/// Memory a kernel address is not needed for.
pub const GFP_HIGHUSER: Gfp = GFP_USER.union(Gfp::HIGHMEM);

impl Gfp {
    /// Every bit this build knows.
    pub const KNOWN: Gfp = Gfp::all();

    /// What the manager takes for itself, to finish a request: a page of descriptors, a page table. No caller can say
    /// so: `validate` does not know it.
    pub(crate) const OWN: Gfp = Gfp(1 << 31);

    /// How far down its zones a request with these flags may go when it must.
    #[inline]
    pub(crate) const fn depth(self) -> Depth {
        if self.bits() & Gfp::HIGH.bits() == 0 {
            Depth::Min
        } else if self.bits() & Gfp::OWN.bits() == 0 {
            Depth::Atomic
        } else {
            Depth::Own
        }
    }

    /// The flags for what the manager needs itself to finish a request with these flags: lowmem of any zone, as deep
    /// as the request may go, or for `HIGH` a step deeper.
    #[inline]
    pub(crate) const fn own(self) -> Gfp {
        let kept = Gfp::HIGH.union(Gfp::NOWARN).union(Gfp::NORETRY);
        Gfp(self.bits() & kept.bits() | Gfp::OWN.bits())
    }

    /// Flags that change nothing about where memory comes from that is at hand, and what is done with it.
    pub(crate) const PLAIN: Gfp =
        Gfp::WAIT.union(Gfp::HIGH).union(Gfp::NOWARN).union(Gfp::NORETRY).union(Gfp::COMP).union(Gfp::USER);

    /// Refuses unknown bits and combinations that contradict themselves.
    ///
    /// # Errors
    /// [`AllocError::BadFlags`] for an unknown bit, or `DMA` together with `HIGHMEM`.
    #[inline]
    pub const fn validate(self) -> Result<Gfp, AllocError> {
        let dma_high = Gfp::DMA.bits() | Gfp::HIGHMEM.bits();
        if self.bits() & !Gfp::KNOWN.bits() != 0 || self.bits() & dma_high == dma_high {
            return Err(AllocError::BadFlags);
        }
        Ok(self)
    }
}
