//! Long random lives.

use super::model::Pair;
use proptest::prelude::*;
use std::vec::Vec;

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
            match pages {
                1 if dice.below(4) != 0 => pair.give_page(pfn),
                _ => pair.give(pfn, pages),
            }
        }
        match dice.below(16) {
            0 => pair.buddy.buddy.watch(),
            1 => pair.buddy.buddy.unwatch(),
            _ => {}
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
                        match *index.get(&live) {
                            (pfn, 1) => pair.give_page(pfn),
                            (pfn, pages) => pair.give(pfn, pages),
                        }
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
