//! Zones: which memory a request may come from, how much of it must stay free, and the lock around its buddies.

mod watermark;

pub use watermark::{Depth, Marks, Tuning};

mod batch;
mod query;

pub use batch::BATCH;

use crate::bits::{Word, order_for, rarely};
use crate::buddy::RegionBuddy as Buddy;
use crate::error::{AllocError, PackedFrame};
use crate::frame::{Frame, FrameKind, FrameMap, Head, Region, Single};
use crate::gfp::Gfp;
use crate::lock::{Guard, Locked};
use crate::platform::RawLock;
use crate::wait::Waiting;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

/// The most zones a board can list.
pub const MAX_ZONES: usize = if cfg!(feature = "small") { 3 } else { 4 };
const NO_ZONE: u8 = u8::MAX;
/// How many limits of the first pass are kept at hand: one for each kind, or none, where room counts for more.
const LIMITS: usize = if cfg!(feature = "small") { 0 } else { 4 };

/// What a zone's memory is good for, from the most to the least wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ZoneKind {
    /// Reached by devices with few address lines (below 16 MiB on a PC).
    Dma = 0,
    /// Below 4 GiB.
    Dma32 = 1,
    /// Ordinary memory.
    Normal = 2,
    /// Memory without a kernel address.
    HighMem = 3,
}

impl ZoneKind {
    /// All, lowest first.
    pub const ALL: [ZoneKind; 4] = [ZoneKind::Dma, ZoneKind::Dma32, ZoneKind::Normal, ZoneKind::HighMem];

    /// The zone's name, as Linux prints it.
    pub const fn name(self) -> &'static str {
        match self {
            ZoneKind::Dma => "DMA",
            ZoneKind::Dma32 => "DMA32",
            ZoneKind::Normal => "Normal",
            ZoneKind::HighMem => "HighMem",
        }
    }

    /// The highest kind a request with these flags may take from.
    #[inline(always)]
    pub const fn of(flags: Gfp) -> ZoneKind {
        let bits = flags.bits();
        if bits & (Gfp::DMA.bits() | Gfp::DMA32.bits() | Gfp::HIGHMEM.bits()) == 0 {
            ZoneKind::Normal
        } else if bits & Gfp::DMA.bits() != 0 {
            ZoneKind::Dma
        } else if bits & Gfp::DMA32.bits() != 0 {
            ZoneKind::Dma32
        } else {
            ZoneKind::HighMem
        }
    }
}

/// A zone as a board lists it: everything from the end of the zone before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ZoneSpec {
    /// What its memory is good for.
    pub kind: ZoneKind,
    /// One past its last physical address, in bytes; ascending over the list.
    pub end: u64,
}

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
    const EMPTY: ZoneState = ZoneState {
        regions: core::ptr::null(),
        count: 0,
        free: 0,
        managed: 0,
        present: 0,
        largest: 0,
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
    fn limit_at(&self, kind: ZoneKind, depth: Depth) -> usize {
        let put_by = if matches!(depth, Depth::Low | Depth::Min) { self.put_by } else { 0 };
        self.marks.limit(kind, depth).saturating_add(put_by)
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

    /// [`take`](Self::take) of another region than the first.
    #[cold]
    #[inline(never)]
    fn take_behind(&mut self, (pages, align): (usize, usize), head: Head, link: u32) -> Option<u32> {
        self.take_from(1, (pages, align), head, link)
    }

    #[inline(always)]
    fn take_from(&mut self, first: usize, (pages, align): (usize, usize), head: Head, link: u32) -> Option<u32> {
        for i in first..self.count {
            // SAFETY: a region of the zone, of which there are that many.
            let region = unsafe { &*self.regions.wrapping_add(i) };
            if let Some(pfn) = self.take_of(region, pages, align, head, link) {
                return Some(pfn);
            }
        }
        None
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
            if pages == 1 {
                self.singles = region;
            }
        })
    }

    /// Takes a frame from the open word if there is one and it leaves `limit` of them, and marks it.
    #[inline(always)]
    fn take_single(&mut self, limit: usize, head: Head, link: u32) -> Option<u32> {
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
        // SAFETY: a zone with a free frame has a region.
        let region = unsafe { &*self.singles };
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
}

impl ZoneState {
    /// As [`take`](Self::take), from the high end.
    fn take_high(&mut self, frames: &FrameMap, pages: usize, limit: usize, head: Head, link: u32) -> Option<u32> {
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

/// How a block of `pages` frames that is to be marked `head` is aligned: blocks of pages and areas, as they promise, to the
/// next power of two; what is cut into objects or is one, whose alignment divides its size, to the largest power of two
/// that divides its length.
#[inline(always)]
const fn align_for(pages: usize, head: Head) -> usize {
    if head.is(FrameKind::Held) || head.is(FrameKind::Large) {
        pages.trailing_zeros() as usize
    } else {
        order_for(pages)
    }
}

/// A zone with its lock held.
pub type ZoneGuard<'a, L> = Guard<'a, L, ZoneState>;

/// The zones of a manager.
pub struct Zones<L: RawLock> {
    zones: [Locked<L, ZoneState>; MAX_ZONES],
    /// For each kind, the index of the highest zone a request for it may use.
    entry: [AtomicU8; 4],
    /// [`offset`](Self::offset) of the one for `Normal`, if there is one, else of a zone without frames.
    normal: AtomicUsize,
}

impl<L: RawLock> Zones<L> {
    /// No zones.
    pub const fn new() -> Self {
        Zones {
            zones: [const { Locked::new(ZoneState::EMPTY) }; MAX_ZONES],
            entry: [const { AtomicU8::new(NO_ZONE) }; 4],
            normal: AtomicUsize::new(0),
        }
    }

    /// The index, or that of some zone for one that is none.
    #[inline(always)]
    const fn place(index: usize) -> usize {
        if MAX_ZONES.is_power_of_two() {
            index % MAX_ZONES
        } else if index < MAX_ZONES {
            index
        } else {
            0
        }
    }

    /// How many bytes into the zones the one with this index stands.
    pub const fn offset(index: usize) -> usize {
        Self::place(index) * size_of::<Locked<L, ZoneState>>()
    }

    /// The zone at an offset.
    ///
    /// # Safety
    /// [`offset`](Self::offset) gave it.
    #[inline(always)]
    unsafe fn zone_at(&self, offset: usize) -> &Locked<L, ZoneState> {
        // SAFETY: of a zone, by the caller's word.
        unsafe { &*self.zones.as_ptr().byte_add(offset) }
    }

    /// The highest zone of requests for `Normal`.
    #[inline(always)]
    pub fn normal(&self) -> &Locked<L, ZoneState> {
        // SAFETY: the offset of a zone.
        unsafe { self.zone_at(self.normal.load(Relaxed)) }
    }

    /// [`take`](Self::take) of a single frame for `Normal`, if the open word of the highest zone has one. Tells too what
    /// the lock tells of interrupts.
    ///
    /// # Errors
    /// The zone's section, which is still open.
    #[inline(always)]
    pub fn take_single(&self, head: Head, link: u32) -> Result<(u32, Option<bool>), L::Token> {
        let mut zone = self.normal().lock();
        let limit = zone.limit(ZoneKind::Normal);
        match zone.take_single(limit, head, link) {
            Some(pfn) => Ok((pfn, zone.was_masked())),
            None => Err(zone.suspend()),
        }
    }

    /// [`take`](Self::take) of a single frame, if the open word of the highest zone for `kind` has one.
    #[inline(always)]
    pub fn take_single_of(&self, kind: ZoneKind, head: Head, link: u32) -> Option<u32> {
        let mut zone = self.zones.get(self.entry(kind))?.lock();
        let limit = zone.limit(kind);
        zone.take_single(limit, head, link)
    }

    /// Gives a single frame back if its record is `head`; false when it is not. When its word is not the open one, or
    /// somebody waits, `edge` goes on with the zone still locked: by [`retell`](Self::retell) and serving him.
    #[inline(always)]
    pub fn give_single(
        &self,
        single: Single<'_>,
        head: Head,
        waiting: &Waiting<L>,
        edge: impl FnOnce(L::Token, &Region, *mut Word),
    ) -> bool {
        // SAFETY: the offset of the frame's zone.
        let mut zone = unsafe { self.zone_at(single.zone) }.lock();
        if single.frame.head() != head {
            return false;
        }
        single.frame.set_head(Head::new(FrameKind::Tail, 0, 0));
        zone.free += 1;
        // SAFETY: a word of the region's buddy, whose zone's lock is held.
        unsafe { *single.word |= 1 << single.bit };
        // SAFETY: as above, and this is the only reference.
        if !unsafe { single.region.buddy() }.is_open(single.word) || waiting.is_any() {
            edge(zone.suspend(), single.region, single.word);
        }
        true
    }

    /// Goes on where [`give_single`](Self::give_single) left off: tells the buddy, unless the word is the open one.
    ///
    /// # Safety
    /// The arguments are those of `edge`.
    #[inline(always)]
    pub unsafe fn retell<'z>(&'z self, token: L::Token, region: &Region, word: *mut Word) -> ZoneGuard<'z, L> {
        // SAFETY: `give_single` locked this zone, and left its section to the caller.
        let zone = unsafe { self.zone(region.zone()).resume(token) };
        // SAFETY: the zone's lock is held, and this is the only reference; the word is of this region.
        unsafe {
            if !region.buddy().is_open(word) {
                region.buddy().retell(word);
            }
        }
        zone
    }

    /// The zone with this index.
    pub fn zone(&self, index: usize) -> &Locked<L, ZoneState> {
        &self.zones[Self::place(index)]
    }

    /// Lists the zones, lowest first; called once, by `init`.
    pub fn set_kinds(&self, specs: &[ZoneSpec]) {
        for (index, spec) in specs.iter().enumerate().take(MAX_ZONES) {
            self.zones[index].lock().kind = Some(spec.kind);
            for kind in spec.kind as usize..self.entry.len() {
                self.entry[kind].store(index as u8, Relaxed);
            }
        }
    }

    /// Works out the marks; called once, by `init`, when every zone has its frames.
    pub fn set_marks(&self, page_shift: u32, tuning: &Tuning) {
        let mut zones: heapless::Vec<(ZoneKind, usize), MAX_ZONES> = heapless::Vec::new();
        for zone in &self.zones {
            let zone = zone.lock();
            let Some(kind) = zone.kind else { break };
            let _ = zones.push((kind, zone.managed));
        }
        // A PC with little memory lists zones without a frame: requests need not begin there.
        for entry in &self.entry {
            let mut index = usize::from(entry.load(Relaxed));
            while index != 0 && index < MAX_ZONES && self.zones[index].lock().managed == 0 {
                index -= 1;
            }
            entry.store(index as u8, Relaxed);
        }
        // Without a zone for Normal not every zone is listed, and the last has no frames.
        let normal = self.entry(ZoneKind::Normal).min(MAX_ZONES - 1);
        self.normal.store(Self::offset(normal), Relaxed);
        for (zone, marks) in self.zones.iter().zip(watermark::marks(&zones, page_shift, tuning)) {
            let mut zone = zone.lock();
            zone.marks = marks;
            zone.put_by(0);
        }
    }

    /// Free frames above the `min` marks.
    pub fn available(&self) -> usize {
        let above_min = |zone: &Locked<L, ZoneState>| {
            let zone = zone.lock();
            zone.free.saturating_sub(zone.marks.min)
        };
        self.zones.iter().map(above_min).sum()
    }

    /// The index of the highest zone a request for `kind` may use; `MAX_ZONES` or more when there is none.
    #[inline(always)]
    pub fn entry(&self, kind: ZoneKind) -> usize {
        self.entry[kind as usize].load(Relaxed) as usize
    }

    /// The first pass: takes the lowest block of `pages` frames from the highest zone the flags allow that has one and
    /// stays above its low mark, then from lower ones. Marks its first frame.
    #[inline(always)]
    pub fn take(&self, pages: usize, flags: Gfp, head: Head, link: u32) -> Option<u32> {
        let kind = ZoneKind::of(flags);
        let mut index = self.entry(kind);
        while index < MAX_ZONES {
            let mut zone = self.zones[index].lock();
            let limit = zone.limit(kind);
            if let Some(pfn) = zone.take((pages, align_for(pages, head)), limit, head, link) {
                return Some(pfn);
            }
            drop(zone);
            index = index.wrapping_sub(1);
        }
        None
    }

    /// As [`take`](Self::take), the highest block, at the high end of the zone: for what is large and stays. Aligned to the
    /// largest power of two that divides its length. There are two pages of it at least.
    #[cold]
    #[inline(never)]
    pub fn take_high(&self, frames: &FrameMap, pages: usize, kind: ZoneKind, head: Head, link: u32) -> Option<u32> {
        let mut index = self.entry(kind);
        while index < MAX_ZONES {
            let mut zone = self.zones[index].lock();
            let limit = zone.limit(kind);
            if let Some(pfn) = zone.take_high(frames, pages, limit, head, link) {
                return Some(pfn);
            }
            drop(zone);
            index = index.wrapping_sub(1);
        }
        None
    }

    /// As [`take`](Self::take), down to `depth`.
    ///
    /// # Errors
    /// `NoContig` when there are as many frames to be had but no run of them, else `NoMemory`.
    #[cold]
    #[inline(never)]
    pub fn take_deep(&self, pages: usize, reach: (ZoneKind, Depth), head: Head, link: u32) -> Result<u32, AllocError> {
        self.take_at(pages, reach, head, link).result()
    }

    #[cfg_attr(feature = "small", inline(never))]
    #[cfg_attr(not(feature = "small"), inline(always))]
    pub fn take_at(&self, pages: usize, (kind, depth): (ZoneKind, Depth), head: Head, link: u32) -> PackedFrame {
        let mut index = self.entry(kind);
        let mut seen = 0;
        while index < MAX_ZONES {
            let mut zone = self.zones[index].lock();
            let limit = zone.limit_at(kind, depth);
            if let Some(pfn) = zone.take((pages, align_for(pages, head)), limit, head, link) {
                return PackedFrame::new(Ok(pfn));
            }
            seen += zone.free.saturating_sub(limit);
            drop(zone);
            index = index.wrapping_sub(1);
        }
        PackedFrame::new(Err(if seen >= pages { AllocError::NoContig } else { AllocError::NoMemory }))
    }

    /// Gives a block of `pages` frames back if its record is `head`; false when it is not. `hand_over` as for
    /// [`give`](Self::give).
    #[inline(always)]
    pub fn give_known(
        &self,
        single: Single<'_>,
        head: Head,
        pages: usize,
        waiting: &Waiting<L>,
        hand_over: impl FnOnce(ZoneGuard<'_, L>),
    ) -> bool {
        // SAFETY: the offset of the frame's zone.
        let mut zone = unsafe { self.zone_at(single.zone) }.lock();
        if single.frame.head() != head {
            return false;
        }
        single.frame.set_head(Head::new(FrameKind::Tail, 0, 0));
        // SAFETY: the zone's lock is held, and this is the only reference; the word is of this region.
        unsafe { single.region.buddy().give_from(single.word, single.bit, pages) };
        zone.free += pages;
        if waiting.is_any() {
            hand_over(zone);
        }
        true
    }

    /// Gives back a block whose head `admit` accepts; all under the zone's lock, so that of two frees one is refused.
    ///
    /// `admit` returns the block's pages, or why it is refused; it is told whether the frame is free. When somebody
    /// waits, `hand_over` gets the zone, still locked, to serve him.
    #[inline(always)]
    pub fn give<E>(
        &self,
        region: &Region,
        frame: &Frame,
        pfn: u32,
        admit: impl FnOnce(Head, &dyn Fn() -> bool) -> Result<usize, E>,
        waiting: &Waiting<L>,
        hand_over: impl FnOnce(ZoneGuard<'_, L>),
    ) -> Result<usize, E> {
        let mut zone = self.zones[Self::place(region.zone())].lock();
        // SAFETY: the zone's lock is held, and this is the only reference while it lives.
        let pages = admit(frame.head(), &|| unsafe { region.buddy() }.is_free(pfn))?;
        frame.set_head(Head::new(FrameKind::Tail, 0, 0));
        // SAFETY: the zone's lock is held, and the reference above is gone.
        unsafe { region.buddy() }.give(pfn, pages);
        zone.free += pages;
        if waiting.is_any() {
            hand_over(zone);
        }
        Ok(pages)
    }
}
