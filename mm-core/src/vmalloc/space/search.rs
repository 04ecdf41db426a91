//! Finding runs in the tree. It is settled whenever something is searched.

use super::runs::{Runs, WORD, places, starts};
use super::tree::{Tree, above};

impl<const ALIGN: usize, const OFFSET: usize> Tree<ALIGN, OFFSET> {
    /// The lowest `n` free units, when none start in a word below `word`.
    ///
    /// It climbs from there only as far as the fit is away.
    pub(super) fn find(&self, n: usize, word: usize) -> Option<usize> {
        let node = above(self.exposed, self.leaves + word);
        let runs = self.get(node);
        if runs.longest as usize >= n {
            return Some(self.descend_any(node, n));
        }
        self.find_right(node, runs.suffix as usize, n)
    }

    /// The lowest `n` free units from a start at `OFFSET` modulo `ALIGN`.
    pub(super) fn find_placed(&self, n: usize) -> Option<usize> {
        let runs = self.inner(self.top);
        if runs.placed as usize >= n {
            let allowed = places(0, ALIGN, OFFSET);
            return Some(self.descend(self.top, n, |runs| runs.placed, Runs::placed_suffix, OFFSET, allowed));
        }
        // What is free at its end goes on to the end of all.
        let from = (self.len(self.top) - runs.suffix) as usize;
        let start = from + (OFFSET.wrapping_sub(from) & (ALIGN - 1));
        (start < self.units() && n <= self.units() - start).then_some(start)
    }

    fn descend_any(&self, node: usize, n: usize) -> usize {
        self.descend(node, n, |runs| runs.longest, |runs| Some(runs.suffix), 0, u64::MAX)
    }

    /// The lowest fit under `node`, which has one.
    ///
    /// `most` is the longest run that counts, `tail` what counts of a suffix, `first` the first start in a stretch
    /// that is all free, and `allowed` the starts in a word.
    #[inline(always)]
    fn descend(
        &self,
        mut node: usize,
        n: usize,
        most: impl Fn(&Runs<ALIGN, OFFSET>) -> u32,
        tail: impl Fn(&Runs<ALIGN, OFFSET>) -> Option<u32>,
        first: usize,
        allowed: u64,
    ) -> usize {
        let mut len = self.len(node) as usize;
        let mut base = self.base(node);
        while node < self.leaves {
            if self.inner(node).prefix as usize == len {
                return base + first;
            }
            len /= 2;
            node *= 2;
            let left = self.get(node);
            if most(&left) as usize >= n {
                continue;
            }
            if let Some(before) = tail(&left)
                && before as usize + self.get(node + 1).prefix as usize >= n
            {
                return base + len - before as usize;
            }
            node += 1;
            base += len;
        }
        let fits = starts(self.word(node - self.leaves), n) & allowed;
        base + fits.trailing_zeros() as usize
    }

    /// The lowest `n` free units of those from `from` on.
    pub(super) fn find_from(&self, from: usize, n: usize) -> Option<usize> {
        if from >= self.units() {
            return None;
        }
        let node = self.locate(from);
        let end = self.base(node) + self.len(node) as usize;
        // Free units right before `end`, none of them below `from`.
        let before = if node < self.leaves {
            if self.get(node).longest == 0 { 0 } else { end - from }
        } else {
            let bits = self.word(node - self.leaves) >> (from % WORD) << (from % WORD);
            let fits = if n <= WORD { starts(bits, n) } else { 0 };
            if fits != 0 {
                return Some(end - WORD + fits.trailing_zeros() as usize);
            }
            bits.leading_ones() as usize
        };
        self.find_right(node, before, n)
    }

    /// The lowest `n` free units from the last `before` ones of `node` on, which are free, or right of it.
    fn find_right(&self, mut node: usize, mut before: usize, n: usize) -> Option<usize> {
        let mut end = self.base(node) + self.len(node) as usize;
        while before < n {
            node = Self::right_of(node)?;
            let (runs, len) = (self.get(node), self.len(node));
            if before + runs.prefix as usize >= n {
                break;
            }
            if runs.longest as usize >= n {
                return Some(self.descend_any(node, n));
            }
            before = if runs.prefix == len { before + len as usize } else { runs.suffix as usize };
            end += len as usize;
        }
        Some(end - before)
    }

    /// The lowest taken unit of those from `from` on.
    pub(super) fn taken_from(&self, from: usize) -> Option<usize> {
        if from >= self.units() {
            return None;
        }
        let mut node = self.locate(from);
        if node >= self.leaves {
            let taken = !self.word(node - self.leaves) >> (from % WORD);
            if taken != 0 {
                return Some(from + taken.trailing_zeros() as usize).filter(|unit| *unit < self.units());
            }
        } else if self.get(node).longest == 0 {
            return Some(from);
        }
        loop {
            node = Self::right_of(node)?;
            let prefix = self.get(node).prefix;
            if prefix < self.len(node) {
                return Some(self.base(node) + prefix as usize).filter(|unit| *unit < self.units());
            }
        }
    }

    /// The stretch right of a node, as large as possible; no node above either of them is uniform.
    fn right_of(node: usize) -> Option<usize> {
        // Right children climb until they meet a left one; the rightmost path climbs to nothing.
        let up = node >> node.trailing_ones();
        (up > 0).then_some(up + 1)
    }

    pub(super) fn is_free(&self, unit: usize) -> bool {
        match self.locate(unit) {
            node if node < self.leaves => self.get(node).longest != 0,
            leaf => self.word(leaf - self.leaves) >> (unit % WORD) & 1 == 1,
        }
    }

    /// Recomputes every node that says anything, and counts the free units. Unbounded: a diagnostic.
    pub(super) fn check(&self) -> Result<usize, (&'static str, usize)> {
        let mut free = 0;
        // The way down to the top says nothing any more.
        let is_over = |node: usize| node.is_power_of_two() && node < self.top;
        for node in (1..2 * self.leaves).filter(|node| !is_over(*node)) {
            let mut above = (1..=node.ilog2()).rev().map(|up| node >> up).filter(|node| !is_over(*node));
            if above.any(|node| self.get(node).is_uniform(self.len(node))) {
                continue;
            }
            let (runs, len) = (self.get(node), self.len(node));
            if node >= self.leaves {
                let word = node - self.leaves;
                let tail = self.units().saturating_sub(word * WORD).min(WORD);
                if tail < WORD && self.word(word) >> tail != 0 {
                    return Err(("a unit past the end of the address space is free", self.base(node)));
                }
                free += self.word(word).count_ones() as usize;
            } else if runs.is_uniform(len) {
                let same = if runs.longest == 0 { Runs::TAKEN } else { Runs::free(len) };
                if runs != same || (runs.longest != 0 && self.base(node) + len as usize > self.units()) {
                    return Err(("a uniform node of the address space is not", self.base(node)));
                }
                free += runs.longest as usize;
            } else if runs != Runs::join(self.get(2 * node), self.get(2 * node + 1), len / 2) {
                return Err(("a node of the address space disagrees with its children", self.base(node)));
            }
        }
        Ok(free)
    }
}
