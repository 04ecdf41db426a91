//! The buddy against a list of booleans: every state of small regions, long random lives of larger ones, and single
//! promises.
//!
//! Under Miri the regions are small: there the model, not the buddy, would take the time.

mod exploration;
mod model;
mod random;

use super::Buddy;
use crate::bits::Word;
use model::{Owned, Pair};
use std::vec::Vec;

const BITS: usize = Word::BITS as usize;

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

#[test]
fn a_page_freed_below_all_others_is_the_next_without_a_word_to_the_tree() {
    let mut pair = Pair::all_free(0, 6 * BITS as u32, 10);
    for _ in 0..5 * BITS {
        pair.take(1);
    }
    // The word in the middle of used-up ones becomes the open one, and the next page is this one.
    for at in [2 * BITS, BITS + 3, 4 * BITS - 1, 7] {
        pair.give_page(at as u32);
        assert_eq!(pair.buddy.buddy.open(), at / BITS);
        pair.check();
        assert_eq!(pair.take(1), Some(at as u32));
        pair.check();
    }
    // While it has a page, others come after it, the lowest first.
    for at in [3 * BITS, 2 * BITS, 4 * BITS, BITS, 2 * BITS + 2] {
        pair.give_page(at as u32);
        pair.check();
    }
    for at in [3 * BITS, BITS, 2 * BITS, 2 * BITS + 2, 4 * BITS, 5 * BITS] {
        assert_eq!(pair.take(1), Some(at as u32));
        pair.check();
    }
    // A word above one with a free page waits its turn.
    for _ in 1..BITS {
        pair.take(1);
    }
    for at in [2 * BITS, 4 * BITS + 1, BITS] {
        pair.give(at as u32, 1);
    }
    pair.give_page(3 * BITS as u32);
    for at in [BITS, 2 * BITS, 3 * BITS, 4 * BITS + 1] {
        assert_eq!(pair.take(1), Some(at as u32));
    }
    pair.check();
}

#[test]
fn while_it_is_watched_no_word_is_quiet_however_the_open_one_changes() {
    let mut pair = Pair::all_free(0, 4 * BITS as u32, 5);
    let quiet = |pair: &mut Pair| {
        let buddy = &pair.buddy.buddy;
        (0..4).filter(|i| buddy.is_quiet(buddy.word_of((i * BITS) as u32).0)).collect::<Vec<_>>()
    };
    assert_eq!(quiet(&mut pair), []);
    pair.take(1);
    assert_eq!(quiet(&mut pair), [0]);
    pair.buddy.buddy.watch();
    // The word is used up and the next is opened; then one below is opened in place.
    for _ in 0..BITS {
        assert_eq!(quiet(&mut pair), []);
        pair.take(1);
    }
    for _ in 1..BITS {
        pair.take(1);
    }
    pair.give_page(7);
    assert_eq!((pair.buddy.buddy.open(), quiet(&mut pair)), (0, std::vec![]));
    pair.check();
    pair.buddy.buddy.unwatch();
    assert_eq!(quiet(&mut pair), [0]);
    pair.give(0, 7);
    pair.check();
}
