//! Every state of small regions.

use super::BITS;
use super::model::Pair;
use std::collections::HashSet;
use std::vec::Vec;

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
            if pages == 1 {
                let mut next = pair.clone();
                next.give_page(pfn);
                arrive(next);
            }
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
