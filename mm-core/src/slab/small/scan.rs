//! Diagnostics of a cache: counts, and a scan of its invariants. Not bounded.

use super::super::{Slab, SlabCounts};
use super::Slabs;
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::platform::Platform;

impl<P: Platform, B: Backend> Slabs<'_, P, B> {
    /// How many objects and slabs there are. Walks the listed slabs; the others are full.
    pub fn counts(&self) -> SlabCounts {
        let state = self.state.lock();
        let objects = state.slabs as usize * self.geometry.slots as usize;
        let (mut active, mut slab) = (objects, state.head);
        while !slab.is_null() {
            // SAFETY: listed slabs are live, and the lock is held.
            unsafe {
                active -= (*slab).free as usize;
                slab = (*slab).next;
            }
        }
        SlabCounts { active, objects, slabs: state.slabs as usize }
    }

    /// Checks the list and every listed slab. Returns how many slabs the cache says it has.
    ///
    /// # Errors
    /// The broken rule, and the descriptor it was seen at.
    pub fn check(&self) -> Result<usize, (&'static str, usize)> {
        let state = self.state.lock();
        let (mut listed, mut slab, mut before) = (0, state.head, core::ptr::null_mut::<Slab>());
        while !slab.is_null() {
            let id = self.memory.meta_id_at(slab.addr());
            let fail = |what| Err((what, id as usize));
            // SAFETY: listed slabs are live, and the lock is held.
            let (next, prev, free) = unsafe { ((*slab).next, (*slab).prev, (*slab).free) };
            listed += 1;
            if listed > state.slabs {
                return fail("a cache lists more slabs than it has");
            }
            if !before.is_null() && prev != before {
                return fail("a listed slab's links are wrong");
            }
            if free == 0 {
                return fail("a listed slab has no free slot");
            }
            if state.is_free(slab) {
                return fail("a wholly free slab was not given back");
            }
            self.check_slab(slab, id)?;
            (before, slab) = (slab, next);
        }
        Ok(state.slabs as usize)
    }

    fn check_slab(&self, slab: *mut Slab, id: u32) -> Result<(), (&'static str, usize)> {
        // SAFETY: the slab is live, and the lock is held.
        let (origin, state, free) = unsafe { ((*slab).origin, (*slab).state, (*slab).free) };
        let pfn = self.pfn_of(slab).0;
        let first_slot = self.memory.frame_ptr(Pfn(pfn)).addr() + self.geometry.slack as usize;
        if origin != first_slot.wrapping_neg() || state != self.state.value() {
            return Err(("a slab is wrong about its slots", id as usize));
        }
        let mut counted = 0;
        for w in 0..self.geometry.words as usize {
            // SAFETY: as above, and it has that many words.
            let word = unsafe { *Slab::words(slab).add(w) };
            if word & !self.geometry.full(w) != 0 {
                return Err(("a slab has free bits past its last slot", id as usize));
            }
            counted += word.count_ones();
        }
        if counted != free {
            return Err(("a slab is wrong about its free slots", id as usize));
        }
        self.check_frames(id, pfn)
    }
}
