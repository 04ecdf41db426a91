//! Who holds what: the call site of every block of pages, object and area, as Linux's `page_owner` and `slub_debug=U`.
//!
//! The table has one word per frame and stands beside the frame table, out of line. For the first frame of a block the
//! word is the call site; for the first frame of a slab it is an array with a call site for each slot, in pages of its
//! own. Nothing is done when something is freed: whether something is live is told by the frame table and by the
//! slab's bits, and whoever gets it next writes its own name.

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::boot::RamMap;
use crate::error::MmError;
use crate::frame::{Frame, FrameKind, Head};
use crate::gfp::Gfp;
use crate::lock::Locked;
use crate::manager::{Mm, boot_alloc};
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::{Platform, RawLock};
use crate::slab::Slab;
use core::panic::Location;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A call site, or the array of a slab.
type Word = AtomicPtr<Location<'static>>;

/// The table of owners.
pub struct Owners<L: RawLock> {
    table: AtomicPtr<Word>,
    /// Pages in use for the arrays of slabs.
    held: Locked<L, usize>,
    /// Slabs whose array was not to be had.
    missed: AtomicUsize,
}

impl<L: RawLock> Owners<L> {
    pub const fn new() -> Self {
        let table = AtomicPtr::new(core::ptr::null_mut());
        Owners { table, held: Locked::new(0), missed: AtomicUsize::new(0) }
    }

    /// Pages in use for the arrays of slabs.
    pub fn held(&self) -> usize {
        *self.held.lock()
    }
}

impl<P: Platform, B: Backend> Memory<P, B> {
    /// Places the table; called once, by `init`, when the regions are known.
    pub(crate) fn place_owners<const N: usize>(&self, ram: &mut RamMap<N>) -> Result<(), MmError> {
        let frames: usize = self.frames.regions().iter().map(|r| (r.end() - r.start()) as usize).sum();
        let table = boot_alloc(self, ram, frames * size_of::<Word>())?;
        // Zeroed: nobody owns anything.
        self.owners.table.store(table.cast(), Ordering::Release);
        Ok(())
    }

    /// The word of a frame, which may be anything.
    fn owner_word(&self, pfn: usize) -> Option<&Word> {
        let table = self.owners.table.load(Ordering::Acquire);
        let mut before = 0;
        for region in self.frames.regions() {
            if region.holds(pfn) {
                let at = before + pfn - region.start() as usize;
                // SAFETY: the table has a word for each frame of each region, and stays as long as the manager.
                return unsafe { table.wrapping_add(at).as_ref() };
            }
            before += (region.end() - region.start()) as usize;
        }
        None
    }

    /// Makes an array of call sites for a slab of `slots` that is being made; no lock is held. Without memory above the
    /// marks its objects have no names.
    pub(crate) fn own_slab(&self, pfn: u32, slots: u16) {
        let pages = Self::array_pages(slots);
        let array = if self.poisons() {
            self.take_block_now(pages, Gfp::empty(), FrameKind::Held, NIL).ok().map(|pfn| pfn.0)
        } else {
            self.zones.take(pages, Gfp::empty(), Head::new(FrameKind::Held, 0, pages as u32), NIL)
        };
        let Some(word) = self.owner_word(pfn as usize) else { return };
        let Some(array) = array else {
            self.owners.missed.store(self.owners.missed.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
            word.store(core::ptr::null_mut(), Ordering::Relaxed);
            return;
        };
        *self.owners.held.lock() += pages;
        let array = self.frame_ptr(Pfn(array));
        // SAFETY: lowmem that was just taken, as long as that.
        unsafe { array.write_bytes(0, pages << B::PAGE_SHIFT) };
        word.store(array.cast(), Ordering::Relaxed);
    }

    /// Gives the array of a slab back that no cache has any more; no lock is held.
    pub(crate) fn disown_slab(&self, pfn: u32, slots: u16) {
        let Some(word) = self.owner_word(pfn as usize) else { return };
        let array = word.load(Ordering::Relaxed);
        word.store(core::ptr::null_mut(), Ordering::Relaxed);
        if !array.is_null() {
            let pages = Self::array_pages(slots);
            if self.free_block(self.backend.direct_frame(array.addr()), FrameKind::Held, Some(pages)).is_ok() {
                *self.owners.held.lock() -= pages;
            }
        }
    }

    fn array_pages(slots: u16) -> usize {
        (slots as usize * size_of::<Word>()).div_ceil(B::PAGE_SIZE)
    }

    /// The word of what begins at `addr` in the frame `pfn` with this record: of a block, or of an object. It is live,
    /// or its cache's lock is held.
    fn word_of(&self, pfn: usize, frame: &Frame, addr: usize) -> Option<&Word> {
        let head = frame.head();
        match head.kind() {
            FrameKind::Pages | FrameKind::Deferred | FrameKind::Large => self.owner_word(pfn),
            FrameKind::Slab | FrameKind::DmaSlab | FrameKind::CacheSlab => {
                let array = self.owner_word(pfn - head.count() as usize)?.load(Ordering::Relaxed).cast::<Word>();
                // SAFETY: the slab is live for as long as its object is.
                let slot = unsafe { Slab::slot_of(self.meta_ptr(frame.link()), addr) };
                // SAFETY: null, or an array with a word for each slot, which lives as long as the slab.
                if array.is_null() { None } else { unsafe { array.wrapping_add(slot).as_ref() } }
            }
            _ => None,
        }
    }

    /// `caller` holds what begins at `addr`, which was just allocated.
    pub(crate) fn own(&self, addr: usize, caller: &'static Location<'static>) {
        self.own_in(self.backend.direct_frame(addr), addr, caller);
    }

    /// `caller` holds the block that begins at frame `pfn`, which was just allocated.
    pub(crate) fn own_frame(&self, pfn: Pfn, caller: &'static Location<'static>) {
        self.own_in(pfn.0 as usize, 0, caller);
    }

    fn own_in(&self, pfn: usize, addr: usize, caller: &'static Location<'static>) {
        if let Some((_, frame)) = self.frames.find(pfn)
            && let Some(word) = self.word_of(pfn, frame, addr)
        {
            word.store(core::ptr::from_ref(caller).cast_mut(), Ordering::Relaxed);
        }
    }

    /// Who allocated a block of pages last that `pfn` was the first frame of. Not of slabs, whose words are arrays
    /// while they live, and null behind.
    #[cfg(feature = "debug-pagealloc")]
    pub(super) fn block_owner(&self, pfn: usize) -> Option<&'static Location<'static>> {
        let word = self.owner_word(pfn)?.load(Ordering::Relaxed);
        // SAFETY: null, or a location that `own_in` was given: the frame is of no slab.
        unsafe { word.as_ref() }
    }

    /// Who holds what begins at `addr` in frame `pfn`.
    pub(crate) fn owner(&self, pfn: usize, addr: usize) -> Option<&'static Location<'static>> {
        let (_, frame) = self.frames.find(pfn)?;
        let word = self.word_of(pfn, frame, addr)?.load(Ordering::Relaxed);
        // SAFETY: null, or a location that `own_in` was given.
        unsafe { word.as_ref() }
    }
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// The call that allocated the page block that begins at `pfn`, or that first page of a block that was split.
    ///
    /// `None` for what is not the first frame of a block of pages or large object.
    ///
    /// Context: any. Cost: constant. Out of date when it returns, unless the caller holds the block.
    #[doc(alias = "dump_page_owner")]
    pub fn page_owner(&self, pfn: Pfn) -> Option<&'static Location<'static>> {
        let head = self.memory.frames.frame(pfn)?.head();
        if !head.is(FrameKind::Pages) && !head.is(FrameKind::Large) {
            return None;
        }
        self.memory.owner(pfn.0 as usize, 0)
    }

    /// The call that allocated the object that begins at `ptr`, of kmalloc or a cache, as Linux's `SLAB_STORE_USER`
    /// keeps it. It stays when the object is freed, until the next owner's takes its place.
    ///
    /// `None` where no object begins, or its slab has [no names](Self::unnamed_slabs).
    ///
    /// Context: any. Cost: constant. Out of date when it returns, unless the caller holds the object.
    #[doc(alias = "SLAB_STORE_USER")]
    pub fn object_owner(&self, ptr: *const u8) -> Option<&'static Location<'static>> {
        let addr = ptr.addr();
        let pfn = self.memory.backend.direct_frame(addr);
        let head = self.memory.frames.find(pfn)?.1.head();
        self.with_slabs(head, |slabs| {
            let _state = slabs.state.lock();
            let (_, frame) = self.memory.frames.find(pfn).filter(|(_, frame)| frame.head() == head)?;
            let offset = addr & (B::PAGE_SIZE - 1) | (head.count() as usize) << B::PAGE_SHIFT;
            let slot = slabs.geometry.slot(offset).filter(|slot| *slot < slabs.geometry.slots as usize);
            slot.and_then(|_| self.memory.word_of(pfn, frame, addr)).map(|word| word.load(Ordering::Relaxed))
        })?
        // SAFETY: null, or a location that `own_in` was given.
        .and_then(|word| unsafe { word.as_ref() })
    }

    /// Slabs whose objects have no names, since there was no memory for them: [`allocations`](Self::allocations) lists
    /// them without a call site. Stops at `usize::MAX`.
    pub fn unnamed_slabs(&self) -> usize {
        self.memory.owners.missed.load(Ordering::Relaxed)
    }

    /// The single pages of a block that was split are their owner's.
    pub(crate) fn own_split(&self, pfn: Pfn, pages: u32) {
        if let Some(caller) = self.memory.owner(pfn.0 as usize, 0) {
            (1..pages).for_each(|i| self.memory.own_frame(Pfn(pfn.0 + i), caller));
        }
    }
}
