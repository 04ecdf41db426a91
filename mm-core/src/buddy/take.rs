//! Taking frames.

use super::{B, Buddy, NO_WORD};
use crate::bits::{
    WORD_MASK, Word, aligned, class, class_of_many, has_run, highest, lowest, lowest_run, order_for, rarely, run, runs,
};

impl Buddy {
    /// Takes `pages` contiguous frames, 1 to `1 << max_order`, aligned to `1 << align` frames, at most the power of two
    /// that holds them.
    ///
    /// Of less than a word it takes the lowest such run in the lowest word with an aligned block that holds them; of
    /// more the beginning of the lowest such block. `mark` is told the first frame on the way.
    #[inline(always)]
    pub fn take(&mut self, pages: usize, align: usize, mark: impl FnOnce(u32)) -> Option<u32> {
        if pages == 1 { self.take_one().inspect(|first| mark(*first)) } else { self.take_block(pages, align, mark) }
    }

    /// Takes the lowest free frame of the open word, if there is one.
    #[inline(always)]
    pub fn take_open(&mut self) -> Option<u32> {
        // SAFETY: the open word is one of the words, or `USED_UP`.
        let word = unsafe { *self.open_word };
        if word == 0 {
            rarely();
            return None;
        }
        // SAFETY: not `USED_UP`, since it has a bit.
        unsafe { *self.open_word = word & (word - 1) };
        Some(self.open_first + lowest(word) as u32)
    }

    #[inline(always)]
    fn take_one(&mut self) -> Option<u32> {
        self.take_open().or_else(|| self.take_next())
    }

    /// Takes the lowest free frame of the next word. The open one is used up.
    #[inline(always)]
    pub fn take_next(&mut self) -> Option<u32> {
        self.open_next()?;
        self.take_open()
    }

    /// Opens the lowest word that has a free frame.
    #[inline(never)]
    pub(super) fn open_next(&mut self) -> Option<()> {
        // The tree, which shows the old one as empty, is right about it.
        let Some(i) = self.lowest(0) else {
            self.set_open(NO_WORD);
            return None;
        };
        self.set_open(i);
        let change = self.fall(i, 0);
        self.group_fell(i >> B, change);
        Some(())
    }

    #[inline(always)]
    fn take_block(&mut self, pages: usize, align: usize, mark: impl FnOnce(u32)) -> Option<u32> {
        let order = order_for(pages);
        if order > self.max_order {
            return None;
        }
        let i = match self.lowest(order) {
            Some(i) => i,
            None if pages < Word::BITS as usize => {
                return self.take_of_open(pages, align).inspect(|first| mark(*first));
            }
            None => self.lowest_with_open(order)?,
        };
        let mut first = self.base + (i << B) as u32;
        let change = if pages < Word::BITS as usize {
            let word = *self.word(i);
            // The aligned block that brought us here is one of them.
            let bit = lowest(aligned(runs(word, pages), align));
            let word = word & !run(bit, pages);
            *self.word(i) = word;
            first += bit as u32;
            mark(first);
            self.fall(i, class_of_many(word))
        } else if order <= 2 * B {
            mark(first);
            self.take_of_group(i, pages)
        } else {
            mark(first);
            self.take_over(i << B, pages);
            return Some(first);
        };
        // Last, and with little left to remember.
        self.group_fell(i >> B, change);
        Some(first)
    }

    /// [`take`](Self::take) of the lowest block of `1 << order` frames, which are more than one.
    #[inline(always)]
    pub fn take_order(&mut self, order: usize, mark: impl FnOnce(u32)) -> Option<u32> {
        if order > self.max_order {
            return None;
        }
        let i = match self.lowest(order) {
            Some(i) => i,
            None if order < B => return self.take_of_open(1 << order, order).inspect(|first| mark(*first)),
            None => self.lowest_with_open(order)?,
        };
        let mut first = self.base + (i << B) as u32;
        let change = if order < B {
            let word = *self.word(i);
            // There is one, for so the tree says.
            let bit = lowest_run(word, order);
            let word = word & !run(bit, 1 << order);
            *self.word(i) = word;
            first += bit as u32;
            mark(first);
            self.fall(i, class_of_many(word))
        } else if order <= 2 * B {
            mark(first);
            let words = 1 << (order - B);
            self.store(i, words, 0);
            self.group(i >> B).take(run(i & WORD_MASK, words), 0, 0)
        } else {
            mark(first);
            self.take_over(i << B, 1 << order);
            return Some(first);
        };
        self.group_fell(i >> B, change);
        Some(first)
    }

    /// [`take_block`](Self::take_block) of less than a word, of which the tree has none: of the open word, which it does not
    /// see and is not told of.
    #[cold]
    #[inline(never)]
    fn take_of_open(&mut self, pages: usize, align: usize) -> Option<u32> {
        // SAFETY: as in `take_open`.
        let word = unsafe { *self.open_word };
        if !has_run(word, order_for(pages)) {
            return None;
        }
        let bit = lowest(aligned(runs(word, pages), align));
        // SAFETY: not `USED_UP`, since it has bits.
        unsafe { *self.open_word = word & !run(bit, pages) };
        Some(self.open_first + bit as u32)
    }

    /// [`lowest`](Self::lowest) of at least a word, of which the tree has none: with the open word, if all of that is free.
    #[cold]
    #[inline(never)]
    fn lowest_with_open(&mut self, order: usize) -> Option<usize> {
        // SAFETY: as in `take_open`.
        if unsafe { *self.open_word } != Word::MAX {
            return None;
        }
        if order > 2 * B {
            self.close();
            return self.lowest(order);
        }
        let (i, words) = (self.open(), 1 << (order - B));
        let first = i & !(words - 1);
        let others = run(first & WORD_MASK, words) & !(1 << (i & WORD_MASK));
        // The open word stays open: the tree says nothing of it, before and after.
        (self.group(i >> B).has[B] & others == others).then_some(first)
    }

    /// Takes `pages` frames, some words of them and perhaps the beginning of one more, from word `i` on: wholly free, and
    /// all of one group, whose change it returns.
    #[inline(always)]
    fn take_of_group(&mut self, i: usize, pages: usize) -> (usize, usize) {
        let (whole, part) = (pages >> B, pages & WORD_MASK);
        self.store(i, whole, 0);
        let words = run(i & WORD_MASK, whole);
        if part == 0 {
            self.group(i >> B).take(words, 0, 0)
        } else {
            let last = i + whole;
            *self.word(last) = Word::MAX << part;
            // What is left is a run up to the word's end.
            let left = (Word::BITS as usize - part).ilog2() as usize + 1;
            self.group(i >> B).take(words, 1 << (last & WORD_MASK), left)
        }
    }

    /// Takes frames from `at` on, which are free and in sight of the tree, in any number of groups.
    #[cold]
    #[inline(never)]
    fn take_over(&mut self, mut at: usize, mut pages: usize) {
        while pages != 0 {
            let (i, bit, whole) = (at >> B, at & WORD_MASK, pages >> B);
            let n = if bit == 0 && whole != 0 {
                let n = whole.min(Word::BITS as usize - (i & WORD_MASK)) << B;
                let change = self.take_of_group(i, n);
                self.group_fell(i >> B, change);
                n
            } else {
                let n = pages.min(Word::BITS as usize - bit);
                let word = *self.word(i) & !run(bit, n);
                *self.word(i) = word;
                let change = self.fall(i, class(word));
                self.group_fell(i >> B, change);
                n
            };
            at += n;
            pages -= n;
        }
    }

    /// Takes `pages` contiguous frames, 2 to `1 << max_order`, aligned to `1 << align` frames, from the high end: of less than a
    /// word the highest such run in the highest word with an aligned block that holds them; of more the end of the highest
    /// such block, so that what is left of it lies beside what is below.
    #[inline(never)]
    pub fn take_high(&mut self, pages: usize, align: usize) -> Option<u32> {
        let order = order_for(pages);
        if order > self.max_order {
            return None;
        }
        let i = match self.highest(order) {
            Some(i) => i,
            None if self.open() == NO_WORD => return None,
            None => {
                // With the open word in view there may be one.
                self.close();
                self.highest(order)?
            }
        };
        let first = if order < B {
            (i << B) + highest(aligned(runs(*self.word(i), pages), align))
        } else {
            // Its end, down to where it is aligned.
            (i << B) + (((1 << order) - pages) >> align << align)
        };
        self.take_over(first, pages);
        Some(self.base + first as u32)
    }
}
