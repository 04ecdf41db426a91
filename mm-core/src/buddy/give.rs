//! Giving frames back.

use super::{B, Buddy, NO_WORD};
use crate::bits::{WORD_MASK, Word, class, class_of_many, run};

impl Buddy {
    /// Gives `pages` frames from `pfn` back. The caller checked that they are one block of this region, and taken.
    #[inline(always)]
    pub fn give(&mut self, pfn: u32, pages: usize) {
        self.give_at((pfn - self.base) as usize, pages);
    }

    /// As [`give`](Self::give), from bit `bit` of a word on.
    ///
    /// # Safety
    /// The word is one of this buddy's, as [`word_of`](Self::word_of) gives them.
    #[inline(always)]
    pub unsafe fn give_from(&mut self, word: *mut Word, bit: usize, pages: usize) {
        // SAFETY: both are pointers into the words.
        let i = unsafe { word.offset_from_unsigned(self.words) };
        self.give_at((i << B) + bit, pages);
    }

    #[inline(always)]
    fn give_at(&mut self, at: usize, pages: usize) {
        if pages < Word::BITS as usize && pages <= Word::BITS as usize - (at & WORD_MASK) {
            self.give_bits(at >> B, run(at & WORD_MASK, pages));
        } else {
            self.give_words(at, pages);
        }
    }

    /// Gives frames of one word back.
    #[inline]
    pub(super) fn give_bits(&mut self, i: usize, bits: Word) {
        let word = *self.word(i) | bits;
        *self.word(i) = word;
        if !self.is_open(self.words.wrapping_add(i)) {
            self.rise(i, class(word));
        }
    }

    /// Gives frames back that reach over several words, in any alignment.
    #[inline(never)]
    fn give_words(&mut self, at: usize, pages: usize) {
        let (i, words) = (at >> B, (pages + WORD_MASK) >> B);
        if at & WORD_MASK == 0 && (i & WORD_MASK) + words <= Word::BITS as usize {
            self.give_to_group(i, pages);
        } else {
            self.give_over(at, pages);
        }
    }

    /// Gives `pages` frames back, some words of them and perhaps the beginning of one more, from word `i` on, all of one
    /// group.
    #[inline(always)]
    fn give_to_group(&mut self, i: usize, pages: usize) {
        let (whole, part) = (pages >> B, pages & WORD_MASK);
        let first = self.words.wrapping_add(i);
        // It is not the open one any more where it is given back as a whole.
        if self.open_word.addr().wrapping_sub(first.addr()) < whole * size_of::<Word>() {
            self.set_open(NO_WORD);
        }
        self.store(i, whole, Word::MAX);
        let mut words = run(i & WORD_MASK, whole);
        let (mut last, mut new) = (0, 0);
        if part != 0 {
            let word = *self.word(i + whole) | run(0, part);
            *self.word(i + whole) = word;
            if !self.is_open(first.wrapping_add(whole)) {
                let bit = 1 << ((i + whole) & WORD_MASK);
                // Often the rest of the word was free: then it is one more of those.
                if word == Word::MAX {
                    words |= bit;
                } else {
                    (last, new) = (bit, class_of_many(word));
                }
            }
        }
        self.floor = self.words;
        // SAFETY: a class of a word.
        let change = unsafe { self.group(i >> B).free(words, last, new) };
        self.group_rose(i >> B, change);
    }

    /// Gives frames back from `at` on, in any number of groups.
    #[cold]
    #[inline(never)]
    fn give_over(&mut self, mut at: usize, mut pages: usize) {
        while pages != 0 {
            let (i, bit, whole) = (at >> B, at & WORD_MASK, pages >> B);
            let n = if bit == 0 && whole != 0 {
                let n = whole.min(Word::BITS as usize - (i & WORD_MASK)) << B;
                self.give_to_group(i, n);
                n
            } else {
                let n = pages.min(Word::BITS as usize - bit);
                self.give_bits(i, run(bit, n));
                n
            };
            at += n;
            pages -= n;
        }
    }

    /// Shows the open word to the tree again.
    #[cold]
    pub(super) fn close(&mut self) {
        let i = self.open();
        self.set_open(NO_WORD);
        let word = *self.word(i);
        self.rise(i, class(word));
    }
}
