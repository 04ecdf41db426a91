//! The buddy where room for code counts most (feature `small`): one binary tree, one byte for each of its nodes.
//!
//! A node says the order of the largest free block below it, plus one; 0 when nothing there is free. What a node says that
//! is wholly free or wholly taken holds for all below it, whatever those say: so a block is given and taken by its own
//! nodes and those above them. The lowest address across all orders is found in one descent, as by the words and groups of
//! the [other](super::Buddy), of which this keeps every promise but one: a run of a few pages that is no power of two takes
//! the beginning of a block, and not what is left of one beside it.
//!
//! Cost: O(log2 of the frames) for each aligned block that a run consists of; two bytes for each frame, six at
//! worst, where a region's first frame is far from any alignment.

// Without that feature only its tests use it.
#![cfg_attr(not(feature = "small"), allow(dead_code))]

use super::MAX_ORDER_LIMIT;
use crate::addr::Pfn;
use crate::bits::{Word, highest, lowest, order_for};
use core::num::NonZeroUsize;

/// From which end of memory a block is taken: which of two halves is looked at first.
#[derive(Clone, Copy)]
enum End {
    Low = 0,
    High = 1,
}

/// What becomes of frames, as the bits of what a node says that then count.
#[derive(Clone, Copy)]
enum State {
    Taken = 0,
    Free = 0xff,
}

/// The free frames of one region.
pub struct Buddy {
    /// What a leaf's node is numbered from: as many frames before that of the first leaf, which is aligned to the largest
    /// block that fits the region, as there is room for leaves.
    origin: u32,
    max_order: u8,
    /// The root, at index 1, is of that many levels above the leaves.
    height: u8,
    /// The two halves of node `n` are `2 * n` and `2 * n + 1`.
    nodes: *mut u8,
}

/// Where the leaves of a region stand.
#[derive(Clone, Copy)]
struct Layout {
    base: u32,
    /// Leaves that stand for a frame of the region, or for one before its first.
    leaves: u32,
    height: u8,
}

impl Layout {
    const fn of(start: u32, len: u32, max_order: usize) -> Layout {
        let fits = len.ilog2() as usize;
        let largest = if fits < max_order { fits } else { max_order };
        let base = start & !((1 << largest) - 1);
        let leaves = start - base + len;
        Layout { base, leaves, height: leaves.next_power_of_two().ilog2() as u8 }
    }
}

impl Buddy {
    /// The most frames one buddy can serve, as of the other.
    pub const MAX_FRAMES: usize = super::Buddy::MAX_FRAMES;
    /// Bytes of storage for a region, which has a frame; the storage is aligned to 8 bytes.
    pub const fn storage_bytes(start: u32, len: u32, max_order: usize) -> usize {
        let l = Layout::of(start, len, max_order);
        // Halves come in pairs.
        ((1 << l.height) + l.leaves as usize + 1).next_multiple_of(8)
    }

    /// How many records stand before that of a region's first frame: none are needed.
    pub const fn lead(_start: u32, _max_order: usize) -> usize {
        0
    }

    /// A buddy over `len` frames from `start`, none of them free.
    ///
    /// # Safety
    /// `storage` is zeroed, 8-aligned, `storage_bytes` long, and the buddy's alone.
    pub unsafe fn new(start: u32, len: u32, max_order: usize, storage: *mut u8) -> Buddy {
        let l = Layout::of(start, len, max_order);
        let origin = l.base.wrapping_sub(1 << l.height);
        Buddy { origin, max_order: max_order as u8, height: l.height, nodes: storage }
    }

    #[inline(always)]
    fn node(&mut self, n: usize) -> &mut u8 {
        // SAFETY: nodes stand for blocks that hold a frame of the region, or are the other half of one that does.
        unsafe { &mut *self.nodes.add(n) }
    }

    /// Takes `pages` contiguous frames, 1 to `1 << max_order`: the beginning of the lowest block that holds them, which is
    /// aligned to its own length. `mark` is told the first frame.
    #[inline(always)]
    pub fn take(&mut self, pages: usize, _align: usize, mark: impl FnOnce(u32)) -> Option<u32> {
        let leaf = self.find(order_for(pages), End::Low)?.get();
        let first = self.frame(leaf);
        self.mark(first, pages, State::Taken);
        mark(first);
        Some(first)
    }

    /// Takes the block of `1 << order` frames that [`take`](Self::take) would take.
    #[inline(always)]
    pub fn take_order(&mut self, order: usize, mark: impl FnOnce(u32)) -> Option<u32> {
        self.take(1 << order, order, mark)
    }

    /// As [`take`](Self::take), aligned to `1 << align` frames: the end of the highest block.
    #[cold]
    #[inline(never)]
    pub fn take_high(&mut self, pages: usize, align: usize) -> Option<u32> {
        let order = order_for(pages);
        let leaf = self.find(order, End::High)?.get() + (((1 << order) - pages) >> align << align);
        let first = self.frame(leaf);
        self.mark(first, pages, State::Taken);
        Some(first)
    }

    /// The first leaf of the first free block of `order` from this end.
    #[inline]
    fn find(&mut self, order: usize, end: End) -> Option<NonZeroUsize> {
        let (mut n, mut height) = (1, usize::from(self.height));
        let mut says = usize::from(*self.node(n));
        if order > self.max_order.into() || says <= order {
            return None;
        }
        // All of a wholly free node will do.
        while says <= height {
            height -= 1;
            n = 2 * n + end as usize;
            says = (*self.node(n)).into();
            if says <= order {
                n ^= 1;
                says = (*self.node(n)).into();
            }
        }
        // SAFETY: `height` of the tree at most.
        unsafe { core::hint::assert_unchecked(height < usize::BITS as usize) };
        let first = n << height;
        NonZeroUsize::new(match end {
            End::Low => first,
            End::High => first + (1 << height) - (1 << order),
        })
    }

    /// Marks `pages` frames from `pfn`, which are all as they are not to be.
    #[inline(never)]
    fn mark(&mut self, pfn: u32, mut pages: usize, state: State) {
        let (nodes, mut leaf) = (self.nodes, self.leaf(pfn));
        // SAFETY: the nodes above leaves of the tree, and the other halves of those.
        let node = |n: usize| unsafe { nodes.add(n) };
        while pages != 0 {
            let order = highest(pages).min(lowest(leaf));
            let mut height = usize::from(self.height);
            // SAFETY: as above; heights are bit numbers.
            unsafe {
                while height != order {
                    core::hint::assert_unchecked(height < usize::BITS as usize);
                    let n = leaf >> height;
                    height -= 1;
                    // What it says of all below it is from now on said by the two below it.
                    let mut says = *node(n);
                    if says != 0 {
                        if usize::from(says) <= height + 1 {
                            continue;
                        }
                        says -= 1;
                    }
                    *node(2 * n) = says;
                    *node(2 * n + 1) = says;
                }
                core::hint::assert_unchecked(order < usize::BITS as usize);
                let mut n = leaf >> order;
                *node(n) = ((order + 1) & state as usize) as u8;
                while n != 1 {
                    let (this, other) = (usize::from(*node(n)), usize::from(*node(n ^ 1)));
                    height += 1;
                    n >>= 1;
                    // Neither says more than that it is wholly free, which is its height plus one.
                    *node(n) = (this.max(other) + usize::from(this + other == 2 * height)) as u8;
                }
            }
            leaf += 1 << order;
            pages -= 1 << order;
        }
    }

    /// The leaf of a frame of the region.
    #[inline(always)]
    fn leaf(&self, pfn: u32) -> usize {
        pfn.wrapping_sub(self.origin) as usize
    }

    /// The frame of a leaf.
    #[inline(always)]
    fn frame(&self, leaf: usize) -> u32 {
        self.origin.wrapping_add(leaf as u32)
    }

    /// Gives `pages` frames from `pfn` back. The caller checked that they are one block of this region, and taken.
    #[inline(always)]
    pub fn give(&mut self, pfn: u32, pages: usize) {
        self.mark(pfn, pages, State::Free);
    }

    /// As [`give`](Self::give), of a block that is found by its word: here none is.
    ///
    /// # Safety
    /// There is no such word.
    #[inline(always)]
    pub unsafe fn give_from(&mut self, _word: *mut Word, _bit: usize, _pages: usize) {
        debug_assert!(false, "a word of a buddy that has none");
    }

    /// True when the frame, which lies in the region, is free.
    pub fn is_free(&mut self, pfn: u32) -> bool {
        let leaf = self.leaf(pfn);
        let mut height = usize::from(self.height);
        loop {
            // SAFETY: it began as that of the tree, and the leaf itself is wholly free or wholly taken.
            unsafe { core::hint::assert_unchecked(height < usize::BITS as usize) };
            let says = usize::from(*self.node(leaf >> height));
            if says == 0 || says > height {
                return says != 0;
            }
            height -= 1;
        }
    }

    /// Takes a free frame out of use.
    #[cfg(any(test, feature = "page-poison"))]
    pub fn withdraw(&mut self, pfn: u32) {
        self.mark(pfn, 1, State::Taken);
    }

    /// The order of the largest free block.
    pub fn largest(&mut self) -> Option<usize> {
        (*self.node(1)).checked_sub(1).map(|order| order.min(self.max_order).into())
    }

    /// No frame is at hand without a descent.
    #[inline(always)]
    pub fn take_open(&mut self) -> Option<u32> {
        None
    }

    /// Takes the lowest free frame.
    #[inline(always)]
    pub fn take_next(&mut self) -> Option<u32> {
        self.take(1, 0, |_| ())
    }

    /// Takes the lowest free frame, a row of its own.
    pub fn take_row(&mut self, room: &mut [Pfn], mut found: impl FnMut(u32)) -> usize {
        let Some(entry) = room.first_mut() else { return 0 };
        let Some(pfn) = self.take(1, 0, |_| ()) else { return 0 };
        found(pfn);
        *entry = Pfn(pfn);
        1
    }

    /// The row of a frame: itself.
    pub fn row_of(&self, pfn: u32) -> (u32, Word) {
        (pfn, 1)
    }

    /// Gives the frames `row` back, of which bit 0 is frame `first`. The caller checked that each is one of this region, and
    /// taken.
    pub fn give_row(&mut self, first: u32, mut row: Word) {
        while row != 0 {
            self.give(first + lowest(row) as u32, 1);
            row &= row - 1;
        }
    }

    /// There are no words: null, and the frame itself.
    pub fn word_of(&self, pfn: u32) -> (*mut Word, u32) {
        (core::ptr::null_mut(), pfn)
    }

    /// No word is told of.
    #[inline(always)]
    pub fn is_open(&self, _word: *mut Word) -> bool {
        true
    }

    /// Nothing need be told of a word.
    ///
    /// # Safety
    /// None.
    #[inline(always)]
    pub unsafe fn settle(&mut self, _word: *mut Word) -> bool {
        true
    }

    /// Nothing is told of a word.
    ///
    /// # Safety
    /// None.
    #[inline(always)]
    pub unsafe fn retell(&mut self, _word: *mut Word) {}

    /// Looks through the whole tree. Returns the number of free frames, or the first contradiction.
    pub fn check(&mut self) -> Result<usize, (&'static str, usize)> {
        let mut free = 0;
        let leaves = 1 << self.height;
        self.each_block(|this, at, height, is_free| {
            free += usize::from(is_free) << height;
            // Those above a whole block are not whole.
            let mut above = height;
            while above != usize::from(this.height) {
                let n = (leaves + at) >> above;
                let (one, other) = (usize::from(*this.node(n)), usize::from(*this.node(n ^ 1)));
                above += 1;
                let both = one == other && one == above;
                if usize::from(*this.node(n >> 1)) != one.max(other) + usize::from(both) {
                    return Err(("a node is wrong about its halves", n >> 1));
                }
            }
            Ok(())
        })?;
        Ok(free)
    }

    /// Free blocks by order, each frame counted in its largest free block.
    pub fn count_blocks(&mut self, counts: &mut [usize; MAX_ORDER_LIMIT + 1]) {
        let max = usize::from(self.max_order);
        let _ = self.each_block::<()>(|_, _, height, is_free| {
            let order = height.min(max);
            counts[order] += usize::from(is_free) << (height - order);
            Ok(())
        });
    }

    /// Calls `f` for each block that is wholly free or wholly taken, by ascending address: its first leaf, its height, and
    /// whether it is free.
    fn each_block<E>(&mut self, mut f: impl FnMut(&mut Self, usize, usize, bool) -> Result<(), E>) -> Result<(), E> {
        let (mut at, leaves) = (0, 1 << self.height);
        while at < leaves {
            let mut height = usize::from(self.height);
            let mut says = *self.node((leaves + at) >> height);
            while says != 0 && usize::from(says) <= height {
                height -= 1;
                says = *self.node((leaves + at) >> height);
            }
            f(self, at, height, says != 0)?;
            at += 1 << height;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A buddy and a list of booleans, which must agree.
    struct Pair {
        buddy: Buddy,
        _storage: Vec<u64>,
        start: usize,
        free: Vec<bool>,
        live: Vec<(usize, usize)>,
        max_order: usize,
    }

    impl Pair {
        fn all_free(start: u32, len: u32, max_order: usize) -> Pair {
            let mut storage = std::vec![0u64; Buddy::storage_bytes(start, len, max_order) / 8];
            // SAFETY: zeroed, aligned, long enough, and the buddy's alone.
            let mut buddy = unsafe { Buddy::new(start, len, max_order, storage.as_mut_ptr().cast()) };
            buddy.give(start, len as usize);
            let free = std::vec![true; len as usize];
            Pair { buddy, _storage: storage, start: start as usize, free, live: Vec::new(), max_order }
        }

        /// The first frames of the aligned free blocks of `order`.
        fn blocks(&self, order: usize) -> impl DoubleEndedIterator<Item = usize> {
            let (size, end) = (1 << order, self.start + self.free.len());
            (self.start.next_multiple_of(size)..end.saturating_sub(size - 1))
                .step_by(size)
                .filter(move |at| self.free[at - self.start..at - self.start + size].iter().all(|free| *free))
        }

        fn take(&mut self, pages: usize, align: usize, end: End) {
            let order = order_for(pages);
            let want = match end {
                _ if order > self.max_order => None,
                End::Low => self.blocks(order).next(),
                End::High => self.blocks(order).next_back().map(|at| at + (((1 << order) - pages) >> align << align)),
            };
            let got = match end {
                End::Low => self.buddy.take(pages, align, |_| ()),
                End::High => self.buddy.take_high(pages, align),
            };
            assert_eq!(got.map(|pfn| pfn as usize), want, "take of {pages}");
            if let Some(at) = want {
                self.free[at - self.start..at - self.start + pages].fill(false);
                self.live.push((at, pages));
            }
        }

        fn give(&mut self, (at, pages): (usize, usize)) {
            self.free[at - self.start..at - self.start + pages].fill(true);
            self.buddy.give(at as u32, pages);
        }

        fn check(&mut self) {
            assert_eq!(self.buddy.check(), Ok(self.free.iter().filter(|free| **free).count()));
            for i in 0..self.free.len() {
                assert_eq!(self.buddy.is_free((self.start + i) as u32), self.free[i], "frame {i}");
            }
            let largest = (0..=self.max_order).rev().find(|&order| self.blocks(order).next().is_some());
            assert_eq!(self.buddy.largest(), largest);
            let mut counts = [0; MAX_ORDER_LIMIT + 1];
            self.buddy.count_blocks(&mut counts);
            let sum: usize = counts.iter().enumerate().map(|(order, blocks)| blocks << order).sum();
            assert_eq!(sum, self.free.iter().filter(|free| **free).count());
            if let Some(largest) = largest {
                assert_eq!(counts[largest], self.blocks(largest).count());
            }
        }
    }

    #[test]
    fn small_regions_of_any_place_and_length_agree_with_the_model() {
        let lengths: &[u32] = if cfg!(miri) { &[1, 13] } else { &[1, 2, 3, 5, 8, 13, 31, 64, 100, 257, 1000] };
        let mut seed = 0x5EED_0003u64;
        let mut below = |n: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % n
        };
        for &len in lengths {
            for (start, max_order) in [(0, 10), (1, 10), (7, 3), (1000, 10), (1023, 5), (4096, 13)] {
                let mut pair = Pair::all_free(start, len, max_order);
                pair.check();
                for step in 0..if cfg!(miri) { 20 } else { 300 } {
                    match below(5) {
                        0 | 1 if !pair.live.is_empty() => {
                            let gone = pair.live.swap_remove(below(pair.live.len()));
                            pair.give(gone);
                        }
                        choice => {
                            let pages = 1 + below((len as usize).min(40));
                            let align = pages.trailing_zeros() as usize;
                            pair.take(pages, align, if choice == 2 { End::High } else { End::Low });
                        }
                    }
                    if len < 100 || step % 16 == 0 {
                        pair.check();
                    }
                }
                while let Some(block) = pair.live.pop() {
                    pair.give(block);
                }
                pair.check();
                assert!(pair.free.iter().all(|free| *free));
            }
        }
    }

    #[test]
    fn a_withdrawn_frame_is_not_handed_out() {
        let mut pair = Pair::all_free(16, 16, 4);
        pair.buddy.withdraw(20);
        pair.free[4] = false;
        pair.check();
        pair.take(16, 4, End::Low);
        pair.take(8, 3, End::Low);
        pair.check();
        assert_eq!(pair.live, [(24, 8)]);
    }

    #[test]
    fn the_storage_is_about_two_bytes_for_each_frame_and_six_at_worst() {
        for len in [64u32, 100, 129, 1000, 4097] {
            for start in [0u32, 64, 1000, 1023, 8191] {
                let bytes = Buddy::storage_bytes(start, len, 10);
                assert!(bytes <= 6 * len as usize + 16, "{bytes} for {len} from {start}");
            }
            assert!(Buddy::storage_bytes(0, len, 10) <= 3 * len as usize + 16);
        }
    }
}
