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

mod check;
#[cfg(test)]
mod tests;

use crate::bits::{
    USED_UP, WORD_MASK, WORD_SHIFT, Word, aligned, class, fold, highest, lowest, order_for, rarely, run, runs,
};

/// Orders a word's own bits can tell.
const B: usize = WORD_SHIFT;
/// The largest order any build can have.
pub const MAX_ORDER_LIMIT: usize = 13;
const NO_WORD: usize = usize::MAX;

/// From which end of memory a block is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The lowest that fits.
    Low,
    /// The highest that fits.
    High,
}

/// Up to `Word::BITS` words.
#[repr(C)]
pub struct Group {
    /// `has[k]`: words with a free block of order `k`; `has[B]`: words wholly free.
    has: [Word; B + 1],
    /// 0 for none, else one more than the largest free order.
    class: usize,
}

/// Up to `Word::BITS` groups.
#[repr(C)]
pub struct Root {
    /// `has[k]`: groups with a free block of order `k`; `has[2 * B]`: groups wholly free.
    has: [Word; 2 * B + 1],
    class: usize,
}

/// The free frames of one region.
pub struct Buddy {
    /// Frame number of bit 0, aligned to the largest block.
    base: u32,
    words: *mut Word,
    classes: *mut u8,
    groups: *mut Group,
    roots: *mut Root,
    word_count: usize,
    /// With one root there is no top: a region of up to a GiB (64-bit, 4 KiB pages) is spared a level.
    root_count: usize,
    /// The word single frames come from, hidden from the tree; `NO_WORD` for none.
    open: usize,
    /// That word, or one without a frame, and the frame of its bit 0.
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

    /// Bytes of storage for a region; the storage is aligned to 8 bytes.
    pub const fn storage_bytes(start: u32, len: u32, max_order: usize) -> usize {
        let l = Layout::of(start, len, max_order);
        let bytes = l.roots * size_of::<Root>() + l.groups * size_of::<Group>() + l.words * (size_of::<Word>() + 1);
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
        // SAFETY: the four arrays fit the storage by `storage_bytes`, in descending order of alignment.
        unsafe {
            let roots = storage.cast::<Root>();
            let groups = roots.add(l.roots).cast::<Group>();
            let words = groups.add(l.groups).cast::<Word>();
            let classes = words.add(l.words).cast::<u8>();
            Buddy {
                base: l.base,
                words,
                classes,
                groups,
                roots,
                word_count: l.words,
                root_count: l.roots,
                open: NO_WORD,
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
    fn class_of(&mut self, i: usize) -> &mut u8 {
        debug_assert!(i < self.word_count);
        // SAFETY: as for `word`.
        unsafe { &mut *self.classes.add(i) }
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
    /// more the beginning of the lowest such block. From the high end, both are the highest, and it is the end of the block
    /// that is taken, so that what is left of it lies beside what is below. A single frame is always the lowest.
    #[inline(always)]
    pub fn take(&mut self, pages: usize, align: usize, end: End) -> Option<u32> {
        if pages == 1 {
            self.take_one()
        } else if matches!(end, End::Low) {
            self.take_block(pages, align)
        } else {
            self.take_high(pages, align)
        }
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
        if let Some(pfn) = self.take_open() {
            return Some(pfn);
        }
        self.open_next()?;
        self.take_open()
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
        let i = (first - self.base) as usize >> B;
        let word = *self.word(i) | row;
        if i == self.open {
            *self.word(i) = word;
        } else {
            self.put(i, word);
        }
    }

    /// Opens the lowest word that has a free frame.
    #[inline(never)]
    fn open_next(&mut self) -> Option<()> {
        // The old open word is used up, so the tree, which shows it as empty, is right about it.
        self.set_open(NO_WORD);
        let r = self.first(0)?;
        let g = (r << B) + lowest(self.root(r).has[0]);
        let i = (g << B) + lowest(self.group(g).has[0]);
        self.reclass(i, 0);
        self.set_open(i);
        Some(())
    }

    /// Shows the open word to the tree again.
    #[cold]
    fn close(&mut self) {
        let i = self.open;
        self.set_open(NO_WORD);
        let class = class(*self.word(i));
        self.reclass(i, class);
    }

    /// The order of the largest free block.
    pub fn largest(&mut self) -> Option<usize> {
        if self.open != NO_WORD {
            self.close();
        }
        (0..=self.max_order).rev().find(|&order| self.first(order).is_some())
    }

    /// The lowest root with a free block of `order`.
    #[inline(always)]
    fn first(&mut self, order: usize) -> Option<usize> {
        if self.root_count == 1 {
            let root = self.root(0);
            let groups = if order <= 2 * B { root.has[order] } else { fold(root.has[2 * B], order - 2 * B) };
            return (groups != 0).then_some(0);
        }
        let roots = self.top[order];
        if roots == 0 { None } else { Some(lowest(roots)) }
    }

    #[inline(never)]
    fn take_block(&mut self, pages: usize, align: usize) -> Option<u32> {
        let order = order_for(pages);
        if order > self.max_order {
            return None;
        }
        let Some(r) = self.first(order) else {
            if self.open == NO_WORD {
                return None;
            }
            // With the open word in view there may be one.
            self.close();
            return self.take_block(pages, align);
        };
        let root = self.root(r);
        let g = (r << B)
            + if order <= 2 * B { lowest(root.has[order]) } else { lowest(fold(root.has[2 * B], order - 2 * B)) };
        let i = if order > 2 * B {
            g << B
        } else {
            let group = self.group(g);
            (g << B) + if order <= B { lowest(group.has[order]) } else { lowest(fold(group.has[B], order - B)) }
        };
        if order < B {
            let word = *self.word(i);
            // The aligned block that brought us here is one of them.
            let bit = lowest(aligned(runs(word, pages), align));
            self.put(i, word & !run(bit, pages));
            return Some(self.base + ((i << B) + bit) as u32);
        }
        let (whole, part) = (pages >> B, pages & WORD_MASK);
        self.fill(i, whole, 0);
        if part != 0 {
            self.put(i + whole, Word::MAX << part);
        }
        Some(self.base + (i << B) as u32)
    }

    /// The highest root with a free block of `order`.
    fn last(&mut self, order: usize) -> Option<usize> {
        self.first(order).map(|root| if self.root_count == 1 { root } else { highest(self.top[order]) })
    }

    /// [`take_block`](Self::take_block) from the high end.
    #[inline(never)]
    fn take_high(&mut self, pages: usize, align: usize) -> Option<u32> {
        let order = order_for(pages);
        if order > self.max_order {
            return None;
        }
        let Some(r) = self.last(order) else {
            if self.open == NO_WORD {
                return None;
            }
            // With the open word in view there may be one.
            self.close();
            return self.take_high(pages, align);
        };
        let root = self.root(r);
        let g = (r << B)
            + if order <= 2 * B { highest(root.has[order]) } else { highest(fold(root.has[2 * B], order - 2 * B)) };
        let i = if order > 2 * B {
            g << B
        } else {
            let group = self.group(g);
            (g << B) + if order <= B { highest(group.has[order]) } else { highest(fold(group.has[B], order - B)) }
        };
        if order < B {
            let word = *self.word(i);
            let bit = highest(aligned(runs(word, pages), align));
            self.put(i, word & !run(bit, pages));
            return Some(self.base + ((i << B) + bit) as u32);
        }
        // Its end, down to where it is aligned.
        let first = ((1 << order) - pages) >> align << align;
        let at = (i << B) + first;
        self.take_words(at, pages);
        Some(self.base + at as u32)
    }

    /// Takes free frames that reach over several words, none of them open.
    fn take_words(&mut self, mut at: usize, mut pages: usize) {
        while pages != 0 {
            let (i, bit) = (at >> B, at & WORD_MASK);
            let n = if bit == 0 && pages >= Word::BITS as usize {
                let whole = pages >> B;
                self.fill(i, whole, 0);
                whole << B
            } else {
                let n = pages.min(Word::BITS as usize - bit);
                let word = *self.word(i) & !run(bit, n);
                self.put(i, word);
                n
            };
            at += n;
            pages -= n;
        }
    }

    /// Gives `pages` frames from `pfn` back. The caller checked that they are one block of this region, and taken.
    #[inline(always)]
    pub fn give(&mut self, pfn: u32, pages: usize) {
        let at = (pfn - self.base) as usize;
        let i = at >> B;
        if pages <= Word::BITS as usize - (at & WORD_MASK) {
            let word = *self.word(i) | run(at & WORD_MASK, pages);
            if i == self.open {
                *self.word(i) = word;
            } else {
                self.put(i, word);
            }
        } else {
            self.give_words(at, pages);
        }
    }

    /// Gives frames back that reach over several words, in any alignment.
    #[inline(never)]
    fn give_words(&mut self, mut at: usize, mut pages: usize) {
        while pages != 0 {
            let (i, bit) = (at >> B, at & WORD_MASK);
            let n = if bit == 0 && pages >= Word::BITS as usize {
                let whole = pages >> B;
                self.fill(i, whole, Word::MAX);
                whole << B
            } else {
                let n = pages.min(Word::BITS as usize - bit);
                let word = *self.word(i) | run(bit, n);
                if i == self.open {
                    *self.word(i) = word;
                } else {
                    self.put(i, word);
                }
                n
            };
            at += n;
            pages -= n;
        }
    }

    /// Makes word `i` the open one, or none (`NO_WORD`).
    fn set_open(&mut self, i: usize) {
        self.open = i;
        if i == NO_WORD {
            self.open_word = (&raw const USED_UP).cast_mut();
        } else {
            self.open_word = self.words.wrapping_add(i);
            self.open_first = self.base + (i << B) as u32;
        }
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
        self.put(i, word);
    }

    /// True when the frame, which lies in the region, is free.
    pub fn is_free(&mut self, pfn: u32) -> bool {
        let at = (pfn - self.base) as usize;
        *self.word(at >> B) >> (at & WORD_MASK) & 1 == 1
    }

    /// Stores a word that is not the open one, and tells the tree.
    #[inline]
    fn put(&mut self, i: usize, word: Word) {
        *self.word(i) = word;
        let class = class(word);
        if *self.class_of(i) as usize != class {
            self.reclass(i, class);
        }
    }

    /// The word's largest free block changed.
    #[inline(never)]
    fn reclass(&mut self, i: usize, new: usize) {
        let old = core::mem::replace(self.class_of(i), new as u8) as usize;
        let g = i >> B;
        let group = self.group(g);
        let class = shift(&mut group.has, group.class, 1 << (i & WORD_MASK), old, new);
        self.regroup(g, class);
    }

    /// Makes `count` whole words from `i` all free (`Word::MAX`) or all taken (0). The open word is none of them,
    /// or is closed by it.
    fn fill(&mut self, i: usize, count: usize, word: Word) {
        if self.open.wrapping_sub(i) < count {
            self.set_open(NO_WORD);
        }
        let (mut i, end) = (i, i + count);
        let class = if word == 0 { 0 } else { B + 1 };
        while i < end {
            let g = i >> B;
            let n = (end - i).min(Word::BITS as usize - (i & WORD_MASK));
            for j in i..i + n {
                *self.word(j) = word;
                *self.class_of(j) = class as u8;
            }
            let bits = run(i & WORD_MASK, n);
            let group = self.group(g);
            for has in &mut group.has {
                *has = if word == 0 { *has & !bits } else { *has | bits };
            }
            let class = node_class(&group.has);
            self.regroup(g, class);
            i += n;
        }
    }

    /// A group's largest free block is of class `new`: tells the root, and the top if the root's changed.
    #[inline(always)]
    fn regroup(&mut self, g: usize, new: usize) {
        let old = core::mem::replace(&mut self.group(g).class, new);
        if old == new {
            return;
        }
        let r = g >> B;
        let root = self.root(r);
        let was = root.class;
        let class = shift(&mut root.has, was, 1 << (g & WORD_MASK), old, new);
        root.class = class;
        if self.root_count != 1 {
            let (was, class) = (was.min(MAX_ORDER_LIMIT + 1), class.min(MAX_ORDER_LIMIT + 1));
            mark(&mut self.top, 1 << r, was, class);
        }
    }
}

/// Takes members out of the sets from `new` to `old`, or puts them into those from `old` to `new`.
#[inline(always)]
fn mark<const N: usize>(has: &mut [Word; N], bits: Word, old: usize, new: usize) {
    let mut k = new;
    while k < old && k < N {
        has[k] &= !bits;
        k += 1;
    }
    let mut k = old;
    while k < new && k < N {
        has[k] |= bits;
        k += 1;
    }
}

/// A child of a node of class `was` went from class `old` to `new`: moves it in the node's sets, and returns the node's
/// class. It is looked for only as far as it can have changed.
#[inline]
fn shift<const N: usize>(has: &mut [Word; N], was: usize, bit: Word, old: usize, new: usize) -> usize {
    mark(has, bit, old, new);
    if new >= N || old >= N {
        return node_class(has);
    }
    if new > old {
        return was.max(new);
    }
    if old < was {
        return was;
    }
    // No child is above the one that fell.
    let mut k = old;
    while k > 0 && has[k - 1] == 0 {
        k -= 1;
    }
    k
}

/// The class of a node: by its whole children if it has one, else by the highest order any child has.
#[inline]
fn node_class<const N: usize>(has: &[Word; N]) -> usize {
    if has[N - 1] != 0 {
        return N - 1 + class(has[N - 1]);
    }
    let mut k = N - 1;
    while k > 0 && has[k - 1] == 0 {
        k -= 1;
    }
    k
}
