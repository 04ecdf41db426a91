//! The buddy against a list of booleans: every state of small regions, and long random lives of larger ones.
//!
//! Under Miri the regions are small: there the model, not the buddy, would take the time.

use super::{Buddy, NO_WORD};
use crate::bits::{Word, order_for};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashSet};
use std::vec::Vec;

const BITS: usize = Word::BITS as usize;

/// A buddy with its storage.
struct Owned {
    buddy: Buddy,
    storage: Vec<u64>,
    start: u32,
    len: u32,
}

impl Owned {
    fn new(start: u32, len: u32, max_order: usize) -> Owned {
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
        copy
    }
}

/// From which end of memory a block is taken.
#[derive(Clone, Copy)]
enum End {
    Low,
    High,
}

/// What the buddy promises, in the plainest words.
#[derive(Clone)]
struct Model {
    base: usize,
    max_order: usize,
    /// By distance from `base`.
    free: Vec<bool>,
    /// The word single frames come from.
    open: Option<usize>,
    /// Blocks in the hands of callers: first frame, frames.
    live: BTreeSet<(u32, usize)>,
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

    fn free_count(&self) -> usize {
        self.free.iter().filter(|free| **free).count()
    }

    /// Free blocks by order, each frame in the largest it belongs to.
    fn blocks(&self) -> [usize; super::MAX_ORDER_LIMIT + 1] {
        let mut counts = [0; super::MAX_ORDER_LIMIT + 1];
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
struct Pair {
    buddy: Owned,
    model: Model,
}

impl Pair {
    fn new(start: u32, len: u32, max_order: usize) -> Pair {
        Pair { buddy: Owned::new(start, len, max_order), model: Model::new(start, len, max_order) }
    }

    /// All of the region free.
    fn all_free(start: u32, len: u32, max_order: usize) -> Pair {
        let mut pair = Pair::new(start, len, max_order);
        pair.give(start, len as usize);
        pair
    }

    fn give(&mut self, pfn: u32, pages: usize) {
        self.model.live.remove(&(pfn, pages));
        self.model.give(pfn, pages);
        self.buddy.buddy.give(pfn, pages);
    }

    /// As a block of pages is aligned.
    fn take(&mut self, pages: usize) -> Option<u32> {
        self.take_aligned(pages, order_for(pages), End::Low)
    }

    /// As an area without an MMU.
    fn take_area(&mut self, pages: usize) -> Option<u32> {
        self.take_aligned(pages, pages.trailing_zeros() as usize, End::High)
    }

    /// As an object is aligned, and the pages of a slab.
    fn take_unaligned(&mut self, pages: usize) -> Option<u32> {
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

    fn check(&mut self) {
        assert_eq!(self.buddy.buddy.check(), Ok(self.model.free_count()));
        assert_eq!(self.buddy.buddy.open(), self.model.open.unwrap_or(NO_WORD));
        let mut counts = [0; super::MAX_ORDER_LIMIT + 1];
        self.buddy.buddy.count_blocks(&mut counts);
        assert_eq!(counts, self.model.blocks());
    }

    fn check_frames(&mut self) {
        for i in 0..self.buddy.len {
            let pfn = self.buddy.start + i;
            assert_eq!(self.buddy.buddy.is_free(pfn), self.model.free[pfn as usize - self.model.base], "frame {pfn}");
        }
    }

    /// Gives everything back; then each order whose aligned block fits the region can be had again.
    fn all_comes_back(&mut self, fresh: &Model) {
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

/// Goes to every state that any sequence of takes and gives reaches. Returns how many there are.
fn explore(start: u32, len: u32, max_order: usize, most: usize) -> usize {
    let first = Pair::all_free(start, len, max_order);
    // The bitmap follows from the live blocks.
    let key = |pair: &Pair| (pair.model.live.iter().copied().collect::<Vec<_>>(), pair.model.open);
    let mut seen = HashSet::from([key(&first)]);
    let mut border = std::vec![first];
    while let Some(pair) = border.pop() {
        let mut arrive = |mut next: Pair| {
            if seen.insert(key(&next)) {
                next.check();
                next.check_frames();
                border.push(next);
            }
        };
        for pages in 1..=most {
            let mut next = pair.clone();
            next.take(pages);
            arrive(next);
            let mut next = pair.clone();
            next.take_unaligned(pages);
            arrive(next);
            let mut next = pair.clone();
            next.take_area(pages);
            arrive(next);
        }
        for &(pfn, pages) in &pair.model.live {
            let mut next = pair.clone();
            next.give(pfn, pages);
            arrive(next);
        }
    }
    seen.len()
}

#[test]
fn every_state_of_a_small_region_is_sound() {
    // Region, largest order, largest request. The second begins unaligned, the third straddles two words.
    let regions: &[(u32, u32, usize, usize)] = if cfg!(miri) {
        &[(BITS as u32 - 2, 4, 3, 3)]
    } else {
        &[(16, 9, 3, 8), (1, 8, 5, 7), (BITS as u32 - 4, 8, 5, 4), (0, 8, 13, 9)]
    };
    for &(start, len, max_order, most) in regions {
        let states = explore(start, len, max_order, most);
        std::println!("{len} frames from {start}, requests of 1 to {most}: {states} states");
        assert!(states > 30);
    }
}

/// Takes minutes: `cargo test --release -p mm-core every_state_of_13 -- --ignored --nocapture`.
#[test]
#[ignore = "long"]
fn every_state_of_13_frames_is_sound() {
    std::println!("{} states", explore(BITS as u32 - 5, 13, 4, 13));
}

/// A generator that is the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

fn random_life(pair: &mut Pair, dice: &mut Dice, steps: usize, most: usize, check_each: usize) {
    let fresh = pair.model.clone();
    for step in 0..steps {
        let live = pair.model.live.len();
        // Full and empty in turn, so that exhaustion and the last frees are met as well.
        let filling = (step / 24).is_multiple_of(2);
        if live == 0 || dice.below(8) < if filling { 6 } else { 2 } {
            let pages = if dice.below(3) == 0 { 1 } else { 1 + dice.below(most) };
            match dice.below(3) {
                0 => pair.take(pages),
                1 => pair.take_unaligned(pages),
                _ => pair.take_area(pages),
            };
        } else if let Some(&(pfn, pages)) = pair.model.live.iter().nth(dice.below(live)) {
            pair.give(pfn, pages);
        }
        if step % check_each == 0 {
            pair.check();
        }
    }
    pair.check_frames();
    pair.all_comes_back(&fresh);
}

#[test]
fn regions_of_every_length_serve_and_get_all_back() {
    let lengths: Vec<u32> = if cfg!(miri) { std::vec![1, 66] } else { (1..=200).collect() };
    for len in lengths {
        for &max_order in if cfg!(miri) { &[5][..] } else { &[5, 10, 13] } {
            let starts: &[u32] = if cfg!(miri) { &[1, 31] } else { &[0, 1, 31, 64, 1000, 8190, 100_001] };
            let start = starts[(len as usize + max_order) % starts.len()];
            let mut dice = Dice(u64::from(len) << 8 | max_order as u64);
            let mut pair = Pair::all_free(start, len, max_order);
            pair.check();
            let most = (len as usize + 2).min(1 << max_order);
            random_life(&mut pair, &mut dice, if cfg!(miri) { 8 } else { 100 }, most, 1);
        }
    }
}

#[test]
fn regions_of_several_words_groups_and_roots_agree_with_the_model() {
    // Around a word, a group and a root of either word size.
    let lengths: &[u32] = if cfg!(miri) { &[1025] } else { &[129, 1025, 4095, 4097, 8193, 33_000, 270_000] };
    for &len in lengths {
        for &max_order in if cfg!(miri) { &[10][..] } else { &[5, 10, 13] } {
            let mut dice = Dice(u64::from(len) * 3 + max_order as u64);
            let mut pair = Pair::all_free(7 * len % 12_345, len, max_order);
            let most = (len as usize / 3).min(1 << max_order);
            let steps = if cfg!(miri) { 4 } else { (400_000 / len as usize).clamp(24, 300) };
            random_life(&mut pair, &mut dice, steps, most, if len > 9000 { 16 } else { 4 });
        }
    }
}

#[test]
fn the_largest_region_has_its_last_block() {
    if cfg!(miri) {
        return;
    }
    // No model: a list of so many booleans would be slow.
    let len = Buddy::MAX_FRAMES as u32;
    for start in [0, 8191] {
        let mut owned = Owned::new(start, len, 13);
        owned.buddy.give(start, len as usize);
        let mut taken = Vec::new();
        while let Some(pfn) = owned.buddy.take(1 << 13, 13, |_| ()) {
            assert!(pfn % (1 << 13) == 0 && pfn >= start && pfn + (1 << 13) <= start + len);
            assert!(taken.last().is_none_or(|before| *before < pfn));
            taken.push(pfn);
        }
        assert_eq!(taken.len() as u32, (start + len) / (1 << 13) - start.div_ceil(1 << 13));
        for pfn in taken {
            owned.buddy.give(pfn, 1 << 13);
        }
        assert_eq!(owned.buddy.check(), Ok(len as usize));
    }
}

#[test]
fn runs_of_three_frames_leave_no_holes() {
    let mut pair = Pair::all_free(0, 8 * BITS as u32, 10);
    let mut taken = 0;
    while let Some(pfn) = pair.take_unaligned(3) {
        assert!(pair.model.live.range(..(pfn, 0)).next_back().is_none_or(|&(at, pages)| at + pages as u32 <= pfn));
        taken += 1;
    }
    // At most one frame short of a block that would do is left in each word.
    assert!(taken * 3 >= 8 * (BITS - 3), "{taken} runs");
    pair.check();
    let fresh = Pair::all_free(0, 8 * BITS as u32, 10).model;
    pair.all_comes_back(&fresh);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take(usize),
    TakeUnaligned(usize),
    Give(prop::sample::Index),
}

/// Sizes near every constant: one, a word of 32 or 64, a group's word, the largest orders.
fn pages() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => Just(1usize),
        3 => 2usize..=9,
        2 => 30usize..=34,
        2 => 62usize..=66,
        1 => 127usize..=130,
        1 => 1000usize..=1026,
        1 => 2047usize..=2049,
        1 => 8190usize..=8193,
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![2 => pages().prop_map(Step::Take), 1 => pages().prop_map(Step::TakeUnaligned), 2 => any::<prop::sample::Index>().prop_map(Step::Give)];
    prop::collection::vec(step, 1..if cfg!(miri) { 8 } else { 200 })
}

/// A region with holes that are never free: start, length, and cuts that are in turn free and not.
fn region() -> impl Strategy<Value = (u32, u32, Vec<u32>)> {
    let len = prop_oneof![3 => 1u32..=200, 2 => 200u32..2200, 1 => 4000u32..10_000];
    let len = if cfg!(miri) { (1u32..=100).boxed() } else { len.boxed() };
    (0u32..20_000, len).prop_flat_map(|(start, len)| {
        (Just(start), Just(len), prop::collection::btree_set(0..=len, 0..6).prop_map(|set| set.into_iter().collect()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 128 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_sequence_on_any_region_agrees_with_the_model(
        (start, len, cuts) in region(),
        max_order in prop::sample::select(if cfg!(miri) { std::vec![5usize] } else { std::vec![5, 10, 13] }),
        steps in steps(),
    ) {
        let mut pair = Pair::new(start, len, max_order);
        let mut from = 0;
        for (i, cut) in cuts.into_iter().chain([len]).enumerate() {
            if i % 2 == 0 && cut > from {
                pair.give(start + from, (cut - from) as usize);
            }
            from = cut;
        }
        let fresh = pair.model.clone();
        pair.check();
        for (i, step) in steps.iter().enumerate() {
            match *step {
                Step::Take(pages) => drop(pair.take(pages)),
                Step::TakeUnaligned(pages) => drop(pair.take_unaligned(pages)),
                Step::Give(index) => {
                    let live: Vec<_> = pair.model.live.iter().copied().collect();
                    if !live.is_empty() {
                        let (pfn, pages) = *index.get(&live);
                        pair.give(pfn, pages);
                    }
                }
            }
            if len < 3000 || i % 8 == 0 {
                pair.check();
            }
        }
        pair.check_frames();
        pair.all_comes_back(&fresh);
    }
}

#[test]
fn a_frame_that_is_withdrawn_is_in_no_block_any_more() {
    let len = if cfg!(miri) { 512 } else { 4 << 12 };
    for max_order in [3, 10, 13] {
        for at in [0, 1, BITS - 1, BITS, 200, len - 1] {
            for open in [false, true] {
                let mut pair = Pair::all_free(0, len as u32, max_order);
                if open {
                    pair.take(1);
                }
                if open && at == 0 {
                    continue;
                }
                pair.buddy.buddy.withdraw(at as u32);
                pair.model.free[at] = false;
                pair.check();
                for pages in [1 << max_order, 64, 3, 1] {
                    let block = pair.take(pages);
                    assert!(block.is_none_or(|first| !(first as usize..first as usize + pages).contains(&at)));
                    pair.check();
                }
            }
        }
    }
}
