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
    /// The region most frees fall into: the largest with kernel addresses. A fixed guess costs no shared write, unlike
    /// "last hit".
    hot: UnsafeCell<Hot>,
}

/// What a lookup needs of the region most frees fall into, in one place.
struct Hot {
    region: *const Region,
    /// The address of its first byte, its length in frames, and its records.
    addr: usize,
    len: usize,
    frames: *const Frame,
    /// Where the direct map has physical address 0, if it is linear.
    direct: *mut u8,
}

// SAFETY: regions are immutable once published, except for their buddies, which the zone locks guard; `hot` is written
// once, by `publish`, whose contract excludes readers.
unsafe impl Sync for FrameMap {}
// SAFETY: the pointers stay valid on every thread for as long as the manager's RAM does.
unsafe impl Send for FrameMap {}

impl FrameMap {
    /// No regions.
    pub const fn new() -> Self {
        FrameMap {
            regions: AtomicPtr::new(core::ptr::null_mut()),
            count: AtomicUsize::new(0),
            hot: UnsafeCell::new(Hot {
                region: core::ptr::null(),
                addr: 0,
                len: 0,
                frames: core::ptr::null(),
                direct: core::ptr::null_mut(),
            }),
        }
    }

    /// Makes `count` regions visible. `addr` tells the kernel address of a region's first byte, if all of it has one;
    /// `direct` is where the direct map has physical address 0, if it is linear.
    ///
    /// # Safety
    /// `regions` points at `count` regions by ascending address that outlive the manager. Called once, with interrupts
    /// masked, and while no other CPU uses the manager.
    pub unsafe fn publish(
        &self,
        regions: *mut Region,
        count: usize,
        addr: impl Fn(&Region) -> Option<usize>,
        direct: *mut u8,
    ) {
        self.regions.store(regions, Ordering::Relaxed);
        self.count.store(count, Ordering::Release);
        let lowmem = self.regions().iter().filter_map(|r| Some((r, addr(r)?)));
        if let Some((region, addr)) = lowmem.max_by_key(|(r, _)| r.len) {
            let hot = Hot { region, addr, len: region.len as usize, frames: region.frames, direct };
            // SAFETY: nobody reads meanwhile, by the caller's word.
            unsafe { self.hot.get().write(hot) };
        }
    }

    /// Where a linear direct map has physical address 0.
    #[inline(always)]
    pub fn direct(&self) -> *mut u8 {
        self.hot().direct
    }

    #[inline(always)]
    fn hot(&self) -> &Hot {
        // SAFETY: written once, by `publish`, whose contract excludes readers.
        unsafe { &*self.hot.get() }
    }

    /// The record of the frame that holds kernel address `addr` (which may be anything), if it is in the largest
    /// region; [`find`](Self::find) looks everywhere.
    #[inline(always)]
    pub fn frame_at(&self, addr: usize, page_shift: u32) -> Option<&Frame> {
        let hot = self.hot();
        let at = addr.wrapping_sub(hot.addr) >> page_shift;
        if at >= hot.len {
            return None;
        }
        // SAFETY: there is a frame, so there is a table, with that many records, which lives as long as the manager.
        unsafe {
            core::hint::assert_unchecked(!hot.frames.is_null());
            Some(&*hot.frames.add(at))
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
        // SAFETY: null, or published, and regions live as long as the manager.
        if let Some(hot) = unsafe { self.hot().region.as_ref() }
            && hot.holds(pfn)
        {
            // SAFETY: just checked.
            return Some((hot, unsafe { hot.frame_unchecked(pfn) }));
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
            FrameKind::Pages
            | FrameKind::Large
            | FrameKind::Slab
            | FrameKind::DmaSlab
            | FrameKind::CacheSlab
            | FrameKind::Mapped => FreeError::WrongAllocator,
        }
    }
}
