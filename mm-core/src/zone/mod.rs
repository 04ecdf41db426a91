//! Zones: which memory a request may come from, and the lock around its buddies.

mod batch;

pub use batch::BATCH;

use crate::error::AllocError;
use crate::frame::{Frame, FrameKind, FrameMap, Head, Region};
use crate::gfp::Gfp;
use crate::lock::Locked;
use crate::platform::RawLock;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The most zones a board can list.
pub const MAX_ZONES: usize = 4;
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
    /// Index of its first region.
    pub first: usize,
    /// How many regions it has.
    pub count: usize,
    /// Free frames.
    pub free: usize,
    /// Frames that were ever handed to the buddy.
    pub managed: usize,
    /// Frames with a record.
    pub present: usize,
    /// What it is, `None` while unlisted.
    pub kind: Option<ZoneKind>,
}

/// The zones of a manager.
pub struct Zones<L: RawLock> {
    zones: [Locked<L, ZoneState>; MAX_ZONES],
    /// For each kind, the index of the highest zone a request for it may use.
    entry: [AtomicU8; 4],
}

impl<L: RawLock> Zones<L> {
    /// No zones.
    pub const fn new() -> Self {
        Zones {
            zones: [const { Locked::new(ZoneState { first: 0, count: 0, free: 0, managed: 0, present: 0, kind: None }) };
                MAX_ZONES],
            entry: [const { AtomicU8::new(NO_ZONE) }; 4],
        }
    }

    /// The zone with this index.
    pub fn zone(&self, index: usize) -> &Locked<L, ZoneState> {
        &self.zones[index % MAX_ZONES]
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

    /// Takes the lowest block of `pages` frames from the highest zone the flags allow that has one, then from lower
    /// ones. Marks its first frame.
    ///
    /// # Errors
    /// `NoContig` when there are as many free frames but no run of them, else `NoMemory`.
    #[inline(always)]
    pub fn take(&self, frames: &FrameMap, pages: usize, flags: Gfp, head: Head, link: u32) -> Result<u32, AllocError> {
        let mut index = self.entry[ZoneKind::of(flags) as usize].load(Relaxed) as usize;
        let mut seen = 0;
        while index < MAX_ZONES {
            let mut zone = self.zones[index].lock();
            if zone.free >= pages {
                for region in frames.regions().get(zone.first..zone.first + zone.count).unwrap_or_default() {
                    // SAFETY: the zone's lock is held, and this is the only reference.
                    let Some(pfn) = (unsafe { region.buddy() }).take(pages) else { continue };
                    // SAFETY: the buddy hands out frames of its region only.
                    let frame = unsafe { region.frame_unchecked(pfn as usize) };
                    frame.set_link(link);
                    frame.set_head(head);
                    zone.free -= pages;
                    return Ok(pfn);
                }
            }
            seen += zone.free;
            drop(zone);
            index = index.wrapping_sub(1);
        }
        Err(if seen >= pages { AllocError::NoContig } else { AllocError::NoMemory })
    }

    /// Gives back a block whose head `admit` accepts; all under the zone's lock, so that of two frees one is refused.
    ///
    /// `admit` returns the block's pages, or why it is refused; it is told whether the frame is free.
    #[inline(always)]
    pub fn give<E>(
        &self,
        region: &Region,
        frame: &Frame,
        pfn: u32,
        admit: impl FnOnce(Head, &dyn Fn() -> bool) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let mut zone = self.zones[region.zone() % MAX_ZONES].lock();
        // SAFETY: the zone's lock is held, and this is the only reference while it lives.
        let pages = admit(frame.head(), &|| unsafe { region.buddy() }.is_free(pfn))?;
        frame.set_head(Head::new(FrameKind::Tail, 0, 0));
        // SAFETY: the zone's lock is held, and the reference above is gone.
        unsafe { region.buddy() }.give(pfn, pages);
        zone.free += pages;
        Ok(pages)
    }
}
