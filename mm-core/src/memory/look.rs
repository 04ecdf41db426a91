//! What a frame is used for, and why an address is refused.

use super::Memory;
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::FreeError;
use crate::frame::FrameKind;
use crate::platform::Platform;

impl<P: Platform, B: Backend> Memory<P, B> {
    /// True for a frame number, which may be anything, that is free or no frame of this manager.
    pub fn frame_is_free(&self, pfn: usize) -> bool {
        let Some((region, _)) = self.frames.find(pfn) else { return true };
        let _zone = self.zones.zone(region.zone()).lock();
        // SAFETY: the zone's lock is held, and this is the only reference.
        unsafe { region.buddy() }.is_free(pfn as u32)
    }

    /// Why an address outside every region is refused.
    #[cold]
    pub(crate) fn foreign(&self) -> FreeError {
        if self.is_ready() { FreeError::Foreign } else { FreeError::NotReady }
    }

    /// Why an address that is no live allocation of the wanted kind is refused.
    #[cold]
    pub fn refusal(&self, addr: usize) -> FreeError {
        let pfn = self.backend.direct_frame(addr);
        let Some((region, frame)) = self.frames.find(pfn) else {
            return self.foreign();
        };
        let _zone = self.zones.zone_of(region).lock();
        // SAFETY: the zone's lock is held, and there is no reference to its buddies.
        unsafe { region.refusal(frame.head(), pfn as u32) }
    }

    /// Why an address outside every area is refused by the frees of areas.
    #[cold]
    pub fn refusal_of_area(&self, addr: usize) -> FreeError {
        match self.refusal(addr) {
            // Free memory of the direct map was never an area's.
            FreeError::DoubleFree | FreeError::Interior => FreeError::WrongAllocator,
            other => other,
        }
    }

    /// The pages and the link of the block of `kind` that begins at frame `pfn`, which may be anything.
    pub fn block_at(&self, pfn: usize, kind: FrameKind) -> Option<(usize, u32)> {
        let (_, frame) = self.frames.find(pfn)?;
        let head = frame.head();
        head.is(kind).then(|| (head.count() as usize, frame.link()))
    }

    /// The head of the block that holds frame `pfn` (which may be anything), when it is one of `kind`: its first frame,
    /// its pages and its link.
    ///
    /// Cost: at most the frames of the largest block, for an address inside one.
    pub fn find_block(&self, pfn: usize, kind: FrameKind) -> Option<(Pfn, usize, u32)> {
        let (region, _) = self.frames.find(pfn)?;
        for back in 0..1 << B::MAX_ORDER {
            let frame = region.frame(pfn.checked_sub(back)?)?;
            let head = frame.head();
            if head.is(FrameKind::Tail) {
                continue;
            }
            let pages = head.count() as usize;
            return (head.is(kind) && back < pages).then(|| (Pfn((pfn - back) as u32), pages, frame.link()));
        }
        None
    }

    /// True when frame `pfn` (which may be anything) lies in a block of `kind`; cost as of [`find_block`](Self::find_block).
    #[inline(never)]
    pub fn is_in_block(&self, pfn: usize, kind: FrameKind) -> bool {
        let Some((region, mut frame)) = self.frames.find(pfn) else { return false };
        let mut back = 0;
        // The first of a region heads a block, or is free.
        while frame.head().is(FrameKind::Tail) && back < 1 << B::MAX_ORDER {
            back += 1;
            match region.frame(pfn.wrapping_sub(back)) {
                Some(before) => frame = before,
                None => return false,
            }
        }
        let head = frame.head();
        head.is(kind) && back < head.count() as usize
    }

    /// What the frame is used for, or the block it lies in, and how many pages of that follow from this one on; `None` for a
    /// frame that is free or no frame of this manager.
    ///
    /// Cost: at most the frames of the largest block, for one inside it.
    pub(crate) fn block_around(&self, pfn: Pfn) -> Option<(FrameKind, u32)> {
        let (region, _) = self.frames.find(pfn.0 as usize)?;
        for back in 0..1 << B::MAX_ORDER {
            let head = region.frame((pfn.0 as usize).checked_sub(back)?)?.head();
            let pages = match head.kind() {
                FrameKind::Tail => continue,
                FrameKind::Slab | FrameKind::DmaSlab | FrameKind::CacheSlab | FrameKind::Meta | FrameKind::Table => 1,
                FrameKind::Reserved => 1,
                _ => head.count(),
            };
            return pages.checked_sub(back as u32).filter(|left| *left != 0).map(|left| (head.kind(), left));
        }
        None
    }

    /// The first block of `kind` whose head is at or above frame `from`, and its link. A diagnostic: walks the frame
    /// table.
    pub fn next_block(&self, from: usize, kind: FrameKind) -> Option<(Pfn, u32)> {
        let region_walk = |region: &crate::frame::Region| {
            (region.start().max(u32::try_from(from).unwrap_or(u32::MAX))..region.end()).find_map(|pfn| {
                let frame = region.frame(pfn as usize)?;
                frame.head().is(kind).then(|| (Pfn(pfn), frame.link()))
            })
        };
        self.frames.regions().iter().find_map(region_walk)
    }
}
