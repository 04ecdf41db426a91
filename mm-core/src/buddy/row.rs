//! Rows: several single frames of one word, taken or given back in one step.

use super::{B, Buddy};
use crate::addr::Pfn;
use crate::bits::{WORD_MASK, Word};
use core::num::NonZero;

impl Buddy {
    /// Fills `room` with the lowest free frames of the open word, or as many as there are, and tells `found` each; returns how
    /// many there were.
    #[inline(always)]
    pub fn take_row(&mut self, room: &mut [Pfn], mut found: impl FnMut(u32)) -> usize {
        // SAFETY: as in `take_open`.
        if unsafe { *self.open_word } == 0 && self.open_next().is_none() {
            return 0;
        }
        let first = self.open_first;
        // SAFETY: the open word, which is not `USED_UP`: it has a bit.
        let word = unsafe { &mut *self.open_word };
        let (count, mut entries) = (room.len(), room.iter_mut());
        let mut bits = *word;
        while let Some(some) = NonZero::new(bits)
            && let Some(entry) = entries.next()
        {
            let pfn = first + some.trailing_zeros();
            found(pfn);
            *entry = Pfn(pfn);
            bits &= bits - 1;
        }
        *word = bits;
        count - entries.len()
    }

    /// The frame of the first bit of the word of a frame of the region, and the frame's own bit.
    #[inline(always)]
    pub fn row_of(&self, pfn: u32) -> (u32, Word) {
        let bit = (pfn - self.base) & WORD_MASK as u32;
        (pfn - bit, 1 << bit)
    }

    /// Gives the frames `row` of the word back whose first bit is frame `first`'s. The caller checked that each is one of
    /// this region, and taken.
    #[inline]
    pub fn give_row(&mut self, first: u32, row: Word) {
        self.give_bits((first - self.base) as usize >> B, row);
    }
}
