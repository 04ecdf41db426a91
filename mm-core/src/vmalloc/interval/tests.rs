//! The interval tree against a sorted list.

use super::{Cursor, IntervalTree, Node, Nodes};
use crate::addr::PhysRange;
use core::cell::UnsafeCell;
use proptest::prelude::*;
use std::vec::Vec;

const CASES: u32 = if cfg!(miri) { 3 } else { 512 };
const STEPS: usize = if cfg!(miri) { 40 } else { 300 };

struct Records(Vec<UnsafeCell<Node>>);

// SAFETY: each id has its own cell, which only the tree reaches.
unsafe impl Nodes for Records {
    fn node(&self, id: u32) -> *mut Node {
        self.0[id as usize].get()
    }
}

fn records(n: usize) -> Records {
    Records((0..n).map(|_| UnsafeCell::new(Node::NEW)).collect())
}

/// In the tree's order: start, then age.
#[derive(Default)]
struct Model(Vec<(PhysRange, u32)>);

impl Model {
    fn insert(&mut self, range: PhysRange, id: u32) {
        let at = self.0.iter().position(|(r, _)| r.start > range.start).unwrap_or(self.0.len());
        self.0.insert(at, (range, id));
    }

    fn overlaps(&self, range: PhysRange) -> Vec<u32> {
        self.0.iter().filter(|(r, _)| r.overlaps(range)).map(|(_, id)| *id).collect()
    }

    fn ids(&self) -> Vec<u32> {
        self.0.iter().map(|(_, id)| *id).collect()
    }
}

fn insert(tree: &mut IntervalTree, nodes: &Records, id: u32, range: PhysRange) {
    // SAFETY: the tests insert an id once until it is removed, and use one `Records` per tree.
    unsafe { tree.insert(nodes, id, range) }
}

fn remove(tree: &mut IntervalTree, nodes: &Records, id: u32) {
    // SAFETY: the tests remove what they inserted, once.
    unsafe { tree.remove(nodes, id) }
}

fn overlaps(tree: &IntervalTree, nodes: &Records, range: PhysRange) -> Vec<u32> {
    let first = tree.first_overlap(nodes, range);
    std::iter::successors(first, |id| {
        // SAFETY: the record was found in the tree.
        unsafe { tree.next_overlap(nodes, *id, range) }
    })
    .collect()
}

fn in_order(tree: &IntervalTree, nodes: &Records) -> Vec<u32> {
    let mut cursor = Cursor::START;
    std::iter::from_fn(|| tree.advance(nodes, &mut cursor)).collect()
}

fn range() -> impl Strategy<Value = PhysRange> {
    // Starts repeat, and so do whole ranges; some are long enough to lie over many others.
    (0u64..60, prop_oneof![4 => 1u64..6, 1 => 1u64..80])
        .prop_map(|(start, len)| PhysRange { start: start * 4, end: start * 4 + len })
}

#[derive(Clone, Debug)]
enum Step {
    Insert(PhysRange),
    Remove(prop::sample::Index),
    Overlap(PhysRange),
    Find(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => range().prop_map(Step::Insert),
        3 => any::<prop::sample::Index>().prop_map(Step::Remove),
        2 => (0u64..260, 0u64..40).prop_map(|(start, len)| Step::Overlap(PhysRange { start, end: start + len })),
        1 => (0u64..62).prop_map(|n| Step::Find(n * 4)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_is_the_sorted_list(steps in prop::collection::vec(step(), 1..STEPS)) {
        let nodes = records(STEPS);
        let mut tree = IntervalTree::EMPTY;
        let mut model = Model::default();
        for (id, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(range) => {
                    insert(&mut tree, &nodes, id as u32, range);
                    model.insert(range, id as u32);
                }
                Step::Remove(_) if model.0.is_empty() => {}
                Step::Remove(index) => {
                    let (_, id) = model.0.remove(index.index(model.0.len()));
                    remove(&mut tree, &nodes, id);
                }
                Step::Overlap(range) => prop_assert_eq!(overlaps(&tree, &nodes, range), model.overlaps(range)),
                Step::Find(start) => {
                    let want = model.0.iter().find(|(r, _)| r.start == start).map(|(_, id)| *id);
                    prop_assert_eq!(tree.find(&nodes, start), want);
                }
            }
            prop_assert_eq!(tree.check(&nodes), Ok(()));
            prop_assert_eq!(tree.len(), model.0.len());
        }
        prop_assert_eq!(in_order(&tree, &nodes), model.ids());
        for id in model.ids() {
            remove(&mut tree, &nodes, id);
            prop_assert_eq!(tree.check(&nodes), Ok(()));
        }
        prop_assert_eq!(tree.first_overlap(&nodes, PhysRange { start: 0, end: u64::MAX }), None);
    }

    /// A cursor misses nothing that stays, and repeats nothing, whatever happens between two steps.
    #[test]
    fn a_cursor_survives_changes(ranges in prop::collection::vec(range(), 2..40), removals: u64, twice: u64) {
        let nodes = records(2 * ranges.len());
        let mut tree = IntervalTree::EMPTY;
        for (id, range) in ranges.iter().enumerate() {
            insert(&mut tree, &nodes, id as u32, *range);
        }
        let stays = |id: usize| removals >> (id % 64) & 1 == 0;
        let (mut cursor, mut seen, mut step) = (Cursor::START, Vec::new(), 0);
        while let Some(id) = tree.advance(&nodes, &mut cursor) {
            seen.push(id as usize);
            // The one just seen goes, or another range comes, which is seen when it sorts later.
            if (id as usize) < ranges.len() && !stays(id as usize) {
                remove(&mut tree, &nodes, id);
            }
            if twice >> (step % 64) & 1 == 1 && step < ranges.len() {
                insert(&mut tree, &nodes, (ranges.len() + step) as u32, ranges[step]);
            }
            step += 1;
        }
        let mut unique = seen.clone();
        unique.sort_unstable();
        unique.dedup();
        prop_assert_eq!(unique.len(), seen.len());
        prop_assert!((0..ranges.len()).all(|id| seen.contains(&id)));
    }
}

/// Ascending, descending and zigzag insertion all stay within AVL's height.
#[test]
fn the_depth_is_bounded() {
    let n: u32 = if cfg!(miri) { 40 } else { 4096 };
    let orders: [fn(u32, u32) -> u32; 3] = [|i, _| i, |i, n| n - i, |i, n| if i.is_multiple_of(2) { i } else { n - i }];
    for order in orders {
        let nodes = records(n as usize);
        let mut tree = IntervalTree::EMPTY;
        for id in 0..n {
            let start = u64::from(order(id, n)) << 12;
            insert(&mut tree, &nodes, id, PhysRange { start, end: start + 4096 });
        }
        let depth = (0..n).map(|id| super::get(&nodes, id).height).max().unwrap();
        assert!(f64::from(depth) <= 1.4405 * f64::from(n + 2).log2(), "{depth}");
        for id in (0..n).filter(|id| id % 3 != 0) {
            remove(&mut tree, &nodes, id);
        }
        assert_eq!(tree.check(&nodes), Ok(()));
    }
}

#[test]
fn the_same_range_can_be_mapped_twice_and_the_older_goes_first() {
    let nodes = records(4);
    let mut tree = IntervalTree::EMPTY;
    let device = PhysRange { start: 0xfebc_0000, end: 0xfebd_0000 };
    for id in [2, 0, 3] {
        insert(&mut tree, &nodes, id, device);
    }
    assert_eq!(overlaps(&tree, &nodes, device), [2, 0, 3]);
    assert_eq!(tree.find(&nodes, device.start), Some(2));
    remove(&mut tree, &nodes, 2);
    assert_eq!(tree.find(&nodes, device.start), Some(0));
    // SAFETY: both are in the tree.
    assert_eq!(unsafe { (tree.next(&nodes, 0), tree.next(&nodes, 3)) }, (Some(3), None));
    assert_eq!(tree.find(&nodes, device.start + 1), None);
    assert_eq!(super::get(&nodes, 0).range(), device);
}

#[test]
fn check_sees_damage() {
    let damages: [fn(&mut IntervalTree, &mut Node); 6] = [
        |_, node| node.reach += 1,
        |_, node| node.height += 1,
        |_, node| node.range.start = 9,
        |_, node| node.parent = 12,
        |tree, _| tree.len += 1,
        |tree, _| tree.len -= 1,
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let nodes = records(16);
        let mut tree = IntervalTree::EMPTY;
        for id in 0..16u64 {
            insert(&mut tree, &nodes, id as u32, PhysRange { start: id, end: id + 1 });
        }
        assert_eq!(tree.check(&nodes), Ok(()));
        super::edit(&nodes, 4, |node| damage(&mut tree, node));
        assert!(tree.check(&nodes).is_err(), "{number}");
    }
}
