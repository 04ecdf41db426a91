//! A cache: its listed slabs, the current word, and the three transitions of a slab.
//!
//! Invariants, under the cache's lock:
//! - every listed slab but the first has a free slot; the first may have used up its last one unnoticed;
//! - the first listed slab holds the current word; its summary bit may be set though the word is used up;
//! - a slab that is wholly free is listed first or is on its way back to the buddy.

use super::{LISTED, Slab, meta_size};
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::bits::{WORD_MASK, WORD_SHIFT, Word, lowest};
use crate::error::{AllocError, FreeError};
use crate::fault::FaultClass;
use crate::frame::{Frame, FrameKind, Head};
use crate::gfp::Gfp;
use crate::lock::{Guard, Locked};
use crate::memory::Memory;
use crate::meta::{MetaSize, NIL};
use crate::platform::Platform;
use crate::slab::Geometry;
use core::ptr::NonNull;

/// What a cache without a free slot points at. Never written.
static USED_UP: Word = 0;

/// The part of a cache that its lock guards.
pub struct CacheState {
    /// The current word of free bits.
    current: *mut Word,
    /// The slot of the current word's bit 0.
    base: *mut u8,
    /// The first listed slab.
    pub(super) head: u32,
    /// Slabs, listed or not.
    pub(super) slabs: u32,
}

// SAFETY: the pointers are into the manager's RAM, good on every thread; the lock guards their use.
unsafe impl Send for CacheState {}

impl CacheState {
    /// A cache without slabs.
    pub const fn new() -> Self {
        CacheState { current: (&raw const USED_UP).cast_mut(), base: core::ptr::null_mut(), head: NIL, slabs: 0 }
    }
}

/// A cache together with what its operations need.
pub struct Slabs<'a, P: Platform, B: Backend> {
    /// Where the memory comes from.
    pub memory: &'a Memory<P, B>,
    /// How slabs are cut.
    pub geometry: &'a Geometry,
    /// What the lock guards.
    pub state: &'a Locked<P::Lock, CacheState>,
    /// `Slab` for kmalloc's classes, `CacheSlab` for the rest.
    pub kind: FrameKind,
    /// The class, or the number of the cache.
    pub owner: u16,
}

type State<'a, P> = Guard<'a, <P as Platform>::Lock, CacheState>;

impl<'a, P: Platform, B: Backend> Slabs<'a, P, B> {
    #[inline(always)]
    pub(super) fn slab(&self, id: u32) -> *mut Slab {
        self.memory.meta_ptr(id)
    }

    /// Takes an object. Its contents are undefined.
    ///
    /// Context: any. Cost: constant; a new slab adds a block and a descriptor, outside this cache's lock.
    ///
    /// # Errors
    /// `NoMemory`, `NoContig`, `NotReady`.
    #[inline(always)]
    pub fn alloc(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let mut state = self.state.lock();
        // SAFETY: the current word is a word of a listed slab or `USED_UP`.
        let word = unsafe { *state.current };
        if word == 0 {
            return self.alloc_slow(state, flags);
        }
        // SAFETY: not `USED_UP`, since it has a bit.
        unsafe { *state.current = word & (word - 1) };
        Ok(self.object(state.base, lowest(word)))
    }

    #[inline(always)]
    fn object(&self, base: *mut u8, slot: usize) -> NonNull<u8> {
        // SAFETY: slots lie in the slab's pages, which have a kernel address, so the pointer is not null.
        unsafe { NonNull::new_unchecked(base.wrapping_add(slot * self.geometry.size as usize)) }
    }

    /// Makes word `w` of a slab the current one.
    #[inline(always)]
    fn point(&self, state: &mut CacheState, slab: *mut Slab, w: usize) {
        // SAFETY: the slab is listed and the lock held.
        let pfn = unsafe { (*slab).pfn };
        state.current = Slab::words(slab).wrapping_add(w);
        let offset = self.geometry.slack as usize + (w << WORD_SHIFT) * self.geometry.size as usize;
        state.base = self.memory.frame_ptr(Pfn(pfn)).wrapping_add(offset);
    }

    /// Takes the lowest slot of the current word, which has one.
    #[inline(always)]
    fn take(&self, state: &CacheState) -> NonNull<u8> {
        // SAFETY: the current word is a word of a listed slab.
        let word = unsafe { *state.current };
        // SAFETY: as above.
        unsafe { *state.current = word & (word - 1) };
        self.object(state.base, lowest(word))
    }

    /// The current word is used up: the next word of its slab, or the next slab, or a new one.
    #[inline(never)]
    fn alloc_slow(&self, mut state: State<'_, P>, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let id = state.head;
        if id != NIL {
            let slab = self.slab(id);
            let used = (state.current.addr() - Slab::words(slab).addr()) / size_of::<Word>();
            // SAFETY: listed slabs are live, and the lock is held.
            unsafe {
                (*slab).summary &= !(1 << used);
                if (*slab).summary != 0 {
                    self.point(&mut state, slab, lowest((*slab).summary as Word));
                    return Ok(self.take(&state));
                }
                (*slab).owner &= !LISTED;
                let next = (*slab).next;
                state.head = next;
                if next != NIL {
                    let slab = self.slab(next);
                    (*slab).prev = NIL;
                    self.point(&mut state, slab, lowest((*slab).summary as Word));
                    return Ok(self.take(&state));
                }
            }
            state.current = (&raw const USED_UP).cast_mut();
        }
        drop(state);
        self.grow(flags)
    }

    /// Makes a slab, keeps its first object, and lists it if there are more.
    #[cold]
    #[inline(never)]
    fn grow(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let g = self.geometry;
        self.memory.fault_point(FaultClass::Slab)?;
        let pfn = self.memory.take_block(g.pages as usize, flags, FrameKind::Held, 0)?;
        let id = match self.memory.meta_take(meta_size(g.words as usize), flags) {
            Ok(id) => id,
            Err(error) => {
                let _ = self.memory.free_block(pfn.0 as usize, FrameKind::Held, None);
                return Err(error);
            }
        };
        let slab = self.slab(id);
        let words = Slab::words(slab);
        // SAFETY: the descriptor is ours alone until it is listed or named by a frame.
        unsafe {
            for w in 0..g.words as usize {
                *words.add(w) = g.full(w);
            }
            *words &= !1;
            slab.write(Slab {
                next: NIL,
                prev: NIL,
                pfn: pfn.0,
                summary: (u16::MAX >> (16 - g.words as u32)) & !u16::from(*words == 0),
                owner: self.owner,
            });
        }
        crate::trace::slab(true, g.size, g.pages, pfn.0);
        let mut state = self.state.lock();
        state.slabs += 1;
        // Under the lock: from here on a free can find the slab.
        for i in 0..g.marked() as u32 {
            if let Some(frame) = self.memory.frames.frame(Pfn(pfn.0 + i)) {
                frame.set_link(id);
                frame.set_head(Head::new(self.kind, self.owner as u8, i));
            }
        }
        // SAFETY: ours, and the lock is held.
        if unsafe { (*slab).summary } != 0 {
            self.list(&mut state, id);
        }
        drop(state);
        Ok(self.object(self.memory.frame_ptr(pfn).wrapping_add(g.slack as usize), 0))
    }

    /// Lists a slab that has a free slot, behind the first: at the head it would displace a current word whose
    /// summary bit is stale.
    fn list(&self, state: &mut CacheState, id: u32) {
        let slab = self.slab(id);
        // SAFETY: the slab is live and unlisted; listed slabs are live; the lock is held.
        unsafe {
            (*slab).owner |= LISTED;
            if state.head == NIL {
                (*slab).next = NIL;
                (*slab).prev = NIL;
                state.head = id;
                self.point(state, slab, lowest((*slab).summary as Word));
                return;
            }
            let head = self.slab(state.head);
            let next = (*head).next;
            (*slab).next = next;
            (*slab).prev = state.head;
            (*head).next = id;
            if next != NIL {
                (*self.slab(next)).prev = id;
            }
        }
    }

    fn unlist(&self, state: &mut CacheState, id: u32) {
        let slab = self.slab(id);
        // SAFETY: the slab is listed, so it and its neighbours are live; the lock is held.
        unsafe {
            (*slab).owner &= !LISTED;
            let (next, prev) = ((*slab).next, (*slab).prev);
            if next != NIL {
                (*self.slab(next)).prev = prev;
            }
            if prev != NIL {
                (*self.slab(prev)).next = next;
                return;
            }
            state.head = next;
            if next == NIL {
                state.current = (&raw const USED_UP).cast_mut();
            } else {
                let slab = self.slab(next);
                self.point(state, slab, lowest((*slab).summary as Word));
            }
        }
    }

    /// Gives an object back. `frame` is the record of the frame `addr` lies in, and `seen` its head, which has this
    /// cache's kind.
    ///
    /// Context: any. Cost: constant; a slab that becomes free adds a block and a descriptor, outside this cache's
    /// lock.
    ///
    /// # Errors
    /// `Interior`, `DoubleFree`, `WrongCache`.
    #[inline(always)]
    pub fn free(&self, frame: &Frame, seen: Head, addr: usize) -> Result<(), FreeError> {
        let state = self.state.lock();
        // The slab may have gone, or become another's, before the lock was taken.
        if frame.head() != seen {
            return Err(FreeError::DoubleFree);
        }
        let slab = self.slab(frame.link());
        let g = self.geometry;
        // The frame's own record tells the cache: the descriptor may be guarded by another cache's lock.
        if self.kind == FrameKind::CacheSlab && seen.class() != self.owner as usize {
            return Err(FreeError::WrongCache);
        }
        let offset = addr & (B::PAGE_SIZE - 1) | (seen.count() as usize) << B::PAGE_SHIFT;
        let Some(slot) = g.slot(offset) else { return Err(FreeError::Interior) };
        if self.kind == FrameKind::CacheSlab && slot >= g.slots as usize {
            return Err(FreeError::Interior);
        }
        let (w, bit) = (slot >> WORD_SHIFT, 1 << (slot & WORD_MASK));
        let at = Slab::words(slab).wrapping_add(w);
        // SAFETY: the slot is one of the slab's, so its word is one of the descriptor's.
        let word = unsafe { *at };
        if word & bit != 0 {
            return Err(FreeError::DoubleFree);
        }
        // SAFETY: as above.
        unsafe { *at = word | bit };
        if word == 0 || (word | bit == g.full(w) && at != state.current) {
            self.free_slow(state, frame.link(), w);
        }
        Ok(())
    }

    /// True when `addr` is the start of an object in a caller's hands; `frame` and `seen` as for [`free`](Self::free).
    ///
    /// Context: any. Cost: constant.
    pub fn is_live(&self, frame: &Frame, seen: Head, addr: usize) -> bool {
        let _state = self.state.lock();
        if frame.head() != seen {
            return false;
        }
        let offset = addr & (B::PAGE_SIZE - 1) | (seen.count() as usize) << B::PAGE_SHIFT;
        self.geometry.slot(offset).is_some_and(|slot| {
            let word = Slab::words(self.slab(frame.link())).wrapping_add(slot >> WORD_SHIFT);
            // SAFETY: the frame names a live descriptor for as long as its head says so, the lock is held, and the
            // slot is one of the slab's.
            unsafe { *word & 1 << (slot & WORD_MASK) == 0 }
        })
    }

    /// A word went from used up to one free slot, or became wholly free.
    #[inline(never)]
    fn free_slow(&self, mut state: State<'_, P>, id: u32, w: usize) {
        let slab = self.slab(id);
        // SAFETY: the slab is live, and the lock is held.
        unsafe {
            (*slab).summary |= 1 << w;
            if (*slab).owner & LISTED == 0 {
                self.list(&mut state, id);
            }
        }
        if id != state.head && self.is_free(slab) {
            self.unlist(&mut state, id);
            self.release(state, slab, id);
        }
    }

    /// True when no slot of the slab is in use.
    pub(super) fn is_free(&self, slab: *mut Slab) -> bool {
        let words = Slab::words(slab);
        // SAFETY: the slab is live, the lock is held, and it has that many words.
        (0..self.geometry.words as usize).all(|w| unsafe { *words.add(w) } == self.geometry.full(w))
    }

    /// Gives an unlisted, wholly free slab back to the buddy.
    fn release(&self, mut state: State<'_, P>, slab: *mut Slab, id: u32) {
        let detached = self.detach(&mut state, slab, id);
        drop(state);
        detached.give(self.memory);
    }

    /// Makes an unlisted, wholly free slab nobody's. Under the lock, so that a second free of one of its objects finds
    /// either the slab or none.
    fn detach(&self, state: &mut CacheState, slab: *mut Slab, id: u32) -> Detached {
        state.slabs -= 1;
        // SAFETY: the slab is live, and the lock is held.
        let pfn = unsafe { (*slab).pfn };
        let pages = self.geometry.pages;
        for i in (0..self.geometry.marked() as u32).rev() {
            let head =
                if i == 0 { Head::new(FrameKind::Held, 0, pages.into()) } else { Head::new(FrameKind::Tail, 0, 0) };
            if let Some(frame) = self.memory.frames.frame(Pfn(pfn + i)) {
                frame.set_head(head);
            }
        }
        Detached { id, descriptor: meta_size(self.geometry.words as usize), pfn, pages, size: self.geometry.size }
    }

    /// Takes the wholly free slab the cache keeps away from it, if it keeps one.
    pub fn detach_kept(&self) -> Option<Detached> {
        let mut state = self.state.lock();
        let id = state.head;
        if id == NIL || !self.is_free(self.slab(id)) {
            return None;
        }
        self.unlist(&mut state, id);
        Some(self.detach(&mut state, self.slab(id), id))
    }

    /// Gives back the wholly free slab the cache keeps.
    pub fn drain(&self) {
        if let Some(detached) = self.detach_kept() {
            detached.give(self.memory);
        }
    }

    /// True when no object is in a caller's hands: there is no slab, or the only one is the kept one.
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.slabs == 0 || (state.slabs == 1 && state.head != NIL && self.is_free(self.slab(state.head)))
    }
}

/// A slab that no cache has any more.
#[must_use = "its pages and its descriptor come back by `give`"]
pub struct Detached {
    id: u32,
    descriptor: MetaSize,
    pfn: u32,
    pages: u16,
    size: u32,
}

impl Detached {
    /// Gives its pages and its descriptor back. No lock is held.
    pub fn give<P: Platform, B: Backend>(self, memory: &Memory<P, B>) {
        crate::trace::slab(false, self.size, self.pages, self.pfn);
        memory.meta_give(self.id, self.descriptor);
        let _ = memory.free_block(self.pfn as usize, FrameKind::Held, Some(self.pages as usize));
    }
}
