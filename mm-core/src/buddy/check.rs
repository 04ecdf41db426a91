//! Diagnostics of the buddy: a full scan, and counts by order. Not bounded.

use super::{B, Buddy, MAX_ORDER_LIMIT, NO_WORD};
use crate::bits::{WORD_MASK, Word, class, fold};

impl Buddy {
    /// Recomputes the whole tree from the bitmap. Returns the number of free frames, or the first contradiction.
    pub fn check(&mut self) -> Result<usize, (&'static str, usize)> {
        let (mut free, open) = (0, self.open());
        for i in 0..self.word_count {
            let word = *self.word(i);
            free += word.count_ones() as usize;
            let want = if i == open { 0 } else { class(word) };
            if want != 0 && self.words.wrapping_add(i) < self.floor {
                return Err(("a word that is said to be used up has a free frame", i));
            }
            let (g, bit) = (i >> B, i & WORD_MASK);
            for k in 0..self.group(g).has.len() {
                if self.group(g).has[k] >> bit & 1 != usize::from(k < want) {
                    return Err(("a group is wrong about one of its words", i));
                }
            }
        }
        let groups = self.word_count.div_ceil(Word::BITS as usize);
        for g in 0..groups {
            let want = self.group(g).computed();
            if self.group(g).class != want {
                return Err(("a group is wrong about itself", g));
            }
            let (r, bit) = (g >> B, g & WORD_MASK);
            for k in 0..self.root(r).has.len() {
                if self.root(r).has[k] >> bit & 1 != usize::from(k < want) {
                    return Err(("a root is wrong about one of its groups", g));
                }
            }
        }
        for r in 0..groups.div_ceil(Word::BITS as usize) {
            let want = self.root(r).computed();
            // The only root says nothing of itself.
            if self.root(r).class != if self.root_count == 1 { 0 } else { want } {
                return Err(("a root is wrong about itself", r));
            }
            for k in 0..=MAX_ORDER_LIMIT {
                if self.root_count != 1 && self.top[k] >> r & 1 != usize::from(k < want) {
                    return Err(("the top is wrong about one of its roots", r));
                }
            }
        }
        // What a node says of children that are not there would lead a search out of its arrays.
        let strays = |count: usize, node: usize| {
            if count - (node << B) < Word::BITS as usize { Word::MAX << (count & WORD_MASK) } else { 0 }
        };
        for g in 0..groups {
            let stray = strays(self.word_count, g);
            if self.group(g).has.iter().any(|has| has & stray != 0) {
                return Err(("a group tells of words that are not there", g));
            }
        }
        for r in 0..groups.div_ceil(Word::BITS as usize) {
            let stray = strays(groups, r);
            if self.root(r).has.iter().any(|has| has & stray != 0) {
                return Err(("a root tells of groups that are not there", r));
            }
        }
        if open != NO_WORD && (open >= self.word_count || self.open_first != self.base + (open << B) as u32) {
            return Err(("the open word is not where it is said to be", open));
        }
        if !self.quiet_word.is_null() && self.quiet_word != self.open_word {
            return Err(("a word is quiet that is not the open one", open));
        }
        Ok(free)
    }

    /// Free blocks by order, each frame counted in its largest free block.
    pub fn count_blocks(&mut self, counts: &mut [usize; MAX_ORDER_LIMIT + 1]) {
        let max = self.max_order;
        let mut i = 0;
        while i < self.word_count {
            let word = *self.word(i);
            if word == Word::MAX {
                // The largest aligned run of whole words that starts here.
                let mut order = B;
                while order < max {
                    let words = 1 << (order + 1 - B);
                    if i & (words - 1) != 0 || i + words > self.word_count {
                        break;
                    }
                    if (i..i + words).any(|j| *self.word(j) != Word::MAX) {
                        break;
                    }
                    order += 1;
                }
                counts[order.min(max)] += 1 << (order - order.min(max));
                i += 1 << (order - B);
                continue;
            }
            let mut rest = word;
            for order in (0..B).rev() {
                let starts = fold(rest, order);
                counts[order.min(max)] += (starts.count_ones() as usize) << (order - order.min(max));
                for k in 0..1 << order {
                    rest &= !(starts << k);
                }
            }
            i += 1;
        }
    }
}
