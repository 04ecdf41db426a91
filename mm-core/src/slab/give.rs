//! Giving a slot back: arithmetic and one bit.

use super::Slab;
use crate::bits::{WORD_MASK, WORD_SHIFT};
use crate::error::FreeError;

/// What became of a slot that was to be given back.
pub enum Given {
    /// It is free, and that is all.
    Inside,
    /// It is free, and [`Slabs::settle`] has to look at the slab: this word of it, not the current one, got its first
    /// free slot or perhaps its last.
    Edge(*mut Slab, usize),
    /// The same of a word that had none.
    First(*mut Slab, usize),
    /// Nothing was changed.
    Refused(FreeError),
}

/// Gives the slot at `addr` back to its slab.
///
/// # Safety
/// The slab is live, of a cache with `slots` slots if there can be room for more of them behind, `addr` lies in its
/// frames, and the lock of its cache is held.
#[inline(always)]
pub unsafe fn give(slab: *mut Slab, addr: usize, slots: Option<u16>) -> Given {
    // SAFETY: live, by the caller's word.
    let recip = unsafe { Slab::recip(slab) };
    // As in `Geometry::slot`, which has the reasons.
    // SAFETY: as above.
    let product = (unsafe { (*slab).origin } as u32).wrapping_add(addr as u32) as u64 * recip as u64;
    if product as u32 >= recip {
        return Given::Refused(FreeError::Interior);
    }
    let slot = (product >> 32) as usize;
    if slots.is_some_and(|slots| slot >= slots as usize) {
        return Given::Refused(FreeError::Interior);
    }
    let w = slot >> WORD_SHIFT;
    let at = Slab::words(slab).wrapping_add(w);
    // SAFETY: the slot is one of the slab's, so its word is one of the descriptor's; the lock is held.
    let word = unsafe { *at };
    let new = word | 1 << (slot & WORD_MASK);
    if new == word {
        return Given::Refused(FreeError::DoubleFree);
    }
    // SAFETY: as above.
    unsafe { *at = new };
    #[cfg(feature = "small")]
    // SAFETY: as above.
    unsafe {
        (*slab).free += 1;
    }
    if cfg!(feature = "small") {
        return Given::Edge(slab, w);
    }
    // Nothing is to be told of the current word: its slab is listed, its summary bit set, and its slab is kept when it
    // is wholly free. Any other word matters when it gets its first free slot, or may have got its last: a word that
    // is wholly free is all ones from bit 0 up.
    #[cfg(not(feature = "small"))]
    // SAFETY: as above.
    if unsafe { (*slab).place } == w as u8 {
        return Given::Inside;
    }
    if word == 0 {
        Given::First(slab, w)
    } else if new & new.wrapping_add(1) != 0 {
        Given::Inside
    } else {
        Given::Edge(slab, w)
    }
}
