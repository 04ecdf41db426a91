//! Words of units under a binary tree of their runs: memory, paths, and changes.

use super::runs::{Runs, WORD, ones};
use core::ops::Range;

/// One bit per unit (set: free) under a complete binary tree of [`Runs`].
///
/// Node 1 is the root, `2i` and `2i + 1` are the children of `i`, and node `leaves + w` stands for word `w` itself.
/// A uniform node says all there is to say of its stretch; what is stored below it may be out of date, so that
/// marking a range writes two paths however long the range is. Memory is written before it is read, so none of it
/// needs to be cleared.
///
/// The nodes above the last change are brought up to date when they are needed, a few at a time, so that no step takes
/// long. Until then what they say of other places stays true.
///
/// Only what lies under `top`, the lowest node that has everything ever taken, is kept so: right of it all is free, as
/// what stands right of the way down to it says for good. So a large window costs no more than a small one.
pub(super) struct Tree<const ALIGN: usize, const OFFSET: usize> {
    nodes: *mut Runs<ALIGN, OFFSET>,
    words: *mut u64,
    units: usize,
    /// Words in memory; those up to `leaves` are not there and count as taken.
    count: usize,
    pub(super) leaves: usize,
    /// The nodes whose ancestors are behind, or 0; when there is one it is the first. They lie on exposed paths.
    pending: [usize; 2],
    /// A node of the path above `pending`, if any, whose ancestors are behind for sure.
    behind: usize,
    /// The first node of its level under which everything lies that was ever taken.
    pub(super) top: usize,
    /// The word's node that was exposed last: what is stored on the way to it, and beside the way, is up to date.
    pub(super) exposed: usize,
}

/// How many nodes are brought up to date in one step; the first level, of words, takes as long as two.
const ROOM: i32 = 2;
const OF_WORDS: i32 = 1;

/// What [`Tree::mark`] makes of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Free,
    Taken,
}

impl<const ALIGN: usize, const OFFSET: usize> Tree<ALIGN, OFFSET> {
    /// No units, no memory.
    pub(super) const EMPTY: Self = Tree {
        nodes: core::ptr::null_mut(),
        words: core::ptr::null_mut(),
        units: 0,
        count: 0,
        leaves: 0,
        pending: [0; 2],
        behind: usize::MAX,
        top: 0,
        exposed: 0,
    };

    const fn leaves(units: usize) -> usize {
        let words = units.div_ceil(WORD).next_power_of_two();
        if words < 2 { 2 } else { words }
    }

    pub(super) const fn storage_bytes(units: usize) -> usize {
        let words = units.div_ceil(WORD) * size_of::<u64>();
        words + Self::leaves(units) * size_of::<Runs<ALIGN, OFFSET>>()
    }

    /// All units taken.
    ///
    /// # Safety
    /// `ptr` is aligned to 8 and valid for reads and writes of `storage_bytes(units)` bytes that nothing else uses as
    /// long as the tree is in use; `units` is less than 2^31.
    pub(super) unsafe fn new(ptr: *mut u8, units: usize) -> Self {
        let leaves = Self::leaves(units);
        let words = ptr.wrapping_add(leaves * size_of::<Runs<ALIGN, OFFSET>>());
        let mut tree = Tree {
            nodes: ptr.cast(),
            words: words.cast(),
            units,
            count: units.div_ceil(WORD),
            leaves,
            pending: [0; 2],
            behind: usize::MAX,
            top: 1,
            exposed: 1,
        };
        tree.put(1, Runs::TAKEN);
        tree.open_path(1, leaves);
        tree.exposed = leaves;
        tree
    }

    /// From now on only what was taken is kept up to date: everything is free.
    pub(super) fn narrow(&mut self) {
        while !self.settle_some() {}
        self.expose(self.leaves);
        self.top = self.leaves / 2;
    }

    /// Brings a word under `top`. The tree is settled.
    #[inline]
    fn widen(&mut self, word: usize) {
        while word >= self.leaves / self.top {
            let runs = Runs::join(self.inner(self.top), self.inner(self.top + 1), self.len(self.top));
            self.top /= 2;
            self.put(self.top, runs);
        }
    }

    #[inline]
    pub(super) fn units(&self) -> usize {
        self.units
    }

    /// Units under `node`.
    #[inline]
    pub(super) fn len(&self, node: usize) -> u32 {
        ((self.leaves * WORD) >> node.ilog2()) as u32
    }

    /// The first unit under `node`.
    #[inline]
    pub(super) fn base(&self, node: usize) -> usize {
        (node - (1 << node.ilog2())) * self.len(node) as usize
    }

    #[inline]
    pub(super) fn word(&self, word: usize) -> u64 {
        if word >= self.count {
            return 0;
        }
        // SAFETY: `word` is below the number of words that `new` was promised memory for, and is written before a
        // path that leads to it is read (`open_path` writes the words below a node it opens).
        unsafe { self.words.add(word).read() }
    }

    #[inline]
    fn put_word(&mut self, word: usize, bits: u64) {
        if word < self.count {
            // SAFETY: as in `word`.
            unsafe { self.words.add(word).write(bits) }
        }
    }

    #[inline]
    pub(super) fn get(&self, node: usize) -> Runs<ALIGN, OFFSET> {
        if node >= self.leaves {
            return Runs::of_word(self.word(node - self.leaves));
        }
        self.inner(node)
    }

    /// A node that is no word's.
    #[inline]
    pub(super) fn inner(&self, node: usize) -> Runs<ALIGN, OFFSET> {
        debug_assert!(0 < node && node < self.leaves);
        // SAFETY: `node` is below `leaves`, the number of nodes that `new` was promised memory for; the root is
        // written there, and `open_path` writes both children before a path goes on to them.
        unsafe { self.nodes.add(node).read() }
    }

    #[inline]
    fn put(&mut self, node: usize, runs: Runs<ALIGN, OFFSET>) {
        debug_assert!(0 < node && node < self.leaves);
        // SAFETY: as in `inner`.
        unsafe { self.nodes.add(node).write(runs) }
    }

    /// Makes all units under `node`, which has `len`, free or taken. Nothing below it is written.
    #[inline]
    fn fill(&mut self, node: usize, len: u32, state: State) {
        match (state, node.checked_sub(self.leaves)) {
            (State::Free, Some(word)) => self.put_word(word, u64::MAX),
            (State::Taken, Some(word)) => self.put_word(word, 0),
            (State::Free, None) => self.put(node, Runs::free(len)),
            (State::Taken, None) => self.put(node, Runs::TAKEN),
        }
    }

    /// Brings what is stored below `top` on the way to `leaf`, and beside the way, up to date. No unit changes.
    fn open_path(&mut self, top: usize, leaf: usize) {
        let mut up = leaf.ilog2() - top.ilog2();
        let mut len = self.len(top);
        while up > 0 {
            let node = leaf >> up;
            let longest = self.inner(node).longest;
            up -= 1;
            len /= 2;
            if longest == 0 {
                self.fill(2 * node, len, State::Taken);
                self.fill(2 * node + 1, len, State::Taken);
            } else if longest == 2 * len {
                self.fill(2 * node, len, State::Free);
                self.fill(2 * node + 1, len, State::Free);
            }
        }
    }

    /// Exposes a word, from where its path leaves the one exposed last.
    #[inline]
    fn expose(&mut self, leaf: usize) {
        self.open_path(above(self.exposed, leaf), leaf);
        self.exposed = leaf;
    }

    /// Exposes a word: it can be read, and replaced by [`store`](Tree::store). Also says whether the unit right
    /// before it is free. The tree is settled.
    pub(super) fn reach_word(&mut self, word: usize) -> (u64, bool) {
        self.widen(word);
        let leaf = self.leaves + word;
        self.expose(leaf);
        // The stretch to the left ends where the highest node that begins with this word begins.
        let first = leaf >> leaf.trailing_zeros();
        let joins = first > 1 && self.get(first - 1).suffix > 0;
        (self.word(word), joins)
    }

    /// Replaces the word reached last. Its path stays behind.
    pub(super) fn store(&mut self, word: usize, bits: u64) {
        self.put_word(word, bits);
        if self.pending[0] != 0 {
            // On the way up from this word, and not there yet.
            self.behind = self.behind.min(self.pending[0]);
        }
        self.pending = [self.leaves + word, 0];
    }

    /// Exposes the first word of a range that is not empty, for [`reach_last`](Tree::reach_last). The tree is settled.
    pub(super) fn reach_first(&mut self, range: &Range<usize>) {
        self.widen((range.end - 1) / WORD);
        self.expose(self.leaves + range.start / WORD);
    }

    /// Exposes the last word of the range whose first was exposed last, so that [`is_taken`](Tree::is_taken) and
    /// [`mark`](Tree::mark) can work on it.
    pub(super) fn reach_last(&mut self, range: &Range<usize>) {
        self.expose(self.leaves + (range.end - 1) / WORD);
    }

    /// The bits of `word` that lie in `range`, which it meets.
    #[inline]
    fn part(word: usize, range: &Range<usize>) -> u64 {
        let (from, to) = (range.start.max(word * WORD), range.end.min((word + 1) * WORD));
        ones(to - from) << (from - word * WORD)
    }

    /// Calls `visit` with the at most two nodes per level that cover the words between two, and their lengths,
    /// until it returns false.
    #[inline]
    fn between(leaves: usize, first: usize, last: usize, mut visit: impl FnMut(usize, u32) -> bool) -> bool {
        let (mut left, mut right, mut len) = (leaves + first + 1, leaves + last, WORD as u32);
        while left < right {
            if left % 2 == 1 {
                if !visit(left, len) {
                    return false;
                }
                left += 1;
            }
            if right % 2 == 1 {
                right -= 1;
                if !visit(right, len) {
                    return false;
                }
            }
            left /= 2;
            right /= 2;
            len *= 2;
        }
        true
    }

    /// True when every unit of the range reached last is taken.
    pub(super) fn is_taken(&self, range: &Range<usize>) -> bool {
        let (first, last) = (range.start / WORD, (range.end - 1) / WORD);
        self.word(first) & Self::part(first, range) == 0
            && self.word(last) & Self::part(last, range) == 0
            && Self::between(self.leaves, first, last, |node, _| self.get(node).longest == 0)
    }

    /// True when the range, of more than a word, was the one marked last, and nothing was done since.
    #[inline]
    pub(super) fn has_marked(&self, range: &Range<usize>) -> bool {
        self.pending == [range.start, range.end - 1].map(|unit| self.leaves + unit / WORD)
    }

    /// Makes the range reached last free or taken. The nodes above both ends stay behind.
    pub(super) fn mark(&mut self, range: &Range<usize>, state: State) {
        let (first, last) = (range.start / WORD, (range.end - 1) / WORD);
        for word in [first, last] {
            let (bits, part) = (self.word(word), Self::part(word, range));
            self.put_word(word, if state == State::Free { bits | part } else { bits & !part });
        }
        Self::between(self.leaves, first, last, |node, len| {
            self.fill(node, len, state);
            true
        });
        self.pending = [self.leaves + first, if first == last { 0 } else { self.leaves + last }];
    }

    /// What the parent of `node` is.
    #[inline]
    fn join_up(&self, node: usize, runs: Runs<ALIGN, OFFSET>, len: u32) -> Runs<ALIGN, OFFSET> {
        let sibling = self.get(node ^ 1);
        if node.is_multiple_of(2) { Runs::join(runs, sibling, len) } else { Runs::join(sibling, runs, len) }
    }

    /// Brings nodes above the last change up to date, as many as one step has room for; true when there were none.
    #[inline]
    pub(super) fn settle_some(&mut self) -> bool {
        self.pending[0] == 0 || self.settle_more()
    }

    #[inline(never)]
    fn settle_more(&mut self) -> bool {
        let mut room = ROOM;
        while room > 0 {
            let [first, second] = self.pending;
            // The one node above both; what has both under it is behind, too.
            let meet = if second == 0 { self.top / 2 } else { meet(first, second) };
            if second != 0 && second / 2 != meet {
                self.pending = match self.climb(second, meet, &mut room) {
                    Some(second) => [first, second],
                    None => [first, 0],
                };
            } else if first / 2 != meet {
                self.pending = match self.climb(first, meet, &mut room) {
                    Some(first) => [first, second],
                    None => [second, 0],
                };
            } else {
                self.pending = [if second == 0 { 0 } else { first }, 0];
            }
            if self.pending[0] == 0 {
                self.behind = usize::MAX;
                break;
            }
        }
        false
    }

    /// Brings nodes above `node` up to date, below `meet`, one of them: where it came to, unless those above are as they
    /// should be.
    #[inline(always)]
    fn climb(&mut self, mut node: usize, meet: usize, room: &mut i32) -> Option<usize> {
        if node >= self.leaves {
            *room -= OF_WORDS;
        }
        let (mut runs, mut len) = (self.get(node), self.len(node));
        while node / 2 != meet && *room > 0 {
            *room -= 1;
            runs = self.join_up(node, runs, len);
            node /= 2;
            len *= 2;
            if node < self.behind && self.inner(node) == runs {
                return None;
            }
            self.put(node, runs);
        }
        Some(node)
    }

    /// The highest node on the path to `unit` that says all of it: a uniform one, or the word's own.
    pub(super) fn locate(&self, unit: usize) -> usize {
        let word = unit / WORD;
        let leaf = self.leaves + word;
        // Right of all that was ever taken, from what stands right of the way down to it.
        let mut up = if word < self.leaves / self.top { leaf.ilog2() - self.top.ilog2() } else { word.ilog2() };
        for pending in self.pending.into_iter().filter(|node| *node != 0) {
            // Above it nothing can be told of what changed.
            let under = leaf.ilog2() - pending.ilog2();
            up = up.min(match leaf >> under {
                node if node == pending => under,
                node => leaf.ilog2() - above(node, pending).ilog2() - 1,
            });
        }
        while up > 0 {
            let node = leaf >> up;
            if self.inner(node).is_uniform(self.len(node)) {
                return node;
            }
            up -= 1;
        }
        leaf
    }
}

/// The lowest node above two nodes none of which is above the other.
#[inline]
fn meet(first: usize, second: usize) -> usize {
    let (up, down) = (first.min(second), first.max(second));
    above(up, down >> (down.ilog2() - up.ilog2()))
}

/// The lowest node above two words' nodes, or the one when they are the same.
#[inline]
pub(super) fn above(first: usize, last: usize) -> usize {
    first >> (usize::BITS - (first ^ last).leading_zeros())
}
