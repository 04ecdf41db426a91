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
//! Single frames come from one *open* word whose changes the tree does not see until the word is used up. A larger request
//! for which the tree has nothing looks at that word itself. When the open word is used up, a frame that is given back
//! below all others opens its word in place, so that a page freed and taken again costs the same in any amount of memory.
//! Cost: a few instructions for a single frame, O(levels) for a block of any length, and one word at a time for lengths
//! above a word (at most `2^13 / Word::BITS`).

// With that feature regions have the other one.
#![cfg_attr(feature = "small", allow(dead_code))]

mod check;
mod give;
mod node;
mod row;
#[cfg(any(test, feature = "small"))]
mod small;
mod take;
#[cfg(test)]
mod tests;
mod tree;
mod watch;

#[cfg(not(feature = "small"))]
pub use self::Buddy as RegionBuddy;
#[cfg(feature = "small")]
pub use small::Buddy as RegionBuddy;

use crate::bits::{USED_UP, WORD_MASK, WORD_SHIFT, Word, class, pairs};
use node::Node;

/// Orders a word's own bits can tell.
const B: usize = WORD_SHIFT;
/// The largest order any build can have.
pub const MAX_ORDER_LIMIT: usize = 13;
const NO_WORD: usize = usize::MAX;

/// Up to `Word::BITS` words.
type Group = Node<7, B>;
/// Up to `Word::BITS` groups.
type Root = Node<15, { 2 * B }>;

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
    /// The open word, but none while the buddy is watched.
    quiet_word: *mut Word,
    /// No word below this one has a free frame in sight of the tree.
    floor: *mut Word,
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
                quiet_word: (&raw const USED_UP).cast_mut(),
                floor: words,
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

    /// Makes word `i` the open one, or none (`NO_WORD`).
    #[inline(always)]
    fn set_open(&mut self, i: usize) {
        if i == NO_WORD {
            self.set_open_word((&raw const USED_UP).cast_mut());
        } else {
            self.set_open_word(self.words.wrapping_add(i));
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

    /// One bit was set in a word, which is not quiet: true when the tree need not be [told](Self::retell).
    ///
    /// That is so when the word had others and still has single ones only. And when it had none, the open one is used up,
    /// and no word from this one on down has another: then it would be the next to be opened, for which the tree takes
    /// it already; so it becomes the open one. Therefore a page that is given back and taken again costs the same
    /// wherever it lies, and however many levels there are.
    ///
    /// # Safety
    /// The word is one of this buddy's, as [`word_of`](Self::word_of) gives them.
    #[inline(always)]
    pub unsafe fn settle(&mut self, word: *mut Word) -> bool {
        // SAFETY: by the caller.
        let now = unsafe { *word };
        // It has a bit, so one less is a number.
        if now & now.wrapping_sub(1) != 0 {
            return pairs(now) == 0;
        }
        // SAFETY: as in `take_open`.
        if unsafe { *self.open_word } != 0 || word >= self.floor {
            return false;
        }
        self.set_open_word(word);
        // SAFETY: both are pointers into the words.
        let i = unsafe { word.offset_from_unsigned(self.words) };
        self.open_first = self.base + (i << B) as u32;
        true
    }

    /// One bit was set in a word, which is not the open one, and is not [settled](Self::settle): tells the tree, unless a
    /// closer look settles it.
    ///
    /// # Safety
    /// As of [`settle`](Self::settle).
    #[inline(always)]
    pub unsafe fn retell(&mut self, word: *mut Word) {
        // SAFETY: both are pointers into the words.
        let i = unsafe { word.offset_from_unsigned(self.words) };
        let now = *self.word(i);
        if pairs(now) != 0 {
            self.rise(i, class(now));
            return;
        }
        // SAFETY: as in `take_open`.
        if unsafe { *self.open_word } == 0 {
            let lowest = self.lowest(0).unwrap_or(self.word_count);
            self.floor = self.words.wrapping_add(lowest);
            if i < lowest {
                self.set_open(i);
                return;
            }
        }
        self.rise(i, 1);
    }

    /// Takes a free frame out of use.
    #[cfg(any(test, feature = "page-poison"))]
    pub fn withdraw(&mut self, pfn: u32) {
        let (word, first) = self.word_of(pfn);
        let i = (first - self.base) as usize >> B;
        *self.word(i) &= !(1 << (pfn - first));
        if !self.is_open(word) {
            let new = class(*self.word(i));
            let change = self.fall(i, new);
            self.group_fell(i >> B, change);
        }
    }

    /// True when the frame, which lies in the region, is free.
    pub fn is_free(&mut self, pfn: u32) -> bool {
        let at = (pfn - self.base) as usize;
        *self.word(at >> B) >> (at & WORD_MASK) & 1 == 1
    }

    /// Stores `n` equal words from `i`.
    #[inline(always)]
    fn store(&mut self, i: usize, n: usize, word: Word) {
        debug_assert!(i + n <= self.word_count);
        let mut at = self.words.wrapping_add(i);
        // Most blocks are a power of two. (An array of words would be copied by the library where room counts, and plain
        // stores of equal words made a call of its function for it, which takes longer for so few.)
        macro_rules! together {
            ($($n:literal)*) => {$(
                if n & $n != 0 {
                    for k in 0..$n {
                        // SAFETY: a word of the region, by the caller.
                        unsafe { at.add(k).write_volatile(word) };
                    }
                    at = at.wrapping_add($n);
                }
            )*};
        }
        if n & 7 != 0 {
            together!(4 2 1);
        }
        together!(8 16);
        if n & !31 != 0 {
            // SAFETY: words of the region, by the caller.
            unsafe { store_rest(at, n & !31, word) };
        }
    }
}

/// [`store`](Buddy::store) of what is many words.
///
/// # Safety
/// They are the buddy's.
#[inline(never)]
unsafe fn store_rest(mut at: *mut Word, n: usize, word: Word) {
    let end = at.wrapping_add(n);
    while at != end {
        for k in 0..32 {
            // SAFETY: by the caller.
            unsafe { at.add(k).write_volatile(word) };
        }
        at = at.wrapping_add(32);
    }
}
