//! The tree over the words: which of them holds the lowest or the highest block, and what changes when a word does.

use super::node::{add, remove};
use super::{B, Buddy, NO_WORD};
use crate::bits::{WORD_MASK, Word, fold, has_run, highest, lowest, lowest_run};

impl Buddy {
    /// The word in which the lowest free block of `order` begins.
    #[inline(always)]
    pub(super) fn lowest(&mut self, order: usize) -> Option<usize> {
        self.outermost(order, lowest, lowest_run)
    }

    /// The word in which the highest free block of `order` begins.
    #[cold]
    pub(super) fn highest(&mut self, order: usize) -> Option<usize> {
        self.outermost(order, highest, |set, order| highest(fold(set, order)))
    }

    /// One descent: `end` chooses among the children that hold a block, `run` among the runs of children that are one.
    #[inline(always)]
    fn outermost(
        &mut self,
        order: usize,
        end: impl Fn(Word) -> usize,
        run: impl Fn(Word, usize) -> usize,
    ) -> Option<usize> {
        let r = if self.root_count == 1 {
            0
        } else {
            // SAFETY: there are sets for every order up to the largest.
            let roots = unsafe { *self.top.get_unchecked(order) };
            if roots == 0 {
                return None;
            }
            end(roots)
        };
        let root = self.root(r);
        if order > 2 * B {
            let whole = root.has[2 * B];
            return has_run(whole, order - 2 * B).then(|| ((r << B) + run(whole, order - 2 * B)) << B);
        }
        let groups = root.has[order];
        if groups == 0 {
            return None;
        }
        let g = (r << B) + end(groups);
        let group = self.group(g);
        // The group has a block, for so its root says.
        let word = if order <= B { end(group.has[order]) } else { run(group.has[B], order - B) };
        Some((g << B) + word)
    }

    /// Word `i` has class `new` now, which is not below the one it had.
    #[inline(always)]
    pub(super) fn rise(&mut self, i: usize, new: usize) {
        self.floor = self.words;
        // SAFETY: a class of a word.
        let change = unsafe { self.group(i >> B).rise(1 << (i & WORD_MASK), 0, new) };
        self.group_rose(i >> B, change);
    }

    /// Word `i` has class `new` now, which is not above the one it had. Returns the change of its group, for
    /// [`group_fell`](Self::group_fell).
    #[inline(always)]
    pub(super) fn fall(&mut self, i: usize, new: usize) -> (usize, usize) {
        // SAFETY: the largest class of a word.
        unsafe { self.group(i >> B).fall(1 << (i & WORD_MASK), B + 1, new) }
    }

    /// A group was of one class and is of another, which is not below.
    #[inline(always)]
    pub(super) fn group_rose(&mut self, g: usize, (was, now): (usize, usize)) {
        if was != now {
            self.root_rises(g, was, now);
        }
    }

    #[inline(never)]
    fn root_rises(&mut self, g: usize, was: usize, now: usize) {
        let r = g >> B;
        let (single, bit) = (self.root_count == 1, 1 << (g & WORD_MASK));
        let root = self.root(r);
        if single {
            // Nobody asks what class it is of.
            // SAFETY: classes of a group, the second not below the first.
            unsafe { add(&mut root.has, bit, was, now) };
            return;
        }
        // SAFETY: a class of a group.
        let (was, now) = unsafe { root.rise(bit, was, now) };
        if was != now {
            // SAFETY: no class is more than the top has sets.
            unsafe { add(&mut self.top, 1 << r, was, now) };
        }
    }

    /// A group was of one class and is of another, which is not above.
    #[inline(always)]
    pub(super) fn group_fell(&mut self, g: usize, (was, now): (usize, usize)) {
        if was != now {
            self.root_falls(g, was, now);
        }
    }

    #[inline(never)]
    fn root_falls(&mut self, g: usize, was: usize, now: usize) {
        let r = g >> B;
        let (single, bit) = (self.root_count == 1, 1 << (g & WORD_MASK));
        let root = self.root(r);
        if single {
            // As in `root_rises`.
            // SAFETY: classes of a group, the second not above the first.
            unsafe { remove(&mut root.has, bit, was, now) };
            return;
        }
        // SAFETY: a class of a group.
        let (was, now) = unsafe { root.fall(bit, was, now) };
        if was != now {
            // SAFETY: no class is more than the top has sets.
            unsafe { remove(&mut self.top, 1 << r, was, now) };
        }
    }

    /// The order of the largest free block.
    pub fn largest(&mut self) -> Option<usize> {
        if self.open() != NO_WORD {
            self.close();
        }
        (0..=self.max_order).rev().find(|&order| self.lowest(order).is_some())
    }
}
