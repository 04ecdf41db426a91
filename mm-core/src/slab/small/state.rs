//! What the lock of a cache guards: the slabs that have a free slot.

use super::super::{Geometry, Slab};
use crate::bits::{WORD_SHIFT, Word, lowest};
use crate::frame::{FrameKind, Head};
use core::ptr::NonNull;

/// Whose slabs they are, and how they are cut: as [`CacheState::set_up`] was told.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub geometry: *const Geometry,
    /// The mark of a slab's first frame.
    pub head: Head,
}

impl Cut {
    #[inline(always)]
    pub fn geometry<'a>(&self) -> &'a Geometry {
        // SAFETY: it lives as long as the state, and so as whoever has the slabs.
        unsafe { &*self.geometry }
    }
}

/// A word that was open: there is none.
pub enum OpenWord {}

/// The part of a cache that its lock guards.
pub struct CacheState {
    /// The first slab that has a free slot.
    pub(super) head: *mut Slab,
    /// How slabs are cut.
    geometry: *const Geometry,
    /// Slabs, listed or not.
    pub(super) slabs: u32,
    /// The mark of a slab's first frame: `Slab` and the class for kmalloc's, `Meta` and the size for descriptors, `CacheSlab`
    /// and the number of the cache for the rest.
    mark: Head,
}

// SAFETY: the pointers are into the manager's RAM, good on every thread; the lock guards their use.
unsafe impl Send for CacheState {}

impl CacheState {
    /// A cache without slabs, which wants pages that are not there before it is set up.
    pub const fn new() -> Self {
        const UNMADE: &Geometry = &Geometry::cut(8, 1, 1, 8);
        let head = core::ptr::null_mut();
        CacheState { head, geometry: UNMADE, slabs: 0, mark: Head::new(FrameKind::Slab, 0, 0) }
    }

    /// Says whose slabs they are, and how they are cut.
    ///
    /// # Safety
    /// The geometry lives as long as this does; of a `CacheSlab`, it is that of its control block.
    pub unsafe fn set_up(&mut self, geometry: *const Geometry, kind: FrameKind, owner: u8) {
        (self.geometry, self.mark) = (geometry, Head::new(kind, owner, 0));
    }

    /// [`Geometry::recip`] of slabs that are cut so.
    ///
    /// # Safety
    /// The state is set up, and lives.
    #[inline(always)]
    pub(in super::super) unsafe fn recip(this: *const CacheState) -> u32 {
        // SAFETY: by the caller's word; what is read was written before there was a slab.
        unsafe { (*(*this).geometry).recip }
    }

    #[inline(always)]
    pub(super) fn cut(&self) -> Cut {
        Cut { geometry: self.geometry, head: self.mark }
    }

    /// True when no slot of a live slab is in use.
    #[inline(always)]
    pub(super) fn is_free(&self, slab: *mut Slab) -> bool {
        // SAFETY: the slab is live, the lock is held, and the geometry lives as long as the state.
        unsafe { (*slab).free == (*self.geometry).slots.into() }
    }

    /// Takes the lowest free slot of the first slab that has one.
    ///
    /// Cost: a step for each word of a slab's bits, of which there are sixteen at most.
    #[cfg_attr(feature = "small", inline(always))]
    pub fn take(&mut self) -> Option<NonNull<u8>> {
        let slab = self.head;
        // SAFETY: listed first, and the lock is held.
        (!slab.is_null()).then(|| unsafe { self.take_of(slab) })
    }

    /// Takes the lowest free slot of a slab.
    ///
    /// # Safety
    /// It is listed first, and the lock is held.
    #[inline(always)]
    pub(super) unsafe fn take_of(&mut self, slab: *mut Slab) -> NonNull<u8> {
        let words = Slab::words(slab);
        let mut at = words;
        // SAFETY: listed slabs are live, the lock is held, and one of their bits is set, so that the loop ends at one of
        // their words.
        unsafe {
            while *at == 0 {
                at = at.add(1);
            }
            let word = *at;
            *at = word & (word - 1);
            let slot = (at.offset_from_unsigned(words) << WORD_SHIFT) + lowest(word);
            (*slab).free -= 1;
            if (*slab).free == 0 {
                self.head = (*slab).next;
            }
            let addr = (slot * (*self.geometry).size as usize).wrapping_sub((*slab).origin);
            // Both lie in memory that is reached through the same mapping. Slots have a kernel address.
            NonNull::new_unchecked(slab.cast::<u8>().with_addr(addr))
        }
    }

    /// Somebody may be waiting for an object from now on, or nobody any more: every section asks the queue itself.
    #[inline(always)]
    pub(in super::super) fn set_waited(&mut self, _waited: bool) {}

    /// No word is open.
    #[inline(always)]
    pub fn take_open(&mut self) -> Result<NonNull<u8>, Option<OpenWord>> {
        Err(None)
    }

    /// See [`take_open`](Self::take_open).
    #[inline(always)]
    pub fn take_first(&mut self, word: OpenWord) -> NonNull<u8> {
        match word {}
    }

    /// There is no current word of which a CPU could keep a part.
    pub fn take_more(&mut self, _most: usize) -> (*mut u8, Word) {
        (core::ptr::null_mut(), 0)
    }

    /// Lists a slab first, or behind the first when that one is wholly free: it is kept only while those who wait are served,
    /// and found again by its place.
    ///
    /// # Safety
    /// It is live and unlisted, and the lock is held.
    #[inline(always)]
    pub(super) unsafe fn link(&mut self, slab: *mut Slab) {
        let first = self.head;
        // SAFETY: by the caller's word; listed slabs are live.
        unsafe {
            let at = match !first.is_null() && self.is_free(first) {
                true => &raw mut (*first).next,
                false => &raw mut self.head,
            };
            let next = at.replace(slab);
            (*slab).next = next;
            (*slab).prev = first;
            if !next.is_null() {
                (*next).prev = slab;
            }
        }
    }

    /// Takes a slab off the list.
    ///
    /// # Safety
    /// It is listed, and the lock is held.
    #[inline(always)]
    pub(super) unsafe fn unlink(&mut self, slab: *mut Slab) {
        // SAFETY: by the caller's word; listed slabs are live, and all but the first know the one before.
        unsafe {
            let (next, prev) = ((*slab).next, (*slab).prev);
            if self.head == slab {
                self.head = next;
            } else {
                (*prev).next = next;
            }
            if !next.is_null() {
                (*next).prev = prev;
            }
        }
    }
}
