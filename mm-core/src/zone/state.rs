//! What a zone's lock guards, and what is taken with it held.

use super::{Depth, Marks, ZoneKind};
use crate::bits::{order_for, rarely};
use crate::buddy::RegionBuddy as Buddy;
use crate::frame::{Frame, FrameMap, Head, Region};

/// How many limits of the first pass are kept at hand: one for each kind, or none, where room counts for more.
const LIMITS: usize = if cfg!(feature = "small") { 0 } else { 4 };

/// What a zone's lock guards, besides the buddies of its regions.
pub struct ZoneState {
    /// Its first region; set when there is one.
    pub regions: *const Region,
    /// How many regions it has.
    pub count: usize,
    /// Free frames.
    pub free: usize,
    /// Frames that were ever handed to the buddy.
    pub managed: usize,
    /// Frames with a record.
    pub present: usize,
    /// The largest order of which it ever had a block.
    pub largest: usize,
    /// The region single frames are taken from while its open word has some; set when there are regions.
    #[cfg(not(feature = "small"))]
    pub singles: *const Region,
    /// What it is, `None` while unlisted.
    pub kind: Option<ZoneKind>,
    /// What requests must leave.
    pub marks: Marks,
    /// By the number of a kind: what a request for it must leave in the first pass.
    limit: [usize; LIMITS],
    /// Frames that are put by for a waiter: ordinary requests leave as many more.
    put_by: usize,
}

// SAFETY: the pointers are to regions, which live as long as the manager.
unsafe impl Send for ZoneState {}

impl ZoneState {
    pub(super) const EMPTY: ZoneState = ZoneState {
        regions: core::ptr::null(),
        count: 0,
        free: 0,
        managed: 0,
        present: 0,
        largest: 0,
        #[cfg(not(feature = "small"))]
        singles: core::ptr::null(),
        kind: None,
        marks: Marks::NONE,
        limit: [0; LIMITS],
        put_by: 0,
    };

    /// True when a request for `kind` could be given `pages` frames if all of the zone were free.
    pub fn could_hold(&self, pages: usize, kind: ZoneKind, depth: Depth) -> bool {
        let leaves = self.managed.saturating_sub(self.marks.limit(kind, depth));
        // A block that is no power of two is cut from the next one, of which the end may be missing.
        pages <= leaves && pages >> self.largest <= 1
    }

    /// The most frames that are put by: who wants much waits long, but nobody else may wait for ever for his sake.
    pub fn share(&self) -> usize {
        self.managed / 8
    }

    /// Puts `frames` by for a waiter; returns how many were before.
    pub fn put_by(&mut self, frames: usize) -> usize {
        let before = core::mem::replace(&mut self.put_by, frames);
        for (limit, kind) in self.limit.iter_mut().zip(ZoneKind::ALL) {
            *limit = self.marks.limit(kind, Depth::Low).saturating_add(frames);
        }
        before
    }

    /// What a request for `kind` must leave in the first pass.
    #[inline(always)]
    pub fn limit(&self, kind: ZoneKind) -> usize {
        if LIMITS == 0 { self.limit_at(kind, Depth::Low) } else { self.limit[kind as usize] }
    }

    /// What a request must leave that does not wait.
    pub(super) fn limit_at(&self, kind: ZoneKind, depth: Depth) -> usize {
        if cfg!(feature = "small") {
            return self.limit_by(kind, depth as usize);
        }
        let put_by = if depth as usize >= Depth::Min as usize { self.put_by } else { 0 };
        self.marks.limit(kind, depth).saturating_add(put_by)
    }

    /// [`limit_at`](Self::limit_at) by the number of a depth, in fewer instructions: all are counts of frames of one machine.
    #[inline(always)]
    fn limit_by(&self, kind: ZoneKind, depth: usize) -> usize {
        let put_by = if depth >= Depth::Min as usize { self.put_by } else { 0 };
        let eighths = self.marks.min.wrapping_mul(depth) / 8;
        let floor = if depth == Depth::Low as usize { self.marks.low } else { eighths };
        floor.wrapping_add(self.marks.reserve[kind as usize]).wrapping_add(put_by)
    }

    /// Its regions, by ascending address.
    #[inline(always)]
    pub fn regions<'m>(&self, _: &'m FrameMap) -> &'m [Region] {
        if self.count == 0 {
            return &[];
        }
        // SAFETY: published, as many, and there as long as the manager, of which the map of frames is a part.
        unsafe { core::slice::from_raw_parts(self.regions, self.count) }
    }

    /// Takes a block of `pages` frames of this zone, aligned to `1 << align` of them, if it leaves `limit`, and marks its
    /// first frame.
    #[inline(always)]
    pub fn take(&mut self, (pages, align): (usize, usize), limit: usize, head: Head, link: u32) -> Option<u32> {
        // Both are far from the largest number, but for a limit that saturated: then nothing is to be had.
        if self.free.saturating_sub(limit) < pages {
            rarely();
            return None;
        }
        if cfg!(feature = "small") {
            return self.take_from(0, (pages, align), head, link);
        }
        // SAFETY: a zone with a free frame has a region.
        match self.take_of(unsafe { &*self.regions }, pages, align, head, link) {
            Some(pfn) => Some(pfn),
            None => self.take_behind((pages, align), head, link),
        }
    }

    /// [`take`](Self::take) of `1 << order` frames, which are more than one, aligned to as many; the common case without a
    /// call.
    #[inline(always)]
    pub fn take_order(&mut self, order: usize, limit: usize, head: Head, link: u32) -> Option<u32> {
        let pages = 1 << order;
        if self.free.saturating_sub(limit) < pages {
            rarely();
            return None;
        }
        // SAFETY: a zone with a free frame has a region.
        let region = unsafe { &*self.regions };
        // SAFETY: `self` is reached through the zone's lock only, and this is the only reference.
        let taken = unsafe { region.buddy() }.take_order(order, |pfn| {
            // SAFETY: the buddy hands out frames of its region only.
            let frame = unsafe { region.frame_unchecked(pfn as usize) };
            frame.set_link(link);
            frame.set_head(head);
            self.free -= pages;
        });
        match taken {
            Some(pfn) => Some(pfn),
            None => self.take_behind((pages, order), head, link),
        }
    }

    /// [`take`](Self::take) of another region than the first.
    #[cold]
    #[inline(never)]
    fn take_behind(&mut self, (pages, align): (usize, usize), head: Head, link: u32) -> Option<u32> {
        self.take_from(1, (pages, align), head, link)
    }

    #[inline(always)]
    pub(super) fn take_from(
        &mut self,
        first: usize,
        (pages, align): (usize, usize),
        head: Head,
        link: u32,
    ) -> Option<u32> {
        for i in first..self.count {
            // SAFETY: a region of the zone, of which there are that many.
            let region = unsafe { &*self.regions.wrapping_add(i) };
            if let Some(pfn) = self.take_of(region, pages, align, head, link) {
                return Some(pfn);
            }
        }
        None
    }

    /// Takes a block of `pages` frames if that leaves what a request for `kind` must leave at `depth`: its first record, for
    /// the caller to mark, and its number. Else how many frames there are to spare.
    ///
    /// By a call, for loops over the zones that keep nothing of one but where it is.
    #[inline(never)]
    pub(super) fn take_above(&mut self, pages: usize, kind: ZoneKind, depth: usize) -> (Option<&Frame>, usize) {
        let spare = self.free.saturating_sub(self.limit_by(kind, depth));
        if spare >= pages {
            for i in 0..self.count {
                // SAFETY: a region of the zone, of which there are that many.
                let region = unsafe { &*self.regions.wrapping_add(i) };
                // SAFETY: `self` is reached through the zone's lock only, and this is the only reference.
                if let Some(pfn) = unsafe { region.buddy() }.take(pages, order_for(pages), |_| ()) {
                    self.free -= pages;
                    // SAFETY: the buddy hands out frames of its region only.
                    return (Some(unsafe { region.frame_unchecked(pfn as usize) }), pfn as usize);
                }
            }
        }
        (None, spare)
    }

    /// [`take`](Self::take) of one region. (By itself: where it stood in the loop, each take worked out beforehand what
    /// any region might want to know of the block.)
    #[cfg_attr(feature = "small", inline(always))]
    #[cfg_attr(not(feature = "small"), inline(never))]
    fn take_of(&mut self, region: &Region, pages: usize, align: usize, head: Head, link: u32) -> Option<u32> {
        // SAFETY: `self` is reached through the zone's lock only, and this is the only reference.
        unsafe { region.buddy() }.take(pages, align, |pfn| {
            // SAFETY: the buddy hands out frames of its region only.
            let frame = unsafe { region.frame_unchecked(pfn as usize) };
            frame.set_link(link);
            frame.set_head(head);
            self.free -= pages;
            #[cfg(not(feature = "small"))]
            if pages == 1 {
                self.singles = region;
            }
        })
    }

    /// Takes a frame from the open word if there is one and it leaves `limit` of them, and marks it.
    #[inline(always)]
    pub(super) fn take_single(&mut self, limit: usize, head: Head, link: u32) -> Option<u32> {
        self.take_by(Buddy::take_open, limit, head, link)
    }

    /// Takes a frame of the next word to open, in the region of the open one, if it leaves `limit`, and marks it.
    #[inline(always)]
    pub fn take_next(&mut self, limit: usize, head: Head, link: u32) -> Option<u32> {
        self.take_by(Buddy::take_next, limit, head, link)
    }

    #[inline(always)]
    fn take_by(
        &mut self,
        take: impl FnOnce(&mut Buddy) -> Option<u32>,
        limit: usize,
        head: Head,
        link: u32,
    ) -> Option<u32> {
        if self.free <= limit {
            rarely();
            return None;
        }
        #[cfg(not(feature = "small"))]
        let singles = self.singles;
        #[cfg(feature = "small")]
        let singles = self.regions;
        // SAFETY: a zone with a free frame has a region.
        let region = unsafe { &*singles };
        // SAFETY: `self` is reached through the zone's lock only, and this is the only reference.
        let Some(pfn) = take(unsafe { region.buddy() }) else {
            rarely();
            return None;
        };
        // SAFETY: the buddy hands out frames of its region only.
        let frame = unsafe { region.frame_unchecked(pfn as usize) };
        frame.set_link(link);
        frame.set_head(head);
        self.free -= 1;
        Some(pfn)
    }

    /// As [`take`](Self::take), from the high end.
    pub(super) fn take_high(
        &mut self,
        frames: &FrameMap,
        pages: usize,
        limit: usize,
        head: Head,
        link: u32,
    ) -> Option<u32> {
        if self.free.saturating_sub(limit) < pages {
            return None;
        }
        let align = pages.trailing_zeros() as usize;
        self.regions(frames).iter().rev().find_map(|region| {
            // SAFETY: `self` is reached through the zone's lock only, and this is the only reference.
            let pfn = (unsafe { region.buddy() }).take_high(pages, align)?;
            // SAFETY: the buddy hands out frames of its region only.
            let frame = unsafe { region.frame_unchecked(pfn as usize) };
            frame.set_link(link);
            frame.set_head(head);
            self.free -= pages;
            Some(pfn)
        })
    }
}
