//! The buddy: free frames as bitmaps under a tree that finds the lowest free block of any order.
//!
//! One bit per frame, 1 for free, in machine words. Blocks are never split or merged by hand: two free halves *are*
//! the free whole, and a run is found inside a word by folding. Over the words stands a tree of fixed height:
//! a group per word of words, a root per word of groups, one top. Each node keeps, for every order, which of its
//! children hold a free block of at least that order, so the lowest address across *all* orders is found in one
//! descent. (Lowest-first in each order alone ends with 2 of 448 order-9 blocks after churn, this with 247.) A run that
//! need not be aligned to all of its length is looked for in the word of the lowest block that would hold it: so slabs of
//! three pages stand side by side, not each in a block of four.
//!
//! Single frames come from one *open* word whose changes the tree does not see until the word is used up or a larger
//! request needs it. Cost: a few instructions for a single frame, O(levels) for a block of any length, and one word
//! at a time for lengths above a word (at most `2^13 / Word::BITS`).

// With that feature regions have the other one.
#![cfg_attr(feature = "small", allow(dead_code))]

mod check;
#[cfg(any(test, feature = "small"))]
mod small;
#[cfg(test)]
mod tests;

#[cfg(not(feature = "small"))]
pub use self::Buddy as RegionBuddy;
#[cfg(feature = "small")]
pub use small::Buddy as RegionBuddy;

use crate::bits::{
    USED_UP, WORD_MASK, WORD_SHIFT, Word, aligned, class, fold, highest, lowest, order_for, rarely, run, runs,
};

/// Orders a word's own bits can tell.
const B: usize = WORD_SHIFT;
/// The largest order any build can have.
pub const MAX_ORDER_LIMIT: usize = 13;
const NO_WORD: usize = usize::MAX;

/// Up to `Word::BITS` children and the orders of their free blocks; `N - 1` is the order of a wholly free child.
///
/// A child's class is 0 when nothing of it is free, else one more than the order of its largest free block, and `N` when
/// all of it is. It stands in the sets below its class and in no other: so the sets are nested, what class a child had
/// need not be kept, and a child that goes from one class to another is moved in the sets between them only.
#[repr(C)]
struct Node<const N: usize> {
    /// `has[k]`: children with a free block of order `k`.
    has: [Word; N],
}

/// Up to `Word::BITS` words.
type Group = Node<{ B + 1 }>;
/// Up to `Word::BITS` groups.
type Root = Node<{ 2 * B + 1 }>;

impl<const N: usize> Node<N> {
    /// The children `bits` have class `new` now, which is not below the one they had. Returns the node's class if it may
    /// have changed: that of its highest child, or more when children that are wholly free stand side by side.
    #[inline(always)]
    fn rise(&mut self, bits: Word, new: usize) -> Option<usize> {
        let mut k = new.min(N);
        let is_first = k != 0 && self.has[k - 1] == 0;
        while k != 0 && self.has[k - 1] & bits != bits {
            k -= 1;
            self.has[k] |= bits;
        }
        if new < N { is_first.then_some(new) } else { Some(N - 1 + class(self.has[N - 1])) }
    }

    /// The children `bits` have class `new` now, which is not above the one they had. Returns the node's class if it may
    /// have changed.
    #[inline(always)]
    fn fall(&mut self, bits: Word, new: usize) -> Option<usize> {
        let (mut now, mut k) = (None, new);
        while k < N && self.has[k] & bits != 0 {
            self.has[k] &= !bits;
            if self.has[k] == 0 && now.is_none() {
                now = Some(k);
            }
            k += 1;
        }
        // With a child that was wholly free a run of such may have become shorter.
        if k == N && k != new && self.has[N - 1] != 0 { Some(N - 1 + class(self.has[N - 1])) } else { now }
    }

    /// The children `bits` were wholly taken and are wholly free. Returns the node's class.
    #[inline(always)]
    fn free(&mut self, bits: Word) -> usize {
        for set in &mut self.has {
            *set |= bits;
        }
        N - 1 + class(self.has[N - 1])
    }

    /// The children `bits` were wholly free and are wholly taken. Returns the node's class.
    #[inline(always)]
    fn take(&mut self, bits: Word) -> usize {
        for set in &mut self.has {
            *set &= !bits;
        }
        if self.has[N - 1] != 0 {
            return N - 1 + class(self.has[N - 1]);
        }
        let mut k = 0;
        while k < N && self.has[k] != 0 {
            k += 1;
        }
        k
    }
}

/// The free frames of one region.
pub struct Buddy {
    /// Frame number of bit 0, aligned to the largest block.
    base: u32,
    words: *mut Word,
    groups: *mut Group,
    roots: *mut Root,
    word_count: usize,
    /// With one root there is no top: a region of up to a GiB (64-bit, 4 KiB pages) is spared a level.
    root_count: usize,
    /// The word single frames come from, hidden from the tree, or one without a frame; and the frame of its bit 0.
    open_word: *mut Word,
    open_first: u32,
    max_order: usize,
    top: [Word; MAX_ORDER_LIMIT + 1],
}

/// Sizes of the arrays a buddy needs, for a region of frames.
#[derive(Clone, Copy)]
struct Layout {
    base: u32,
    words: usize,
    groups: usize,
    roots: usize,
}

impl Layout {
    const fn of(start: u32, len: u32, max_order: usize) -> Layout {
        let base = start & !((1 << max_order) - 1);
        let words = ((start - base) as usize + len as usize).div_ceil(Word::BITS as usize);
        let groups = words.div_ceil(Word::BITS as usize);
        Layout { base, words, groups, roots: groups.div_ceil(Word::BITS as usize) }
    }
}

impl Buddy {
    /// The most frames one buddy can serve, beginning anywhere: four levels of words, less one largest block.
    pub const MAX_FRAMES: usize = if Word::BITS == 64 { 1 << 24 } else { 1 << 20 } - (1 << MAX_ORDER_LIMIT);

    /// Frames have words of bits that may be written to from outside; see [`retell`](Self::retell).
    pub const HAS_WORDS: bool = true;

    /// Bytes of storage for a region; the storage is aligned to 8 bytes.
    pub const fn storage_bytes(start: u32, len: u32, max_order: usize) -> usize {
        let l = Layout::of(start, len, max_order);
        let bytes = l.roots * size_of::<Root>() + l.groups * size_of::<Group>() + l.words * size_of::<Word>();
        bytes.next_multiple_of(8)
    }

    /// How many bits of the word of frame `start` stand before its own.
    pub const fn lead(start: u32, max_order: usize) -> usize {
        (start - Layout::of(start, 1, max_order).base) as usize & WORD_MASK
    }

    /// A buddy over `len` frames from `start`, none of them free.
    ///
    /// # Safety
    /// `storage` is zeroed, 8-aligned, `storage_bytes` long, and the buddy's alone.
    pub unsafe fn new(start: u32, len: u32, max_order: usize, storage: *mut u8) -> Buddy {
        let l = Layout::of(start, len, max_order);
        // SAFETY: the three arrays fit the storage by `storage_bytes`, in descending order of alignment.
        unsafe {
            let roots = storage.cast::<Root>();
            let groups = roots.add(l.roots).cast::<Group>();
            let words = groups.add(l.groups).cast::<Word>();
            Buddy {
                base: l.base,
                words,
                groups,
                roots,
                word_count: l.words,
                root_count: l.roots,
                open_word: (&raw const USED_UP).cast_mut(),
                open_first: 0,
                max_order,
                top: [0; MAX_ORDER_LIMIT + 1],
            }
        }
    }

    #[inline(always)]
    fn word(&mut self, i: usize) -> &mut Word {
        debug_assert!(i < self.word_count);
        // SAFETY: indices come from the tree, whose bits exist only for words of the region, or from a frame the
        // caller found in the region.
        unsafe { &mut *self.words.add(i) }
    }

    #[inline(always)]
    fn group(&mut self, g: usize) -> &mut Group {
        debug_assert!(g <= (self.word_count - 1) >> B);
        // SAFETY: as for `word`; every word has its group.
        unsafe { &mut *self.groups.add(g) }
    }

    #[inline(always)]
    fn root(&mut self, r: usize) -> &mut Root {
        debug_assert!(r <= (self.word_count - 1) >> (2 * B));
        // SAFETY: as for `word`; every group has its root.
        unsafe { &mut *self.roots.add(r) }
    }

    /// Takes `pages` contiguous frames, 1 to `1 << max_order`, aligned to `1 << align` frames, at most the power of two
    /// that holds them.
    ///
    /// Of less than a word it takes the lowest such run in the lowest word with an aligned block that holds them; of
    /// more the beginning of the lowest such block.
    #[inline(always)]
    pub fn take(&mut self, pages: usize, align: usize) -> Option<u32> {
        if pages == 1 { self.take_one() } else { self.take_block(pages, align) }
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
        match self.take_open() {
            Some(pfn) => Some(pfn),
            None => self.take_next(),
        }
    }

    /// Takes the lowest free frames of the open word, `most` of them or as many as there are: the frame of the word's first
    /// bit, and the bits. One step, however many they are.
    #[inline(always)]
    pub fn take_row(&mut self, most: usize) -> Option<(u32, Word)> {
        // SAFETY: as in `take_open`.
        if unsafe { *self.open_word } == 0 {
            self.open_next()?;
        }
        // SAFETY: the open word, which is not `USED_UP`: it has a bit.
        let word = unsafe { &mut *self.open_word };
        let all = *word;
        for _ in 0..most {
            if *word == 0 {
                break;
            }
            *word &= *word - 1;
        }
        Some((self.open_first, all & !*word))
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

    /// Gives frames of one word back.
    #[inline]
    fn give_bits(&mut self, i: usize, bits: Word) {
        let word = *self.word(i) | bits;
        *self.word(i) = word;
        if !self.is_open(self.words.wrapping_add(i)) {
            self.rise(i, class(word));
        }
    }

    /// Takes the lowest free frame of the next word. The open one is used up.
    #[inline(always)]
    pub fn take_next(&mut self) -> Option<u32> {
        self.open_next()?;
        self.take_open()
    }

    /// Opens the lowest word that has a free frame.
    #[inline(never)]
    fn open_next(&mut self) -> Option<()> {
        // The tree, which shows the old one as empty, is right about it.
        let Some(i) = self.lowest(0) else {
            self.set_open(NO_WORD);
            return None;
        };
        self.set_open(i);
        self.fall(i, 0);
        Some(())
    }

    /// Shows the open word to the tree again.
    #[cold]
    fn close(&mut self) {
        let i = self.open();
        self.set_open(NO_WORD);
        let word = *self.word(i);
        self.rise(i, class(word));
    }

    /// The order of the largest free block.
    pub fn largest(&mut self) -> Option<usize> {
        if self.open() != NO_WORD {
            self.close();
        }
        (0..=self.max_order).rev().find(|&order| self.lowest(order).is_some())
    }

    /// The word in which the lowest free block of `order` begins.
    #[inline(always)]
    fn lowest(&mut self, order: usize) -> Option<usize> {
        let r = if self.root_count == 1 {
            0
        } else {
            let roots = self.top[order];
            if roots == 0 {
                return None;
            }
            lowest(roots)
        };
        let root = self.root(r);
        let groups = if order <= 2 * B { root.has[order] } else { fold(root.has[2 * B], order - 2 * B) };
        if groups == 0 {
            return None;
        }
        let g = (r << B) + lowest(groups);
        if order > 2 * B {
            return Some(g << B);
        }
        let group = self.group(g);
        let words = if order <= B { group.has[order] } else { fold(group.has[B], order - B) };
        Some((g << B) + lowest(words))
    }

    #[inline(never)]
    fn take_block(&mut self, pages: usize, align: usize) -> Option<u32> {
        let order = order_for(pages);
        if order > self.max_order {
            return None;
        }
        let i = match self.lowest(order) {
            Some(i) => i,
            None if self.open() == NO_WORD => return None,
            None => {
                // With the open word in view there may be one.
                self.close();
                return self.take_block(pages, align);
            }
        };
        if order < B {
            let word = *self.word(i);
            // The aligned block that brought us here is one of them.
            let bit = lowest(aligned(runs(word, pages), align));
            let word = word & !run(bit, pages);
            *self.word(i) = word;
            self.fall(i, class(word));
            return Some(self.base + ((i << B) + bit) as u32);
        }
        let (whole, part) = (pages >> B, pages & WORD_MASK);
        if whole != 0 {
            self.take_whole(i, whole);
        }
        if part != 0 {
            *self.word(i + whole) = Word::MAX << part;
            // What is left is a run up to the word's end.
            self.fall(i + whole, (Word::BITS as usize - part).ilog2() as usize + 1);
        }
        Some(self.base + (i << B) as u32)
    }

    /// The word in which the highest free block of `order` begins.
    #[cold]
    fn highest(&mut self, order: usize) -> Option<usize> {
        let r = if self.root_count == 1 {
            0
        } else {
            let roots = self.top[order];
            if roots == 0 {
                return None;
            }
            highest(roots)
        };
        let root = self.root(r);
        let groups = if order <= 2 * B { root.has[order] } else { fold(root.has[2 * B], order - 2 * B) };
        if groups == 0 {
            return None;
        }
        let g = (r << B) + highest(groups);
        if order > 2 * B {
            return Some(g << B);
        }
        let group = self.group(g);
        let words = if order <= B { group.has[order] } else { fold(group.has[B], order - B) };
        Some((g << B) + highest(words))
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
                return self.take_high(pages, align);
            }
        };
        if order < B {
            let bit = highest(aligned(runs(*self.word(i), pages), align));
            self.take_run((i << B) + bit, pages);
            return Some(self.base + ((i << B) + bit) as u32);
        }
        // Its end, down to where it is aligned.
        let first = (i << B) + (((1 << order) - pages) >> align << align);
        let (mut at, mut left) = (first, pages);
        while left != 0 {
            let (bit, whole) = (at & WORD_MASK, left >> B);
            let n = if bit == 0 && whole != 0 {
                self.take_whole(at >> B, whole);
                whole << B
            } else {
                let n = left.min(Word::BITS as usize - bit);
                self.take_run(at, n);
                n
            };
            at += n;
            left -= n;
        }
        Some(self.base + first as u32)
    }

    /// Takes free frames that lie in one word, which is not the open one.
    fn take_run(&mut self, at: usize, pages: usize) {
        let word = *self.word(at >> B) & !run(at & WORD_MASK, pages);
        *self.word(at >> B) = word;
        self.fall(at >> B, class(word));
    }

    /// Gives `pages` frames from `pfn` back. The caller checked that they are one block of this region, and taken.
    #[inline(always)]
    pub fn give(&mut self, pfn: u32, pages: usize) {
        let at = (pfn - self.base) as usize;
        if pages <= Word::BITS as usize - (at & WORD_MASK) {
            self.give_run(at, pages);
        } else {
            self.give_words(at, pages);
        }
    }

    /// Gives frames back that lie in one word.
    #[inline]
    fn give_run(&mut self, at: usize, pages: usize) {
        self.give_bits(at >> B, run(at & WORD_MASK, pages));
    }

    /// Gives frames back that reach over several words, in any alignment.
    #[inline(never)]
    fn give_words(&mut self, mut at: usize, mut pages: usize) {
        while pages != 0 {
            let (bit, whole) = (at & WORD_MASK, pages >> B);
            let n = if bit == 0 && whole != 0 {
                // It is not the open one any more where it is given back as a whole.
                if self.open().wrapping_sub(at >> B) < whole {
                    self.set_open(NO_WORD);
                }
                self.give_whole(at >> B, whole);
                whole << B
            } else {
                let n = pages.min(Word::BITS as usize - bit);
                self.give_run(at, n);
                n
            };
            at += n;
            pages -= n;
        }
    }

    /// Makes word `i` the open one, or none (`NO_WORD`).
    #[inline(always)]
    fn set_open(&mut self, i: usize) {
        if i == NO_WORD {
            self.open_word = (&raw const USED_UP).cast_mut();
        } else {
            self.open_word = self.words.wrapping_add(i);
            self.open_first = self.base + (i << B) as u32;
        }
    }

    /// The number of the open word; `NO_WORD` when there is none.
    fn open(&self) -> usize {
        if core::ptr::eq(self.open_word, &raw const USED_UP) {
            return NO_WORD;
        }
        // SAFETY: one of the words, since it is not the other.
        unsafe { self.open_word.offset_from_unsigned(self.words) }
    }

    /// True when `word` is the open one; the frames of any other are [`retold`](Self::retell).
    #[inline(always)]
    pub fn is_open(&self, word: *mut Word) -> bool {
        self.open_word == word
    }

    /// The word that holds the bit of a frame of the region, and the frame of its bit 0.
    pub fn word_of(&self, pfn: u32) -> (*mut Word, u32) {
        let i = (pfn - self.base) as usize >> B;
        (self.words.wrapping_add(i), self.base + (i << B) as u32)
    }

    /// A bit was set in a word, which is not the open one: tells the tree.
    ///
    /// # Safety
    /// The word is one of this buddy's, as [`word_of`](Self::word_of) gives them.
    #[inline(always)]
    pub unsafe fn retell(&mut self, word: *mut Word) {
        // SAFETY: both are pointers into the words.
        let i = unsafe { word.offset_from_unsigned(self.words) };
        let word = *self.word(i);
        self.rise(i, class(word));
    }

    /// Takes a free frame out of use.
    #[cfg(feature = "page-poison")]
    pub fn withdraw(&mut self, pfn: u32) {
        let (word, first) = self.word_of(pfn);
        // SAFETY: a word of this buddy, for the frame is one of its.
        unsafe {
            *word &= !(1 << (pfn - first));
            if !self.is_open(word) {
                self.retell(word);
            }
        }
    }

    /// True when the frame, which lies in the region, is free.
    pub fn is_free(&mut self, pfn: u32) -> bool {
        let at = (pfn - self.base) as usize;
        *self.word(at >> B) >> (at & WORD_MASK) & 1 == 1
    }

    /// Word `i` has class `new` now, which is not below the one it had.
    #[inline(always)]
    fn rise(&mut self, i: usize, new: usize) {
        if let Some(now) = self.group(i >> B).rise(1 << (i & WORD_MASK), new) {
            self.group_rose(i >> B, now);
        }
    }

    /// Word `i` has class `new` now, which is not above the one it had.
    #[inline(always)]
    fn fall(&mut self, i: usize, new: usize) {
        if let Some(now) = self.group(i >> B).fall(1 << (i & WORD_MASK), new) {
            self.group_fell(i >> B, now);
        }
    }

    /// A group rose to class `now`, if it was below.
    #[inline(never)]
    fn group_rose(&mut self, g: usize, now: usize) {
        let r = g >> B;
        if let Some(now) = self.root(r).rise(1 << (g & WORD_MASK), now)
            && self.root_count != 1
        {
            self.retop(r, now);
        }
    }

    /// A group fell to class `now`, if it was above.
    #[inline(never)]
    fn group_fell(&mut self, g: usize, now: usize) {
        let r = g >> B;
        if let Some(now) = self.root(r).fall(1 << (g & WORD_MASK), now)
            && self.root_count != 1
        {
            self.retop(r, now);
        }
    }

    /// A root is of class `now`.
    #[inline(never)]
    fn retop(&mut self, r: usize, now: usize) {
        let bit = 1 << r;
        let mut k = now.min(self.top.len());
        while k != 0 && self.top[k - 1] & bit == 0 {
            k -= 1;
            self.top[k] |= bit;
        }
        let mut k = now;
        while k < self.top.len() && self.top[k] & bit != 0 {
            self.top[k] &= !bit;
            k += 1;
        }
    }

    /// Takes `count` words from `i`, which are wholly free.
    #[inline(always)]
    fn take_whole(&mut self, mut i: usize, count: usize) {
        let end = i + count;
        while i < end {
            let n = (end - i).min(Word::BITS as usize - (i & WORD_MASK));
            self.store(i, n, 0);
            let now = self.group(i >> B).take(run(i & WORD_MASK, n));
            self.group_fell(i >> B, now);
            i += n;
        }
    }

    /// Gives `count` words from `i` back, which are wholly taken; the open one is none of them.
    #[inline(always)]
    fn give_whole(&mut self, mut i: usize, count: usize) {
        let end = i + count;
        while i < end {
            let n = (end - i).min(Word::BITS as usize - (i & WORD_MASK));
            self.store(i, n, Word::MAX);
            let now = self.group(i >> B).free(run(i & WORD_MASK, n));
            self.group_rose(i >> B, now);
            i += n;
        }
    }

    /// Stores `n` equal words from `i`.
    #[inline(always)]
    fn store(&mut self, i: usize, n: usize, word: Word) {
        debug_assert!(i + n <= self.word_count);
        // A compiler that knows the word calls the library's function for it, which takes longer for so few.
        let word = core::hint::black_box(word);
        let mut at = self.words.wrapping_add(i);
        let end = at.wrapping_add(n);
        // Most blocks are a power of two. (An array of words would be copied by the library where room counts.)
        let fours = at.wrapping_add(n & !3);
        while at != fours {
            // SAFETY: words of the region, by the caller.
            unsafe {
                *at = word;
                *at.add(1) = word;
                *at.add(2) = word;
                *at.add(3) = word;
            }
            at = at.wrapping_add(4);
        }
        while at != end {
            // SAFETY: as above.
            unsafe { *at = word };
            at = at.wrapping_add(1);
        }
    }
}

/// The class of a node: by its whole children if it has one, else by the highest order any child has.
fn node_class<const N: usize>(has: &[Word; N]) -> usize {
    if has[N - 1] != 0 {
        return N - 1 + class(has[N - 1]);
    }
    has.iter().take_while(|set| **set != 0).count()
}
