//! Zones: which memory a request may come from, how much of it must stay free, and the lock around its buddies.

mod watermark;

pub use watermark::{Depth, Marks, Tuning};

mod batch;
mod give;
mod query;
mod state;

pub use batch::BATCH;
pub use state::ZoneState;

use crate::bits::order_for;
use crate::error::{AllocError, PackedFrame};
use crate::frame::{FrameKind, FrameMap, Head, Region};
use crate::gfp::Gfp;
use crate::lock::{Guard, Locked};
use crate::platform::RawLock;
#[cfg(not(feature = "small"))]
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The most zones a board can list.
pub const MAX_ZONES: usize = if cfg!(feature = "small") { 3 } else { 4 };
const NO_ZONE: u8 = u8::MAX;

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

    /// By the three flags that say where memory may lie.
    const BY_BITS: &'static [ZoneKind; 8] = &{
        assert!(Gfp::DMA.bits() == 1 && Gfp::HIGHMEM.bits() == 2 && Gfp::DMA32.bits() == 4);
        use ZoneKind::{Dma, Dma32, HighMem, Normal};
        [Normal, Dma, HighMem, Dma, Dma32, Dma, Dma32, Dma]
    };

    /// The highest kind a request with these flags may take from.
    #[inline(always)]
    pub const fn of(flags: Gfp) -> ZoneKind {
        let bits = flags.bits();
        if cfg!(feature = "small") {
            return Self::BY_BITS[(bits & 7) as usize];
        }
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
    #[cfg(not(feature = "small"))]
    normal: AtomicUsize,
}

impl<L: RawLock> Zones<L> {
    /// No zones.
    pub const fn new() -> Self {
        Zones {
            zones: [const { Locked::new(ZoneState::EMPTY) }; MAX_ZONES],
            entry: [const { AtomicU8::new(NO_ZONE) }; 4],
            #[cfg(not(feature = "small"))]
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

    /// The zone of a region.
    #[inline(always)]
    pub fn zone_of(&self, region: &Region) -> &Locked<L, ZoneState> {
        #[cfg(feature = "small")]
        // SAFETY: the offset of the region's zone.
        return unsafe { self.zone_at(region.zone_offset()) };
        #[cfg(not(feature = "small"))]
        self.zone(region.zone())
    }

    /// The highest zone of requests for `Normal`.
    #[inline(always)]
    pub fn normal(&self) -> &Locked<L, ZoneState> {
        #[cfg(feature = "small")]
        return self.zone(self.entry(ZoneKind::Normal).min(MAX_ZONES - 1));
        #[cfg(not(feature = "small"))]
        // SAFETY: the offset of a zone.
        unsafe {
            self.zone_at(self.normal.load(Relaxed))
        }
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
        #[cfg(not(feature = "small"))]
        self.normal.store(Self::offset(self.entry(ZoneKind::Normal).min(MAX_ZONES - 1)), Relaxed);
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

    /// The zones a request for `kind` may use, the highest last.
    #[inline(always)]
    fn reach(&self, kind: ZoneKind) -> &[Locked<L, ZoneState>] {
        // None is none.
        let count = usize::from(self.entry[kind as usize].load(Relaxed).wrapping_add(1));
        // SAFETY: entries are indexes of zones, or `NO_ZONE`.
        unsafe { self.zones.get_unchecked(..count) }
    }

    /// What `take` takes from the highest zone a request for `kind` may use that has it, each locked in turn. `take` is told
    /// what it must leave in the first pass.
    #[inline(always)]
    fn first_of(&self, kind: ZoneKind, mut take: impl FnMut(&mut ZoneState, usize) -> Option<u32>) -> Option<u32> {
        let mut index = self.entry(kind);
        while index < MAX_ZONES {
            let mut zone = self.zones[index].lock();
            let limit = zone.limit(kind);
            if let Some(pfn) = take(&mut zone, limit) {
                return Some(pfn);
            }
            drop(zone);
            index = index.wrapping_sub(1);
        }
        None
    }

    /// The first pass: takes the lowest block of `pages` frames from the highest zone the flags allow that has one and
    /// stays above its low mark, then from lower ones. Marks its first frame.
    #[inline(always)]
    pub fn take(&self, pages: usize, flags: Gfp, head: Head, link: u32) -> Option<u32> {
        let align = align_for(pages, head);
        self.first_of(ZoneKind::of(flags), |zone, limit| zone.take((pages, align), limit, head, link))
    }

    /// As [`take`](Self::take), the highest block, at the high end of the zone: for what is large and stays. Aligned to the
    /// largest power of two that divides its length. There are two pages of it at least.
    #[cold]
    #[inline(never)]
    pub fn take_high(&self, frames: &FrameMap, pages: usize, kind: ZoneKind, head: Head, link: u32) -> Option<u32> {
        self.first_of(kind, |zone, limit| zone.take_high(frames, pages, limit, head, link))
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

    /// Both passes, the second down to `last`, by the same code.
    ///
    /// # Errors
    /// As [`take_deep`](Self::take_deep).
    #[inline(always)]
    pub fn take_by(
        &self,
        pages: usize,
        (kind, last): (ZoneKind, Depth),
        head: Head,
        link: u32,
    ) -> Result<u32, AllocError> {
        let mut depth = Depth::Low;
        loop {
            let (first, mut seen) = (self.zones.as_ptr(), 0);
            let mut at = self.reach(kind).as_ptr_range().end;
            while at != first {
                at = at.wrapping_sub(1);
                // SAFETY: a zone, between the first and the end.
                let mut zone = unsafe { &*at }.lock();
                match zone.take_above(pages, kind, depth as usize) {
                    (Some(frame), pfn) => {
                        frame.set_link(link);
                        frame.set_head(head);
                        return Ok(pfn as u32);
                    }
                    (None, spare) => seen += spare,
                }
            }
            if depth != Depth::Low {
                return Err(if seen >= pages { AllocError::NoContig } else { AllocError::NoMemory });
            }
            depth = last;
        }
    }

    #[inline(always)]
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
}
