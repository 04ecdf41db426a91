//! Taking blocks of frames.

use super::Memory;
use crate::addr::{PageRange, Pfn};
use crate::backend::Backend;
use crate::error::{AllocError, PackedFrame};
use crate::fault::FaultClass;
use crate::frame::{FrameKind, Head};
use crate::gfp::Gfp;
use crate::platform::Platform;
use crate::wait::{Block, Patience};
use crate::zone::ZoneKind;

impl<P: Platform, B: Backend> Memory<P, B> {
    /// Takes `pages` contiguous frames (exactly as many), marks the first with `kind` and `link`, and zeroes them when the
    /// flags ask for it. They are aligned to the next power of two, `Held` and `Large` ones to the largest power of two
    /// that divides their number.
    ///
    /// Context: any. Cost: O(levels); one zone lock at a time.
    ///
    /// # Errors
    /// `NotReady`, `ZeroSize`, `TooBig`, `NoMemory`, `NoContig`.
    #[cfg_attr(feature = "small", inline(always))]
    #[cfg_attr(not(feature = "small"), inline)]
    pub fn take_block(&self, pages: usize, flags: Gfp, kind: FrameKind, link: u32) -> Result<Pfn, AllocError> {
        self.fault_point(FaultClass::Page)?;
        self.take_block_now(pages, flags, kind, link)
    }

    /// [`take_block`](Self::take_block) for what is large and stays: from the high end of memory, where nothing else is taken
    /// from while there is room elsewhere, so that it is not mixed with what is small and goes. Aligned to the largest power
    /// of two that divides `pages`. A single page, and what the high end has no room for above the low mark, comes as from
    /// `take_block`; so does everything while free pages are poisoned.
    ///
    /// Context and cost: as `take_block`.
    ///
    /// # Errors
    /// As `take_block`.
    #[cold]
    #[inline(never)]
    pub fn take_block_high(&self, pages: usize, flags: Gfp, kind: FrameKind, link: u32) -> Result<Pfn, AllocError> {
        // Where code is to be small all comes from the low end.
        if cfg!(feature = "small") || pages < 2 || pages > 1 << B::MAX_ORDER {
            return self.take_block(pages, flags, kind, link);
        }
        self.fault_point(FaultClass::Page)?;
        let head = Head::new(kind, 0, pages as u32);
        #[cfg(feature = "page-poison")]
        if self.poisons() {
            return self.take_poisoned(pages, flags, head, link);
        }
        let Some(pfn) = self.zones.take_high(&self.frames, pages, ZoneKind::of(flags), head, link) else {
            return self.take_block_now(pages, flags, kind, link);
        };
        if flags.contains(Gfp::ZERO) {
            self.zero(PageRange { start: Pfn(pfn), count: pages as u32 });
        }
        Ok(Pfn(pfn))
    }

    /// [`take_block`](Self::take_block) behind a fault point of the caller's own.
    #[cfg_attr(feature = "small", inline(always))]
    #[cfg_attr(not(feature = "small"), inline)]
    pub fn take_block_now(&self, pages: usize, flags: Gfp, kind: FrameKind, link: u32) -> Result<Pfn, AllocError> {
        self.take_block_of(pages, flags, kind, link)
    }

    /// [`take_block_now`](Self::take_block_now) written out, for a caller that always takes the same kind.
    #[inline(always)]
    pub(crate) fn take_block_of(
        &self,
        pages: usize,
        flags: Gfp,
        kind: FrameKind,
        link: u32,
    ) -> Result<Pfn, AllocError> {
        if cfg!(feature = "small") {
            let pfn = Pfn(self.take_by_depth(pages, flags, kind, link).result()?);
            if flags.contains(Gfp::ZERO) {
                self.zero(PageRange { start: pfn, count: pages as u32 });
            }
            return Ok(pfn);
        }
        if pages.wrapping_sub(1) >= 1 << B::MAX_ORDER {
            return Err(if pages == 0 { AllocError::ZeroSize } else { AllocError::TooBig });
        }
        let head = Head::new(kind, 0, pages as u32);
        #[cfg(feature = "page-poison")]
        if self.poisons() {
            return self.take_poisoned(pages, flags, head, link);
        }
        let pfn = match self.zones.take(pages, flags, head, link) {
            Some(pfn) => pfn,
            None => self.take_slow(pages, flags, head, link)?,
        };
        if flags.contains(Gfp::ZERO) {
            self.zero(PageRange { start: Pfn(pfn), count: pages as u32 });
        }
        Ok(Pfn(pfn))
    }

    /// [`take_block_now`](Self::take_block_now) by a call, both passes by the same code, and without zeroing.
    #[inline(never)]
    pub(crate) fn take_by_depth(&self, pages: usize, flags: Gfp, kind: FrameKind, link: u32) -> PackedFrame {
        if pages.wrapping_sub(1) >= 1 << B::MAX_ORDER {
            return PackedFrame::new(Err(if pages == 0 { AllocError::ZeroSize } else { AllocError::TooBig }));
        }
        let head = Head::new(kind, 0, pages as u32);
        #[cfg(feature = "page-poison")]
        if self.poisons() {
            return PackedFrame::new(self.take_poisoned(pages, flags, head, link).map(|pfn| pfn.0));
        }
        let taken = self.zones.take_by(pages, (ZoneKind::of(flags), flags.depth()), head, link);
        PackedFrame::new(taken.map_err(|error| if self.is_ready() { error } else { AllocError::NotReady }))
    }

    /// [`take_block_now`](Self::take_block_now) of a single frame, at hand in the common case.
    #[inline(always)]
    pub(crate) fn take_frame_now(&self, flags: Gfp, kind: FrameKind, link: u32) -> PackedFrame {
        if !self.poisons() && !flags.contains(Gfp::ZERO) {
            let head = Head::new(kind, 0, 1);
            if let Some(pfn) = self.zones.take_single_of(ZoneKind::of(flags), head, link) {
                return PackedFrame::new(Ok(pfn));
            }
        }
        self.take_frame_by_call(flags, kind, link)
    }

    #[inline(never)]
    fn take_frame_by_call(&self, flags: Gfp, kind: FrameKind, link: u32) -> PackedFrame {
        PackedFrame::new(self.take_block_now(1, flags, kind, link).map(|pfn| pfn.0))
    }

    /// No zone has the block above its low mark: down to where the flags may go.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_slow(&self, pages: usize, flags: Gfp, head: Head, link: u32) -> Result<u32, AllocError> {
        let reach = (ZoneKind::of(flags), flags.depth());
        let result = self.zones.take_deep(pages, reach, head, link);
        result.map_err(|error| if self.is_ready() { error } else { AllocError::NotReady })
    }

    /// [`take_block_now`](Self::take_block_now), and when there is none waits for it, if the caller has patience.
    ///
    /// Context: task when it may wait, no lock held.
    ///
    /// # Errors
    /// As `take_block`.
    #[inline(never)]
    pub fn take_block_until(
        &self,
        pages: usize,
        flags: Gfp,
        kind: FrameKind,
        link: u32,
        patience: Option<&Patience<'_>>,
    ) -> Result<Pfn, AllocError> {
        match (self.take_block_now(pages, flags, kind, link), patience) {
            (Err(error), Some(patience)) if P::CAN_WAIT && error.may_pass() => {
                self.wait_for_block(Block { pages, flags, kind, link }, patience.until, error, patience.tend)
            }
            (result, _) => result,
        }
    }

    /// A block that was handed over, as [`accept`](Self::accept) takes it, or another that is sound.
    #[inline(always)]
    pub(crate) fn sound_grant(&self, pfn: u32, block: &Block) -> Result<u32, AllocError> {
        #[cfg(feature = "page-poison")]
        if self.poisons() {
            return self.poisoned_grant(pfn, block);
        }
        let _ = block;
        Ok(pfn)
    }
}
