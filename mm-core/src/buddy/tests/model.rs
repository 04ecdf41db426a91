//! What the buddy promises, and the buddy beside it.

use super::super::{Buddy, MAX_ORDER_LIMIT, NO_WORD};
use super::BITS;
use crate::bits::order_for;
use std::collections::BTreeSet;
use std::vec::Vec;

/// A buddy with its storage.
pub struct Owned {
    pub buddy: Buddy,
    storage: Vec<u64>,
    start: u32,
    len: u32,
}

impl Owned {
    pub fn new(start: u32, len: u32, max_order: usize) -> Owned {
        Owned::with(start, len, max_order, std::vec![0; Buddy::storage_bytes(start, len, max_order) / 8])
    }

    fn with(start: u32, len: u32, max_order: usize, mut storage: Vec<u64>) -> Owned {
        // SAFETY: the storage is zeroed, or a copy of another buddy's that is made whole by `clone`; it is 8-aligned,
        // long enough, and reached through the buddy only.
        let buddy = unsafe { Buddy::new(start, len, max_order, storage.as_mut_ptr().cast()) };
        Owned { buddy, storage, start, len }
    }
}

impl Clone for Owned {
    fn clone(&self) -> Self {
        let mut copy = Owned::with(self.start, self.len, self.buddy.max_order, Vec::clone(&self.storage));
        copy.buddy.top = self.buddy.top;
        copy.buddy.set_open(self.buddy.open());
        // SAFETY: between the beginning and the end of the words.
        let floor = unsafe { self.buddy.floor.offset_from_unsigned(self.buddy.words) };
        copy.buddy.floor = copy.buddy.words.wrapping_add(floor);
        copy
    }
}

/// From which end of memory a block is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Low,
    High,
}

/// What the buddy promises, in the plainest words.
#[derive(Clone)]
pub struct Model {
    base: usize,
    max_order: usize,
    /// By distance from `base`.
    pub free: Vec<bool>,
    /// The word single frames come from.
    pub open: Option<usize>,
    /// Blocks in the hands of callers: first frame, frames.
    pub live: BTreeSet<(u32, usize)>,
}

impl Model {
    fn new(start: u32, len: u32, max_order: usize) -> Model {
        let base = start as usize & !((1 << max_order) - 1);
        let frames = (start as usize + len as usize - base).next_multiple_of(BITS);
        Model { base, max_order, free: std::vec![false; frames], open: None, live: BTreeSet::new() }
    }

    /// The lowest aligned run of `1 << order` free frames, none of them in the word `hidden`.
    fn lowest_run(&self, order: usize, hidden: Option<usize>) -> Option<usize> {
        let size = 1 << order;
        (0..self.free.len() / size * size)
            .step_by(size)
            .find(|&at| (at..at + size).all(|i| self.free[i] && Some(i / BITS) != hidden))
    }

    /// As [`lowest_run`](Self::lowest_run), the highest.
    fn highest_run(&self, order: usize, hidden: Option<usize>) -> Option<usize> {
        let size = 1 << order;
        (0..self.free.len() / size)
            .rev()
            .map(|block| block * size)
            .find(|&at| (at..at + size).all(|i| self.free[i] && Some(i / BITS) != hidden))
    }

    /// What is taken from the high end of the block at `at`: the highest aligned run in its word, or the end of a block that
    /// reaches over words.
    fn run_at_end(&self, at: usize, pages: usize, align: usize) -> usize {
        let block = 1 << order_for(pages);
        if block >= BITS {
            return at + ((block - pages) >> align << align);
        }
        let (first, end) = (at / BITS * BITS, (at / BITS + 1) * BITS - pages);
        (first..=end).rev().find(|&at| at % (1 << align) == 0 && (at..at + pages).all(|i| self.free[i])).unwrap()
    }

    /// The lowest run of `pages` free frames, aligned to `1 << align`, in the word that holds frame `at`, or what begins
    /// at `at` when the block reaches over words.
    fn run_in_word(&self, at: usize, pages: usize, align: usize) -> usize {
        if 1 << order_for(pages) >= BITS {
            return at;
        }
        let (first, end) = (at / BITS * BITS, (at / BITS + 1) * BITS - pages);
        (first..=end).step_by(1 << align).find(|&at| (at..at + pages).all(|i| self.free[i])).unwrap()
    }

    fn take(&mut self, pages: usize, align: usize, end: End) -> Option<u32> {
        let at = if pages == 1 {
            let in_word = |free: &[bool], word: usize| (word * BITS..(word + 1) * BITS).find(|&i| free[i]);
            match self.open.and_then(|word| in_word(&self.free, word)) {
                Some(at) => at,
                None => {
                    self.open = self.free.iter().position(|free| *free).map(|at| at / BITS);
                    in_word(&self.free, self.open?)?
                }
            }
        } else {
            let order = order_for(pages);
            if order > self.max_order {
                return None;
            }
            let find = |model: &Model, hidden| match end {
                End::Low => model.lowest_run(order, hidden),
                End::High => model.highest_run(order, hidden),
            };
            let block = match find(self, self.open) {
                Some(at) => at,
                // What the open word has a part in is taken without closing it, but for blocks that no group holds.
                None if end == End::Low => {
                    let whole = |word: usize| self.free[word * BITS..(word + 1) * BITS].iter().all(|free| *free);
                    if 1 << order > BITS * BITS && self.open.is_some_and(whole) {
                        self.open = None;
                    }
                    find(self, None)?
                }
                None => {
                    self.open = None;
                    find(self, None)?
                }
            };
            match end {
                End::Low => self.run_in_word(block, pages, align),
                End::High => self.run_at_end(block, pages, align),
            }
        };
        for i in at..at + pages {
            assert!(core::mem::replace(&mut self.free[i], false));
        }
        let pfn = (self.base + at) as u32;
        self.live.insert((pfn, pages));
        Some(pfn)
    }

    fn give(&mut self, pfn: u32, pages: usize) {
        let at = pfn as usize - self.base;
        for i in at..at + pages {
            assert!(!core::mem::replace(&mut self.free[i], true));
        }
        // A block closes the open word when it frees all of it.
        if let Some(open) = self.open
            && at <= open * BITS
            && (open + 1) * BITS <= at + pages
        {
            self.open = None;
        }
    }

    /// A single page that is given back opens its word if that would be the next to be opened, for nothing else.
    fn give_page(&mut self, pfn: u32) {
        self.give(pfn, 1);
        let at = pfn as usize - self.base;
        let free_in = |word: usize| self.free[word * BITS..(word + 1) * BITS].iter().filter(|free| **free).count();
        let used_up = self.open.is_none_or(|word| free_in(word) == 0);
        let lowest = self.free.iter().position(|free| *free).map(|at| at / BITS);
        if used_up && lowest == Some(at / BITS) && free_in(at / BITS) == 1 {
            self.open = lowest;
        }
    }

    fn free_count(&self) -> usize {
        self.free.iter().filter(|free| **free).count()
    }

    /// Free blocks by order, each frame in the largest it belongs to.
    fn blocks(&self) -> [usize; MAX_ORDER_LIMIT + 1] {
        let mut counts = [0; MAX_ORDER_LIMIT + 1];
        let mut left = self.free.clone();
        for order in (0..=self.max_order).rev() {
            for chunk in left.chunks_exact_mut(1 << order) {
                if chunk.iter().all(|free| *free) {
                    counts[order] += 1;
                    chunk.fill(false);
                }
            }
        }
        counts
    }
}

/// A buddy and its model, which must agree after each step.
#[derive(Clone)]
pub struct Pair {
    pub buddy: Owned,
    pub model: Model,
}

impl Pair {
    pub fn new(start: u32, len: u32, max_order: usize) -> Pair {
        Pair { buddy: Owned::new(start, len, max_order), model: Model::new(start, len, max_order) }
    }

    /// All of the region free.
    pub fn all_free(start: u32, len: u32, max_order: usize) -> Pair {
        let mut pair = Pair::new(start, len, max_order);
        pair.give(start, len as usize);
        pair
    }

    pub fn give(&mut self, pfn: u32, pages: usize) {
        self.model.live.remove(&(pfn, pages));
        self.model.give(pfn, pages);
        self.buddy.buddy.give(pfn, pages);
    }

    /// Gives a page back as `free_page` does, which has set its bit already.
    pub fn give_page(&mut self, pfn: u32) {
        self.model.live.remove(&(pfn, 1));
        self.model.give_page(pfn);
        let buddy = &mut self.buddy.buddy;
        let (word, first) = buddy.word_of(pfn);
        // SAFETY: a word of the buddy's, which nobody else uses.
        unsafe { *word |= 1 << (pfn - first) };
        // SAFETY: as above.
        unsafe {
            // Who serves waiters does not ask whether the word is settled.
            let settled = |buddy: &mut Buddy| !(buddy.is_watched() && pfn.is_multiple_of(2)) && buddy.settle(word);
            if !buddy.is_quiet(word) && !settled(buddy) && !buddy.is_open(word) {
                buddy.retell(word);
            }
        }
    }

    /// As a block of pages is aligned.
    pub fn take(&mut self, pages: usize) -> Option<u32> {
        self.take_aligned(pages, order_for(pages), End::Low)
    }

    /// As an area without an MMU.
    pub fn take_area(&mut self, pages: usize) -> Option<u32> {
        self.take_aligned(pages, pages.trailing_zeros() as usize, End::High)
    }

    /// As an object is aligned, and the pages of a slab.
    pub fn take_unaligned(&mut self, pages: usize) -> Option<u32> {
        self.take_aligned(pages, pages.trailing_zeros() as usize, End::Low)
    }

    fn take_aligned(&mut self, pages: usize, align: usize, end: End) -> Option<u32> {
        let order = order_for(pages);
        let possible = order <= self.model.max_order && self.model.lowest_run(order, None).is_some();
        let want = self.model.take(pages, align, end);
        let got = match end {
            End::High if pages > 1 => self.buddy.buddy.take_high(pages, align),
            _ => self.buddy.buddy.take(pages, align, |_| ()),
        };
        assert_eq!(got, want, "take of {pages}");
        assert_eq!(got.is_some(), possible, "a request fails exactly when no aligned block is free");
        if let Some(pfn) = got {
            let (start, end) = (self.buddy.start as usize, self.buddy.start as usize + self.buddy.len as usize);
            assert!(start <= pfn as usize && pfn as usize + pages <= end, "{pfn} is outside");
            assert_eq!(pfn as usize % (1 << align), 0, "{pfn} is not aligned");
        }
        got
    }

    pub fn check(&mut self) {
        assert_eq!(self.buddy.buddy.check(), Ok(self.model.free_count()));
        assert_eq!(self.buddy.buddy.open(), self.model.open.unwrap_or(NO_WORD));
        let mut counts = [0; MAX_ORDER_LIMIT + 1];
        self.buddy.buddy.count_blocks(&mut counts);
        assert_eq!(counts, self.model.blocks());
    }

    pub fn check_frames(&mut self) {
        for i in 0..self.buddy.len {
            let pfn = self.buddy.start + i;
            assert_eq!(self.buddy.buddy.is_free(pfn), self.model.free[pfn as usize - self.model.base], "frame {pfn}");
        }
    }

    /// Gives everything back; then each order whose aligned block fits the region can be had again.
    pub fn all_comes_back(&mut self, fresh: &Model) {
        while let Some((pfn, pages)) = self.model.live.pop_first() {
            self.give(pfn, pages);
            if self.model.live.len().is_multiple_of(7) {
                self.check();
            }
        }
        assert_eq!(self.model.free, fresh.free);
        for order in (0..=self.model.max_order).rev() {
            let taken = self.take(1 << order);
            assert_eq!(taken.is_some(), fresh.lowest_run(order, None).is_some());
            if let Some(pfn) = taken {
                self.give(pfn, 1 << order);
            }
            self.check();
        }
    }
}
