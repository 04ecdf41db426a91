//! Blocks that wait for a flush, and how they are given back.

use crate::addr::Pfn;
use crate::backend::{Backend, PageTable};
use crate::frame::{Frame, FrameKind, Head, Region};
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use crate::zone::ZoneGuard;

/// A block of an area's frames, with the records at hand.
pub(in crate::vmalloc) struct Block<'a> {
    pub(super) region: &'a Region,
    pub(super) frame: &'a Frame,
    pub(super) pfn: u32,
    pub(super) pages: u32,
}

impl<'a> Block<'a> {
    /// The block of exactly `pages` frames of an area that begins at `pfn`, if there is one.
    #[inline(always)]
    pub(in crate::vmalloc) fn of<P: Platform, B: Backend>(
        memory: &'a Memory<P, B>,
        pfn: Pfn,
        pages: u32,
    ) -> Option<Self> {
        let (region, frame) = memory.frames.find(pfn.0 as usize)?;
        frame.head().is_run(FrameKind::Mapped, pages).then_some(Block { region, frame, pfn: pfn.0, pages })
    }
}

/// Blocks waiting for a flush, linked through their frame records.
pub(in crate::vmalloc) struct Chain(pub(super) u32);

impl Chain {
    pub(in crate::vmalloc) const fn new() -> Self {
        Chain(NIL)
    }

    pub(in crate::vmalloc) fn is_empty(&self) -> bool {
        self.0 == NIL
    }

    /// Adds the block of `pages` frames at `pfn`.
    pub(in crate::vmalloc) fn push<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, pfn: u32, pages: u32) {
        if let Some(frame) = memory.frames.frame(Pfn(pfn)) {
            self.push_frame(frame, pfn, pages);
        }
    }

    /// [`push`](Self::push) with the record of the first frame at hand.
    #[inline(always)]
    pub(in crate::vmalloc) fn push_frame(&mut self, frame: &Frame, pfn: u32, pages: u32) {
        frame.set_link(self.0);
        frame.set_head(Head::new(FrameKind::Pending, 0, pages));
        self.0 = pfn;
    }

    /// Moves all of another chain here. Cost: its length.
    pub(super) fn append<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, other: &mut Chain) {
        while other.0 != NIL {
            let pfn = other.0;
            let Some(frame) = memory.frames.frame(Pfn(pfn)) else { return };
            other.0 = frame.link();
            frame.set_link(self.0);
            self.0 = pfn;
        }
    }

    /// Frees all blocks, after their flush.
    #[inline(always)]
    pub(super) fn free<P: Platform, B: Backend>(self, memory: &Memory<P, B>) {
        let mut pfn = self.0;
        while pfn != NIL {
            let Some((region, frame)) = memory.frames.find(pfn as usize) else { return };
            let next = frame.link();
            let single = Head::new(FrameKind::Pending, 0, 1);
            if next != NIL && frame.head() == single && !memory.poisons() {
                let hand_over = |zone: ZoneGuard<'_, P::Lock>| memory.hand_over(region.zone(), zone);
                let rest = memory.zones.give_chain(region, pfn, single, &memory.waiting, hand_over);
                if rest != pfn {
                    pfn = rest;
                    continue;
                }
            }
            let _ = memory.give(region, frame, pfn, |head, _| {
                if head.is(FrameKind::Pending) { Ok(head.count() as usize) } else { Err(()) }
            });
            pfn = next;
        }
    }

    /// Takes the block added last.
    pub(super) fn pop<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>) -> Option<Pfn> {
        let pfn = Pfn(self.0);
        let frame = if self.0 == NIL { None } else { memory.frames.frame(pfn) };
        self.0 = frame.map_or(NIL, |frame| frame.link());
        frame.map(|_| pfn)
    }

    /// Adds the block of area frames that begins at `pfn`, and returns its pages; 1 when it is no such block, which is
    /// `damaged` then.
    #[inline(always)]
    pub(in crate::vmalloc) fn take_head<P: Platform, B: PageTable>(
        &mut self,
        memory: &Memory<P, B>,
        pfn: Pfn,
        damaged: &mut u32,
    ) -> u32 {
        if let Some(frame) = memory.frames.frame(pfn) {
            let head = frame.head();
            if head.is(FrameKind::Mapped) {
                self.push_frame(frame, pfn.0, head.count());
                return head.count();
            }
        }
        *damaged = pfn.0;
        1
    }
}
