//! Regions: runs of frames of one zone without a hole, each with its table and its buddy.

use super::{Frame, FrameKind};
use crate::addr::Pfn;
use crate::buddy::Buddy;
use crate::error::FreeError;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A run of frames that belong to one zone and have no hole between them.
///
/// Blocks never leave a region, so none spans a hole or a zone border.
pub struct Region {
    start: u32,
    len: u32,
    frames: *const Frame,
    zone: u8,
    buddy: UnsafeCell<Buddy>,
}

impl Region {
    /// A region whose records stand at `frames`.
    pub fn new(start: u32, len: u32, frames: *const Frame, zone: u8, buddy: Buddy) -> Self {
        Region { start, len, frames, zone, buddy: UnsafeCell::new(buddy) }
    }

    /// The first frame.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// One past the last frame.
    pub fn end(&self) -> u32 {
        self.start + self.len
    }

    /// The index of the zone it belongs to.
    pub fn zone(&self) -> usize {
        self.zone as usize
    }

    /// True when the frame lies in this region.
    #[inline(always)]
    pub fn holds(&self, pfn: usize) -> bool {
        pfn.wrapping_sub(self.start as usize) < self.len as usize
    }

    /// The record of a frame of this region.
    ///
    /// # Safety
    /// `self.holds(pfn)`.
    #[inline(always)]
    pub unsafe fn frame_unchecked(&self, pfn: usize) -> &Frame {
        // SAFETY: the table has `len` records from `start` on and lives as long as the manager.
        unsafe { &*self.frames.add(pfn.wrapping_sub(self.start as usize)) }
    }

    /// The record of a frame, if it lies here.
    #[inline(always)]
    pub fn frame(&self, pfn: usize) -> Option<&Frame> {
        // SAFETY: just checked.
        self.holds(pfn).then(|| unsafe { self.frame_unchecked(pfn) })
    }

    /// The buddy of this region.
    ///
    /// # Safety
    /// The lock of the region's zone is held for as long as the reference lives, and there is no other one.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn buddy(&self) -> &mut Buddy {
        // SAFETY: exclusive by the caller's word.
        unsafe { &mut *self.buddy.get() }
    }
}

/// All regions, by ascending address. Empty until `init` publishes them.
pub struct FrameMap {
    regions: AtomicPtr<Region>,
    count: AtomicUsize,
    /// The region most frees fall into: the largest. A fixed guess costs no shared write, unlike "last hit".
    hot: AtomicPtr<Region>,
}

// SAFETY: regions are immutable once published, except for their buddies, which the zone locks guard.
unsafe impl Sync for FrameMap {}
// SAFETY: the pointers stay valid on every thread for as long as the manager's RAM does.
unsafe impl Send for FrameMap {}

impl FrameMap {
    /// No regions.
    pub const fn new() -> Self {
        FrameMap {
            regions: AtomicPtr::new(core::ptr::null_mut()),
            count: AtomicUsize::new(0),
            hot: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Makes `count` regions visible.
    ///
    /// # Safety
    /// `regions` points at `count` regions by ascending address that outlive the manager. Called once.
    pub unsafe fn publish(&self, regions: *mut Region, count: usize) {
        self.regions.store(regions, Ordering::Relaxed);
        self.count.store(count, Ordering::Release);
        if let Some(hot) = self.regions().iter().max_by_key(|r| r.len) {
            self.hot.store(core::ptr::from_ref(hot).cast_mut(), Ordering::Release);
        }
    }

    /// All regions, by ascending address.
    #[inline]
    pub fn regions(&self) -> &[Region] {
        let count = self.count.load(Ordering::Acquire);
        if count == 0 {
            return &[];
        }
        // SAFETY: published together with the count.
        unsafe { core::slice::from_raw_parts(self.regions.load(Ordering::Relaxed), count) }
    }

    /// The region and record of a frame number, which may be anything.
    #[inline(always)]
    pub fn find(&self, pfn: usize) -> Option<(&Region, &Frame)> {
        let hot = self.hot.load(Ordering::Acquire);
        if !hot.is_null() {
            // SAFETY: published, and regions live as long as the manager.
            let hot = unsafe { &*hot };
            if hot.holds(pfn) {
                // SAFETY: just checked.
                return Some((hot, unsafe { hot.frame_unchecked(pfn) }));
            }
        }
        self.find_elsewhere(pfn)
    }

    #[cold]
    #[inline(never)]
    fn find_elsewhere(&self, pfn: usize) -> Option<(&Region, &Frame)> {
        self.regions().iter().find_map(|r| Some((r, r.frame(pfn)?)))
    }

    /// The record of a frame the caller knows to exist.
    #[inline(always)]
    pub fn frame(&self, pfn: Pfn) -> Option<&Frame> {
        self.find(pfn.0 as usize).map(|(_, frame)| frame)
    }

    /// Why a frame that is not the head of a block of the wanted kind cannot be freed.
    ///
    /// `free` tells whether the buddy holds the frame as free.
    pub fn refusal(kind: FrameKind, free: bool) -> FreeError {
        match kind {
            FrameKind::Tail if free => FreeError::DoubleFree,
            FrameKind::Tail => FreeError::Interior,
            FrameKind::Reserved | FrameKind::Meta | FrameKind::Table | FrameKind::Held => FreeError::Reserved,
            FrameKind::Pending | FrameKind::Deferred => FreeError::DoubleFree,
            FrameKind::Pages | FrameKind::Large | FrameKind::Slab | FrameKind::CacheSlab | FrameKind::Mapped => {
                FreeError::WrongAllocator
            }
        }
    }
}
