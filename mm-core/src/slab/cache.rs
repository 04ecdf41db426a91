//! A cache: its listed slabs, the current word, and the three transitions of a slab.
//!
//! Invariants, under the cache's lock:
//! - the current word is hidden: its slab's summary does not show it, and its slab's `place` names it, until another
//!   word takes its place, which is when it is used up;
//! - a few words that got a free slot while they had none stand open: no summary shows them either, and they are the
//!   next to be taken from;
//! - a slab is listed exactly while its summary shows a word, and its summary shows every other word with a free slot;
//! - a slab that is wholly free has the current word or is on its way back to the buddy.

use super::state::{CacheState, OPEN};
use super::{Detached, Hooks, NOWHERE, Slab, meta_size};
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::bits::{USED_UP, Word, lowest};
use crate::error::AllocError;
use crate::fault::FaultClass;
use crate::frame::{FrameKind, Head};
use crate::gfp::Gfp;
use crate::lock::{Guard, Locked};
use crate::manager::Mm;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use crate::slab::Geometry;
use crate::wait::Patience;
use core::ptr::NonNull;

/// A cache together with what its operations need.
pub struct Slabs<'a, P: Platform, B: Backend> {
    /// Who takes memory back when it is short.
    pub mm: &'a Mm<P, B>,
    /// Where the memory comes from.
    pub memory: &'a Memory<P, B>,
    /// How slabs are cut.
    pub geometry: &'a Geometry,
    /// What the lock guards.
    pub state: &'a Locked<P::Lock, CacheState>,
    /// `Slab` for kmalloc's classes, `CacheSlab` for the rest.
    pub kind: FrameKind,
    /// The class, or the number of the cache.
    pub owner: u8,
    /// What becomes of objects when a slab is carved, and when it goes back.
    pub hooks: &'a Hooks,
}

type State<'a, P> = Guard<'a, <P as Platform>::Lock, CacheState>;

impl<'a, P: Platform, B: Backend> Slabs<'a, P, B> {
    /// The cache with these.
    #[inline(always)]
    pub fn new(
        mm: &'a Mm<P, B>,
        geometry: &'a Geometry,
        state: &'a Locked<P::Lock, CacheState>,
        (kind, owner): (FrameKind, u8),
        hooks: &'a Hooks,
    ) -> Self {
        Slabs { mm, memory: &mm.memory, geometry, state, kind, owner, hooks }
    }

    #[inline(always)]
    pub(super) fn slab(&self, id: u32) -> *mut Slab {
        self.memory.meta_ptr(id)
    }

    /// Whether words are opened. What a CPU keeps for itself is part of the current word, so with several there is no
    /// use for it.
    pub const OPENS: bool = OPEN != 0 && P::CPUS == 1;

    /// Takes an object when the current word is used up: from the word that was opened last, else from the next word
    /// of the first listed slab. `None` when the cache has no free slot; [`grow`](Self::grow) makes some.
    #[inline(always)]
    pub fn advance(&self, state: &mut CacheState) -> Option<NonNull<u8>> {
        if Self::OPENS {
            match state.take_open() {
                Ok(object) => return Some(object),
                Err(Some(word)) => return Some(state.take_first(word)),
                Err(None) => {}
            }
        }
        self.next_word(state)
    }

    /// [`advance`](Self::advance) when no word is open.
    #[inline(always)]
    pub fn next_word(&self, state: &mut CacheState) -> Option<NonNull<u8>> {
        if state.head == NIL {
            self.point_nowhere(state);
            return None;
        }
        let slab = self.slab(state.head);
        // SAFETY: listed slabs are live, and the lock is held.
        unsafe {
            let summary = (*slab).summary;
            (*slab).summary = summary & (summary - 1);
            if (*slab).summary == 0 {
                state.head = (*slab).next;
                if state.head != NIL {
                    (*self.slab(state.head)).prev = NIL;
                }
            }
            let w = lowest(summary.into());
            Some(state.point_and_take(slab, Slab::words(slab).wrapping_add(w), w))
        }
    }

    /// Makes word `w` of a live slab, which its summary does not show, the current one. The one before is used up.
    #[cfg_attr(feature = "small", inline(never))]
    #[cfg_attr(not(feature = "small"), inline(always))]
    fn point(&self, state: &mut CacheState, slab: *mut Slab, w: usize) {
        // SAFETY: live, and the lock is held, since the state is at hand.
        unsafe { state.point(slab, Slab::words(slab).wrapping_add(w), w) };
    }

    /// There is no current word. The one there was is used up, or its slab is about to go.
    fn point_nowhere(&self, state: &mut CacheState) {
        if !state.holder.is_null() {
            // SAFETY: the slab that has the current word is live, and the lock is held.
            unsafe { (*state.holder).place = NOWHERE };
            state.holder = core::ptr::null_mut();
        }
        state.current = (&raw const USED_UP).cast_mut();
    }

    /// Takes an object of any slab there is. When there is none there is no current word, so that the next free of
    /// any comes to [`settle`](Self::settle).
    pub(super) fn any_object(&self, state: &mut CacheState) -> Option<NonNull<u8>> {
        state.take().or_else(|| self.advance(state))
    }

    /// Makes a slab of fresh pages; keeps its first object. No lock is held.
    ///
    /// # Errors
    /// `NoMemory`, `NoContig`, `NotReady`.
    pub(super) fn grow(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.memory.fault_point(FaultClass::Slab)?;
        let pfn = self.memory.take_block(self.geometry.pages as usize, flags, FrameKind::Held, NIL)?;
        self.make_slab(pfn, flags, None)
    }

    /// Makes a slab of the caller's block and a descriptor, for which it waits if the caller has patience; keeps its
    /// first object, and lists it if there are more. On failure the block goes back.
    pub(super) fn make_slab(
        &self,
        pfn: Pfn,
        flags: Gfp,
        patience: Option<&Patience<'_>>,
    ) -> Result<NonNull<u8>, AllocError> {
        let g = self.geometry;
        let id = match self.memory.meta_take(meta_size(g.words as usize), flags, patience) {
            Ok(id) => id,
            Err(error) => {
                let _ = self.memory.free_block(pfn.0 as usize, FrameKind::Held, None);
                return Err(error);
            }
        };
        #[cfg(feature = "page-owner")]
        self.memory.own_slab(pfn.0, g.slots);
        let slab = self.slab(id);
        let words = Slab::words(slab);
        // SAFETY: the descriptor is ours alone until it is listed or named by a frame.
        unsafe {
            // A compiler that knows the word calls the library's function for it, which takes longer for so few.
            let full = core::hint::black_box(Word::MAX);
            let last = words.add(g.words as usize - 1);
            let mut at = words;
            while at != last {
                *at = full;
                at = at.add(1);
            }
            *last = g.last;
            *words &= !1;
            slab.write(Slab {
                origin: self.first_slot(pfn).addr().get().wrapping_neg(),
                next: NIL,
                prev: NIL,
                recip: g.recip,
                summary: (u16::MAX >> (16 - g.words as u32)) & !u16::from(*words == 0),
                owner: self.owner,
                place: NOWHERE,
            });
        }
        if self.hooks.prepares() {
            let unfinished = self.detached(id, pfn.0, &Hooks::NONE).until_constructed(self.memory);
            // SAFETY: nobody else has the slab yet.
            unsafe { self.hooks.construct_all(g, self.first_slot(pfn).as_ptr()) };
            unfinished.finish();
        }
        crate::trace::slab(true, g.size, g.pages, pfn.0);
        let mut state = self.state.lock();
        state.slabs += 1;
        state.cut(g);
        // Under the lock: from here on a free can find the slab.
        let mut head = Head::new(self.kind, self.owner, 0);
        for frame in self.memory.frames.block(pfn, g.marked as usize) {
            frame.set_link(id);
            frame.set_head(head);
            head = head.next();
        }
        // SAFETY: ours, and the lock is held.
        unsafe {
            let summary = (*slab).summary;
            if summary != 0 && self.is_used_up(&state) && !state.waited {
                self.point(&mut state, slab, 0);
                (*slab).summary = summary & !1;
            }
            if (*slab).summary != 0 {
                self.list(&mut state, slab, id);
            }
        }
        if state.waited {
            self.hand_over(state);
        } else {
            drop(state);
        }
        Ok(self.first_slot(pfn))
    }

    /// Lists a slab, behind the first: that one's words are used up before slabs that have few free slots yet.
    #[cfg_attr(feature = "small", inline(never))]
    #[cfg_attr(not(feature = "small"), inline(always))]
    fn list(&self, state: &mut CacheState, slab: *mut Slab, id: u32) {
        // SAFETY: the slab is live and unlisted; listed slabs are live; the lock is held.
        unsafe {
            if state.head == NIL {
                (*slab).next = NIL;
                (*slab).prev = NIL;
                state.head = id;
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

    /// Unlists a slab, if it is listed, and takes the current and the open words from it.
    #[cfg_attr(feature = "small", inline(always))]
    fn unlist(&self, state: &mut CacheState, slab: *mut Slab) {
        // SAFETY: the slab is live, as are its neighbours if it is listed; the lock is held.
        unsafe {
            if core::ptr::eq(slab, state.holder) {
                self.point_nowhere(state);
            }
            // Of the words of a slab that is wholly free those are open that neither its summary shows nor are current.
            if Self::OPENS && (*slab).summary.count_ones() != u32::from(self.geometry.words) {
                state.close(slab);
            }
            if (*slab).summary == 0 {
                return;
            }
            let (next, prev) = ((*slab).next, (*slab).prev);
            if next != NIL {
                (*self.slab(next)).prev = prev;
            }
            if prev != NIL {
                (*self.slab(prev)).next = next;
            } else {
                state.head = next;
            }
        }
    }

    /// True when another word may take the current one's place. Not while a slab that was listed for a waiter, who
    /// went, is to be the next.
    #[inline(always)]
    fn is_used_up(&self, state: &CacheState) -> bool {
        // SAFETY: the current word is a word of a live slab or `USED_UP`, and the lock is held.
        unsafe { *state.current == 0 && (state.head == NIL || !state.holder.is_null()) }
    }

    /// The object at `addr` of word `w` of a live slab of this cache, not the current word, was freed: the word's
    /// first free slot, or perhaps the last one it lacked.
    #[inline(always)]
    pub fn settle(&self, mut state: State<'_, P>, slab: *mut Slab, w: usize, addr: usize) {
        if self.show(&mut state, slab, w, addr) {
            self.settle_rest(state, slab);
        }
    }

    /// The most frequent part of [`settle`](Self::settle); true when [`settle_rest`](Self::settle_rest) is to go on.
    #[inline(always)]
    pub fn show(&self, state: &mut CacheState, slab: *mut Slab, w: usize, addr: usize) -> bool {
        // SAFETY: the slab is live, and the lock is held.
        let word = unsafe { *Slab::words(slab).wrapping_add(w) };
        if Self::OPENS && word & (word - 1) == 0 && state.try_open(slab, w, addr) {
            return false;
        }
        self.show_listed(state, slab, w)
    }

    /// [`show`](Self::show) of a word that is not opened.
    #[inline(always)]
    pub fn show_listed(&self, state: &mut CacheState, slab: *mut Slab, w: usize) -> bool {
        // SAFETY: the slab is live, and the lock is held.
        let (word, summary) = unsafe { (*Slab::words(slab).wrapping_add(w), (*slab).summary) };
        let full = word == self.geometry.full(w);
        // A word that could be opened may be open already.
        if !Self::OPENS || word & (word - 1) == 0 {
            let stays = !full || (state.holder.is_null() && !self.memory.waiting.is_any());
            let is_listed = !Self::OPENS && summary != 0;
            if !cfg!(feature = "small") && !is_listed && stays && !state.waited && self.is_used_up(state) {
                // The next allocation finds it at hand, and nothing is listed.
                self.point(state, slab, w);
                return false;
            }
            self.show_word(state, slab, w);
        }
        full || state.waited
    }

    /// [`show`](Self::show) of a word that could be opened if there were room.
    #[inline(always)]
    pub fn show_first(&self, state: &mut CacheState, slab: *mut Slab, w: usize) {
        if self.is_used_up(state) {
            self.point(state, slab, w);
        } else {
            self.show_word(state, slab, w);
        }
    }

    /// Sets the bit of a word in its slab's summary, and lists the slab if it is the first.
    #[inline(always)]
    fn show_word(&self, state: &mut CacheState, slab: *mut Slab, w: usize) {
        // SAFETY: the slab is live, and the lock is held.
        let summary = unsafe { (*slab).summary };
        // SAFETY: as above.
        unsafe { (*slab).summary = summary | 1 << w };
        if summary == 0 {
            self.list(state, slab, self.memory.meta_id_at(slab.addr()));
        }
    }

    /// What [`show`](Self::show) left: somebody waits for an object, or the slab may be wholly free.
    #[inline(always)]
    pub fn settle_rest(&self, state: State<'_, P>, slab: *mut Slab) {
        if state.waited {
            return self.hand_over(state);
        }
        // The one with the current word is kept, unless somebody waits for pages.
        let is_kept = core::ptr::eq(slab, state.holder) && !self.memory.waiting.is_any();
        if is_kept || !self.is_free(slab) {
            return;
        }
        // Who waits for an object waits for pages too.
        self.release(state, slab);
    }

    /// Ends the section in which those were served who wait. The slab that is wholly free now is kept.
    #[inline(always)]
    pub(super) fn served(&self, state: State<'_, P>) {
        drop(state);
    }

    /// True when no slot of the slab is in use.
    pub(super) fn is_free(&self, slab: *mut Slab) -> bool {
        let (words, last) = (Slab::words(slab), self.geometry.words as usize - 1);
        // SAFETY: the slab is live, the lock is held, and it has that many words.
        unsafe { *words.add(last) == self.geometry.last && (0..last).all(|w| *words.add(w) == Word::MAX) }
    }

    /// Unlists a wholly free slab and gives it back to the buddy.
    #[cold]
    #[inline(never)]
    fn release(&self, mut state: State<'_, P>, slab: *mut Slab) {
        self.unlist(&mut state, slab);
        let detached = self.detach(&mut state, slab);
        drop(state);
        detached.give(self.memory);
    }

    /// Makes an unlisted, wholly free slab nobody's. Under the lock, so that a second free of one of its objects finds
    /// either the slab or none.
    #[cfg_attr(feature = "small", inline(always))]
    fn detach(&self, state: &mut CacheState, slab: *mut Slab) -> Detached {
        state.slabs -= 1;
        let id = self.memory.meta_id_at(slab.addr());
        let pfn = self.pfn_of(slab).0;
        let pages = self.geometry.pages;
        let mut head = Head::new(FrameKind::Held, 0, pages.into());
        for frame in self.memory.frames.block(Pfn(pfn), self.geometry.marked as usize) {
            frame.set_head(head);
            head = Head::new(FrameKind::Tail, 0, 0);
        }
        self.detached(id, pfn, self.hooks)
    }

    /// A slab, or what is to become one, that nobody knows of.
    #[cfg_attr(feature = "small", inline(always))]
    fn detached(&self, id: u32, pfn: u32, hooks: &Hooks) -> Detached {
        let g = self.geometry;
        let descriptor = meta_size(g.words as usize);
        Detached { id, descriptor, pfn, pages: g.pages, size: g.size, slack: g.slack, slots: g.slots, hooks: *hooks }
    }

    /// The first frame of a live slab, whose cache is locked.
    pub(super) fn pfn_of(&self, slab: *mut Slab) -> Pfn {
        // SAFETY: live, and the lock is held.
        let first = unsafe { (*slab).origin }.wrapping_neg() - self.geometry.slack as usize;
        Pfn(self.memory.backend.direct_frame(first) as u32)
    }

    /// Slot 0 of the slab that begins at `pfn`.
    fn first_slot(&self, pfn: Pfn) -> NonNull<u8> {
        // SAFETY: in the slab's pages, which have a kernel address.
        unsafe { NonNull::new_unchecked(self.memory.frame_ptr(pfn).wrapping_add(self.geometry.slack as usize)) }
    }

    /// The wholly free slab the cache keeps, if it keeps one.
    fn kept(&self, state: &CacheState) -> Option<*mut Slab> {
        let slab = match state.head {
            _ if !state.holder.is_null() => state.holder,
            NIL => return None,
            id => self.slab(id),
        };
        self.is_free(slab).then_some(slab)
    }

    /// Takes the wholly free slab the cache keeps away from it, if it keeps one.
    pub fn detach_kept(&self) -> Option<Detached> {
        let mut state = self.state.lock();
        let slab = self.kept(&state)?;
        self.unlist(&mut state, slab);
        Some(self.detach(&mut state, slab))
    }

    /// Gives back the wholly free slab the cache keeps.
    pub fn drain(&self) {
        let state = self.state.lock();
        if let Some(slab) = self.kept(&state) {
            self.release(state, slab);
        }
    }

    /// True when no object is in a caller's hands: there is no slab, or the only one is the kept one.
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.slabs == 0 || (state.slabs == 1 && self.kept(&state).is_some())
    }
}
