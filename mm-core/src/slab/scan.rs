//! Diagnostics of a cache: counts, and a scan of its invariants. Not bounded.

use super::{CacheState, NOWHERE, Slab, SlabCounts, Slabs};
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::bits::{USED_UP, WORD_MASK, WORD_SHIFT, Word};
use crate::frame::FrameKind;
use crate::meta::NIL;
use crate::platform::Platform;

impl<P: Platform, B: Backend> Slabs<'_, P, B> {
    fn in_use(&self, slab: *mut Slab) -> usize {
        let words = Slab::words(slab);
        // SAFETY: the slab is live, the lock is held, and it has that many words.
        let free = |w| unsafe { *words.add(w) }.count_ones() as usize;
        self.geometry.slots as usize - (0..self.geometry.words as usize).map(free).sum::<usize>()
    }

    /// How many objects and slabs there are. Walks the listed slabs; the others, but for the current word and the
    /// open ones, are full.
    pub fn counts(&self) -> SlabCounts {
        let state = self.state.lock();
        let slots = self.geometry.slots as usize;
        let (mut listed, mut active, mut id) = (0, 0, state.head);
        // SAFETY: the slab that has the current word is live, and the lock is held.
        if !state.holder.is_null() && unsafe { (*state.holder).summary } == 0 {
            listed = 1;
            active = self.in_use(state.holder);
        }
        while id != NIL && listed <= state.slabs as usize {
            let slab = self.slab(id);
            listed += 1;
            active += self.in_use(slab);
            // SAFETY: listed slabs are live, and the lock is held.
            id = unsafe { (*slab).next };
        }
        let slabs = state.slabs as usize;
        active += slabs.saturating_sub(listed) * slots;
        for open in state.open() {
            // SAFETY: an open word's slab is live, and the lock is held.
            let (summary, word) = unsafe { ((*open.slab).summary, *open.at) };
            if summary == 0 && !core::ptr::eq(open.slab, state.holder) {
                // Its slab was taken for a full one.
                active -= word.count_ones() as usize;
            }
        }
        if self.kind == FrameKind::Slab {
            active = active.saturating_sub(self.mm.objects_at_hand(self.owner.into()));
        }
        SlabCounts { active, objects: slabs * slots, slabs }
    }

    /// The slab of an object, if it is of one.
    fn slab_of(&self, object: *mut u8) -> Option<*mut Slab> {
        let (_, frame) = self.memory.frames.find(self.memory.backend.direct_frame(object.addr()))?;
        frame.head().is(self.kind).then(|| self.slab(frame.link()))
    }

    /// Checks the open words and their slabs.
    fn check_open(&self, state: &CacheState) -> Result<(), (&'static str, usize)> {
        for (i, open) in state.open().iter().enumerate() {
            let fail = |what| Err((what, open.object.addr()));
            let slab = open.slab;
            if self.slab_of(open.object) != Some(slab) {
                return fail("an open word is not of its slab");
            }
            let w = open.at.addr().wrapping_sub(Slab::words(slab).addr()) / size_of::<Word>();
            if w >= self.geometry.words.into() || state.open()[..i].iter().any(|other| other.at == open.at) {
                return fail("an open word is not its slab's, or open twice");
            }
            // SAFETY: the slab is live, and the lock is held.
            let (word, origin, place, owner) = unsafe { (*open.at, (*slab).origin, (*slab).place, (*slab).owner) };
            let slot = open.object.addr().wrapping_add(origin) / self.geometry.size as usize;
            if slot >> WORD_SHIFT != w || word >> (slot & WORD_MASK) & 1 == 0 {
                return fail("the object of an open word is not free");
            }
            if owner != self.owner || place as usize == w {
                return fail("an open word is the current one, or another cache's");
            }
            self.check_slab(state, slab, self.memory.meta_id_at(slab.addr()))?;
            if self.is_free(slab) && !core::ptr::eq(slab, state.holder) {
                return fail("a wholly free slab was not given back");
            }
        }
        Ok(())
    }

    /// Checks the list and every listed slab. Returns how many slabs the cache says it has.
    ///
    /// # Errors
    /// The broken rule, and the descriptor it was seen at.
    pub fn check(&self) -> Result<usize, (&'static str, usize)> {
        let state = self.state.lock();
        let (mut listed, mut id, mut before) = (0, state.head, NIL);
        if state.holder.is_null() {
            if !core::ptr::eq(state.current, &raw const USED_UP) {
                return Err(("a cache has a current word of no slab", 0));
            }
        } else {
            let id = self.memory.meta_id_at(state.holder.addr());
            // SAFETY: the slab that has the current word is live, and the lock is held.
            let (owner, place) = unsafe { ((*state.holder).owner, (*state.holder).place) };
            let word = Slab::words(state.holder).wrapping_add(place as usize);
            if owner != self.owner || place == NOWHERE || !core::ptr::eq(word, state.current) {
                return Err(("a cache is wrong about its current word", id as usize));
            }
            self.check_slab(&state, state.holder, id)?;
        }
        self.check_open(&state)?;
        while id != NIL {
            let slab = self.slab(id);
            let fail = |what| Err((what, id as usize));
            // SAFETY: listed slabs are live, and the lock is held.
            let (next, prev, owner, place) = unsafe { ((*slab).next, (*slab).prev, (*slab).owner, (*slab).place) };
            listed += 1;
            if listed > state.slabs {
                return fail("a cache lists more slabs than it has");
            }
            if prev != before || owner != self.owner {
                return fail("a listed slab's links or owner are wrong");
            }
            let holds = core::ptr::eq(slab, state.holder);
            if holds != (place != NOWHERE) {
                return fail("a listed slab is wrong about its place");
            }
            self.check_slab(&state, slab, id)?;
            // SAFETY: as above.
            if unsafe { (*slab).summary } == 0 {
                return fail("a listed slab has no free slot");
            }
            let kept = holds || (state.holder.is_null() && id == state.head);
            if !kept && self.is_free(slab) {
                return fail("a wholly free slab was not given back");
            }
            (before, id) = (id, next);
        }
        Ok(state.slabs as usize)
    }

    fn check_slab(&self, state: &CacheState, slab: *mut Slab, id: u32) -> Result<(), (&'static str, usize)> {
        let words = Slab::words(slab);
        // SAFETY: the slab is live, and the lock is held.
        let (summary, origin, recip, place) =
            unsafe { ((*slab).summary, (*slab).origin, (*slab).recip, (*slab).place) };
        let pfn = self.pfn_of(slab).0;
        let first_slot = self.memory.frame_ptr(Pfn(pfn)).addr() + self.geometry.slack as usize;
        if origin != first_slot.wrapping_neg() || recip != self.geometry.recip {
            return Err(("a slab is wrong about its slots", id as usize));
        }
        for w in 0..self.geometry.words as usize {
            // SAFETY: as above.
            let word = unsafe { *words.add(w) };
            if word & !self.geometry.full(w) != 0 {
                return Err(("a slab has free bits past its last slot", id as usize));
            }
            // The current word and the open ones are hidden.
            let told = summary >> w & 1 == 1;
            let hidden = place as usize == w || state.open().iter().any(|open| open.at == words.wrapping_add(w));
            if told != (word != 0 && !hidden) {
                return Err(("a slab's summary is wrong about a word", id as usize));
            }
        }
        self.check_frames(id, pfn)
    }
}
