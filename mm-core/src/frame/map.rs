//! Regions: runs of frames of one zone without a hole, each with its table and its buddy.

use super::{Frame, FrameKind, Head};
use crate::addr::Pfn;
use crate::bits::{WORD_MASK, WORD_SHIFT, Word};
use crate::buddy::RegionBuddy as Buddy;
use crate::error::FreeError;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, compiler_fence};

/// A run of frames that belong to one zone and have no hole between them.
///
/// Blocks never leave a region, so none spans a hole or a zone border.
pub struct Region {
    start: u32,
    len: u32,
    frames: *const Frame,
    /// Where the record of frame 0 would be.
    origin: *const Frame,
    zone: u8,
    /// How many bytes into the zones its zone stands.
    #[cfg(feature = "small")]
    zone_offset: u16,
    buddy: UnsafeCell<Buddy>,
}

impl Region {
    /// A region of this zone, which stands so many bytes into the zones, whose records stand at `frames`.
    pub fn new(start: u32, len: u32, frames: *const Frame, (zone, offset): (u8, usize), buddy: Buddy) -> Self {
        let origin = frames.wrapping_sub(start as usize);
        #[cfg(not(feature = "small"))]
        let _ = offset;
        Region {
            start,
            len,
            frames,
            origin,
            zone,
            #[cfg(feature = "small")]
            zone_offset: offset as u16,
            buddy: UnsafeCell::new(buddy),
        }
    }

    /// How many bytes into the zones its zone stands.
    #[cfg(feature = "small")]
    #[inline(always)]
    pub fn zone_offset(&self) -> usize {
        self.zone_offset.into()
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
        unsafe { &*self.origin.wrapping_add(pfn) }
    }

    /// Where all records are.
    #[inline(always)]
    pub fn records(&self) -> Records<'_> {
        Records { start: self.start, len: self.len, origin: self.origin, region: PhantomData }
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

impl Region {
    /// Why frame `pfn` of this region, whose record is `head`, cannot be freed as the head of a block of another kind.
    ///
    /// # Safety
    /// The lock of the region's zone is held, and nobody has a reference to its buddy.
    #[cfg_attr(feature = "small", inline)]
    #[cfg_attr(not(feature = "small"), inline(always))]
    pub unsafe fn refusal(&self, head: Head, pfn: u32) -> FreeError {
        // SAFETY: by the caller's word.
        if head.is(FrameKind::Tail) && unsafe { self.buddy() }.is_free(pfn) {
            return FreeError::DoubleFree;
        }
        if cfg!(feature = "small") { Self::REFUSALS[head.number().min(FrameKind::COUNT)] } else { refused(head.kind()) }
    }

    /// Of each kind when it is not free; the last of unknown ones, which are damage.
    const REFUSALS: &'static [FreeError; FrameKind::COUNT + 1] = &{
        let mut refusals = [FreeError::Reserved; FrameKind::COUNT + 1];
        let mut kind = 0;
        while kind < FrameKind::COUNT {
            refusals[kind] = refused(FrameKind::from_bits(kind as u32));
            kind += 1;
        }
        refusals
    };
}

/// Why a frame of this kind cannot be freed as another's; one of no block's is not free.
const fn refused(kind: FrameKind) -> FreeError {
    match kind {
        FrameKind::Tail => FreeError::Interior,
        FrameKind::Reserved | FrameKind::Meta | FrameKind::Table | FrameKind::Held => FreeError::Reserved,
        #[cfg(feature = "page-poison")]
        FrameKind::Withdrawn => FreeError::Reserved,
        FrameKind::Pending | FrameKind::Deferred => FreeError::DoubleFree,
        FrameKind::Pages
        | FrameKind::Large
        | FrameKind::Slab
        | FrameKind::DmaSlab
        | FrameKind::CacheSlab
        | FrameKind::Mapped => FreeError::WrongAllocator,
    }
}

/// Where a region's records are, by value: a loop keeps it in registers whatever it stores.
#[derive(Clone, Copy)]
pub struct Records<'a> {
    start: u32,
    len: u32,
    origin: *const Frame,
    region: PhantomData<&'a Region>,
}

impl<'a> Records<'a> {
    /// The record of a frame of the region.
    ///
    /// # Safety
    /// It is one.
    #[inline(always)]
    pub unsafe fn frame_unchecked(self, pfn: u32) -> &'a Frame {
        // SAFETY: the table has `len` records from `start` on and lives as long as the region.
        unsafe { &*self.origin.wrapping_add(pfn as usize) }
    }

    /// Which of the `count` frames from `first` on, one of which is, are the region's: the first, and how many.
    #[inline(always)]
    pub fn part(self, first: u32, count: u32) -> (u32, u32) {
        let low = first.max(self.start);
        (low, (self.start + self.len - low).min(count - (low - first)))
    }

    /// The record of a frame, which may be anything, if it lies here.
    #[inline(always)]
    pub fn frame(self, pfn: u32) -> Option<&'a Frame> {
        let first = self.origin.wrapping_add(self.start as usize);
        let index = (pfn as usize).wrapping_sub(self.start as usize);
        // SAFETY: just checked; the table has `len` records from `start` on and lives as long as the region.
        (index < self.len as usize).then(|| unsafe { &*first.wrapping_add(index) })
    }
}

/// A frame of the largest region, found by its address. What a free of it touches is looked up as it is asked for: with the
/// lock held few other things are in registers.
#[derive(Clone, Copy)]
pub struct Single<'a> {
    hot: &'a Hot,
    /// Its number, counted from the bit in front of the region.
    at: usize,
}

impl<'a> Single<'a> {
    /// Its record.
    #[inline(always)]
    pub fn frame(self) -> &'a Frame {
        // SAFETY: there is a frame, so there is a table, with that many records, which lives as long as the manager.
        unsafe {
            core::hint::assert_unchecked(!self.hot.frames.is_null());
            &*self.hot.frames.add(self.at)
        }
    }

    /// The word of its free bit, which its zone's lock guards.
    #[inline(always)]
    pub fn word(self) -> *mut Word {
        self.hot.words.wrapping_add(self.at >> WORD_SHIFT)
    }

    /// The number of that bit.
    #[inline(always)]
    pub fn bit(self) -> usize {
        self.at & WORD_MASK
    }

    /// Its region.
    #[inline(always)]
    pub fn region(self) -> &'a Region {
        // SAFETY: there is a frame, so there is a region, which lives as long as the manager.
        unsafe {
            core::hint::assert_unchecked(!self.hot.region.is_null());
            &*self.hot.region
        }
    }

    /// How many bytes into the zones its zone stands.
    #[inline(always)]
    pub fn zone(self) -> usize {
        self.hot.zone
    }
}

/// All regions, by ascending address. Empty until `init` publishes them.
pub struct FrameMap {
    regions: AtomicPtr<Region>,
    count: AtomicUsize,
    /// The region most frees fall into: the largest with kernel addresses. A fixed guess costs no shared write, unlike
    /// "last hit".
    hot: UnsafeCell<Kept>,
}

/// What a lookup needs of the region most frees fall into, in one place.
///
/// It begins where a word of the buddy's bitmap does: up to a word of records in front of the region's are reserved.
struct Hot {
    region: *const Region,
    /// The region's first frame and how many it has: without the frames in front.
    start: u32,
    count: u32,
    /// The address of its first byte, its length in frames, its records and its words of free bits.
    addr: usize,
    len: usize,
    frames: *const Frame,
    words: *mut Word,
    /// How many bytes into the zones its zone stands.
    zone: usize,
    /// Where the direct map has physical address 0, if it is linear.
    direct: *mut u8,
}

impl Hot {
    const NONE: Hot = Hot {
        region: core::ptr::null(),
        start: 0,
        count: 0,
        addr: 0,
        len: 0,
        frames: core::ptr::null(),
        words: core::ptr::null_mut(),
        zone: 0,
        direct: core::ptr::null_mut(),
    };
}

/// What is kept of it: all, or where code is to be small no region is looked at first.
#[cfg(not(feature = "small"))]
type Kept = Hot;

/// See above.
#[cfg(feature = "small")]
struct Kept {
    direct: *mut u8,
}

#[cfg(feature = "small")]
impl Kept {
    const NONE: Kept = Kept { direct: core::ptr::null_mut() };
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
            hot: UnsafeCell::new(Kept::NONE),
        }
    }

    /// Makes `count` regions visible. `addr` tells the kernel address of a region's first byte, if all of it has one;
    /// `direct` is where the direct map has physical address 0, if it is linear.
    ///
    /// # Safety
    /// `regions` points at `count` regions by ascending address that outlive the manager; in front of each one's records
    /// stand `Buddy::lead` reserved ones. Called once, with interrupts
    /// masked, and while no other CPU uses the manager.
    pub unsafe fn publish(
        &self,
        regions: *mut Region,
        count: usize,
        page_shift: u32,
        addr: impl Fn(&Region) -> Option<usize>,
        zone: impl Fn(&Region) -> usize,
        direct: *mut u8,
    ) {
        self.regions.store(regions, Ordering::Release);
        self.count.store(count, Ordering::Release);
        let lowmem = self.regions().iter().filter_map(|r| Some((r, addr(r)?)));
        if let Some((region, addr)) = lowmem.max_by_key(|(r, _)| r.len) {
            // SAFETY: the region's zone has no frames yet, so nobody uses its buddy.
            let (words, first) = unsafe { region.buddy() }.word_of(region.start);
            let lead = (region.start - first) as usize;
            let hot = Hot {
                region,
                start: region.start,
                count: region.len,
                addr: addr.wrapping_sub(lead << page_shift),
                len: lead + region.len as usize,
                frames: region.frames.wrapping_sub(lead),
                words,
                zone: zone(region),
                direct,
            };
            #[cfg(feature = "small")]
            let hot = Kept { direct: hot.direct };
            // SAFETY: nobody reads meanwhile, by the caller's word.
            unsafe { self.hot.get().write(hot) };
        }
    }

    /// What a free of the single frame at kernel address `addr` (which may be anything) needs, if it is in the largest
    /// region and at the start of a page.
    #[inline(always)]
    pub fn single_at(&self, addr: usize, page_shift: u32) -> Option<Single<'_>> {
        let hot = self.hot();
        // Rotated, the offset within the page makes the number too large.
        let at = addr.wrapping_sub(hot.addr).rotate_right(page_shift);
        if at >= hot.len {
            return None;
        }
        Some(Single { hot, at })
    }

    /// Where a linear direct map has physical address 0.
    #[inline(always)]
    pub fn direct(&self) -> *mut u8 {
        // SAFETY: written once, by `publish`, whose contract excludes readers.
        unsafe { (*self.hot.get()).direct }
    }

    #[inline(always)]
    fn hot(&self) -> &Hot {
        #[cfg(feature = "small")]
        return &Hot::NONE;
        #[cfg(not(feature = "small"))]
        // SAFETY: written once, by `publish`, whose contract excludes readers.
        unsafe {
            &*self.hot.get()
        }
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
    #[cfg_attr(feature = "small", inline(never))]
    #[cfg_attr(not(feature = "small"), inline(always))]
    pub fn find(&self, pfn: usize) -> Option<(&Region, &Frame)> {
        if cfg!(feature = "small") {
            // `publish` excludes other CPUs; an interrupt sees what its own did in the order it was written.
            let mut at = self.regions.load(Ordering::Relaxed);
            compiler_fence(Ordering::Acquire);
            // SAFETY: null, or published, and the last region has one behind it that holds nothing.
            while let Some(region) = unsafe { at.as_ref() }.filter(|region| region.len != 0) {
                if region.holds(pfn) {
                    // SAFETY: just checked.
                    return Some((region, unsafe { region.frame_unchecked(pfn) }));
                }
                at = at.wrapping_add(1);
            }
            return None;
        }
        let hot = self.hot();
        if pfn.wrapping_sub(hot.start as usize) < hot.count as usize {
            // SAFETY: a region that holds a frame is published, and lives as long as the manager; it holds this one.
            unsafe {
                core::hint::assert_unchecked(!hot.region.is_null());
                let region = &*hot.region;
                return Some((region, region.frame_unchecked(pfn)));
            }
        }
        self.find_elsewhere(pfn)
    }

    /// True when the frame, which may be anything, is in the largest region; [`find`](Self::find) looks everywhere.
    #[inline(always)]
    pub fn is_hot(&self, pfn: Pfn) -> bool {
        let hot = self.hot();
        pfn.0.wrapping_sub(hot.start) < hot.count
    }

    /// The records of `count` frames from `first` on, which one region holds; none when no region holds them all.
    #[inline]
    #[cfg_attr(feature = "small", allow(dead_code))]
    pub fn block(&self, first: Pfn, count: usize) -> &[Frame] {
        match self.find(first.0 as usize) {
            Some((region, frame)) if count <= (region.end() - first.0) as usize => {
                // SAFETY: the region's table has the records of all its frames in order, and lives as long as the
                // manager; what changes in them is atomic.
                unsafe { core::slice::from_raw_parts(frame, count) }
            }
            _ => &[],
        }
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
}
