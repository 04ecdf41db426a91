//! The address space against a list of booleans.

use super::{AddressSpace, NotTaken, Progress, TRIES, in_steps};
use core::ops::{Deref, DerefMut};
use proptest::prelude::*;
use std::vec::Vec;

const CASES: u32 = if cfg!(miri) { 2 } else { 96 };
const STEPS: usize = if cfg!(miri) { 25 } else { 400 };

/// An address space with its memory, uninitialised so that Miri sees a read before a write.
struct Owned<const A: usize, const O: usize> {
    space: AddressSpace<A, O>,
    _memory: Vec<u64>,
}

impl<const A: usize, const O: usize> Owned<A, O> {
    fn new(units: usize) -> Self {
        let bytes = AddressSpace::<A, O>::storage_bytes(units);
        assert!(bytes.is_multiple_of(8));
        let mut memory = Vec::<u64>::with_capacity(bytes / 8);
        // SAFETY: the vector's buffer has room for that many bytes, is aligned to 8, and is not touched while
        // `_memory` keeps it.
        let space = unsafe { AddressSpace::new(memory.as_mut_ptr().cast(), units) };
        Owned { space, _memory: memory }
    }
}

/// All steps of a work.
fn all<T>(mut step: impl FnMut() -> Progress<T>) -> T {
    loop {
        if let Progress::Done(done) = step() {
            return done;
        }
    }
}

impl<const A: usize, const O: usize> Owned<A, O> {
    fn take(&mut self, n: usize, align: usize) -> Option<usize> {
        self.take_with(n, align, 0)
    }

    fn take_with(&mut self, n: usize, align: usize, offset: usize) -> Option<usize> {
        all(|| self.space.take(n, align, offset))
    }

    fn give(&mut self, start: usize, n: usize) -> Result<(), NotTaken> {
        all(|| self.space.give(start, n))
    }

    fn next_taken(&mut self, unit: usize) -> Option<usize> {
        all(|| self.space.next_taken(unit))
    }
}

impl<const A: usize, const O: usize> Deref for Owned<A, O> {
    type Target = AddressSpace<A, O>;
    fn deref(&self) -> &Self::Target {
        &self.space
    }
}

impl<const A: usize, const O: usize> DerefMut for Owned<A, O> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.space
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take(usize),
    Placed(usize),
    Aligned(usize, u32, usize),
    /// Gives back one of the live runs.
    Give(prop::sample::Index),
    /// Gives back whatever lies there, taken or not.
    Raw(usize, usize),
    Look(usize),
    /// Only the first step of a take, behind which something else comes.
    Begin(usize),
}

/// Sizes near every constant: a unit, the remembered sizes, a word, two words, a few more.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 1usize..=5, 2 => 30usize..=35, 2 => 60usize..=68, 1 => 125usize..=131, 1 => 190usize..700]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => size().prop_map(Step::Take),
        2 => size().prop_map(Step::Placed),
        1 => (size(), 0u32..9, any::<usize>()).prop_map(|(n, shift, offset)| Step::Aligned(n, shift, offset)),
        7 => any::<prop::sample::Index>().prop_map(Step::Give),
        2 => (0usize..2100, size()).prop_map(|(at, n)| Step::Raw(at, n)),
        1 => (0usize..2200).prop_map(Step::Look),
        3 => size().prop_map(Step::Begin),
    ]
}

fn units() -> impl Strategy<Value = usize> {
    prop_oneof![
        1usize..=3,
        (1usize..=4).prop_map(|n| n * 64 - 1),
        (1usize..=4).prop_map(|n| n * 64),
        (1usize..=4).prop_map(|n| n * 64 + 1),
        if cfg!(miri) { 250usize..400 } else { 500usize..2100 },
        Just(if cfg!(miri) { 256 } else { 1024 }),
    ]
}

/// Maximal free runs.
fn free_runs(taken: &[bool]) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for at in (0..taken.len()).filter(|at| !taken[*at]) {
        match out.last_mut() {
            Some(last) if last.1 == at => last.1 += 1,
            _ => out.push((at, at + 1)),
        }
    }
    out
}

/// Where the contract says the run goes.
fn expected(taken: &[bool], n: usize, align: usize, offset: usize, exact: bool) -> Option<usize> {
    let fit = |(start, end): (usize, usize)| {
        (start..end).take_while(|at| at + n <= end).find(|at| at & (align - 1) == offset)
    };
    let runs: Vec<_> = free_runs(taken).into_iter().filter(|(start, end)| end - start >= n).collect();
    let near = if exact { runs.len() } else { TRIES.min(runs.len()) };
    runs[..near]
        .iter()
        .find_map(|run| fit(*run))
        .or_else(|| runs[near..].iter().find(|(start, end)| end - start >= n + align - 1).and_then(|run| fit(*run)))
}

fn drive<const A: usize, const O: usize>(units: usize, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut space = Owned::<A, O>::new(units);
    let mut taken = std::vec![false; units];
    let mut live: Vec<(usize, usize)> = Vec::new();
    for step in steps {
        let (n, align, offset) = match *step {
            Step::Take(n) | Step::Begin(n) => (n, 1, 0),
            Step::Placed(n) => (n, A, O),
            Step::Aligned(n, shift, offset) => (n, 1 << shift, offset & ((1 << shift) - 1)),
            Step::Give(index) if live.is_empty() => {
                let at = index.index(units);
                prop_assert_eq!(space.give(at, 1), Err(NotTaken));
                continue;
            }
            Step::Give(index) => {
                let (at, n) = live.swap_remove(index.index(live.len()));
                prop_assert_eq!(space.give(at, n), Ok(()));
                taken[at..at + n].fill(false);
                prop_assert!(n == 0 || space.give(at, n) == Err(NotTaken), "given twice");
                space.check().unwrap();
                continue;
            }
            Step::Raw(at, n) => {
                let good = at + n <= units && taken[at..at + n].iter().all(|t| *t);
                prop_assert_eq!(space.give(at, n), if good { Ok(()) } else { Err(NotTaken) });
                if good {
                    taken[at..at + n].fill(false);
                    // What is left of the runs that were cut.
                    live = live
                        .iter()
                        .flat_map(|&(s, len)| {
                            let (low, high) = (at.clamp(s, s + len), (at + n).clamp(s, s + len));
                            [(s, low - s), (high, s + len - high)].into_iter().filter(|r| r.1 > 0)
                        })
                        .collect();
                }
                space.check().unwrap();
                continue;
            }
            Step::Look(at) => {
                prop_assert_eq!(space.is_taken(at), taken.get(at).copied().unwrap_or(false));
                let next = (at..units).find(|at| taken[*at]);
                prop_assert_eq!(space.next_taken(at), next);
                continue;
            }
        };
        let exact = align == 1 || (align, offset) == (A, O);
        let got = if let Step::Begin(_) = step {
            let Progress::Done(got) = space.space.take(n, align, offset) else { continue };
            got
        } else {
            space.take_with(n, align, offset)
        };
        prop_assert_eq!(got, expected(&taken, n, align, offset, exact), "{:?}", step);
        if let Some(at) = got {
            taken[at..at + n].fill(true);
            live.push((at, n));
        }
        prop_assert_eq!(space.free_units(), taken.iter().filter(|t| !**t).count());
        // Rarely: a check brings the tree up to date, and it must also be right when it comes late.
        if live.len().is_multiple_of(8) {
            space.check().unwrap();
        }
    }
    for (at, taken) in taken.iter().enumerate() {
        prop_assert_eq!(space.is_taken(at), *taken);
    }
    for (at, n) in live {
        prop_assert_eq!(space.give(at, n), Ok(()));
    }
    space.check().unwrap();
    prop_assert_eq!(space.next_taken(0), None);
    prop_assert_eq!(space.take(units, 1), Some(0), "no fragment is left");
    prop_assert_eq!(space.take(1, 1), None);
    space.check().unwrap();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn takes_are_lowest_and_gives_are_checked(units in units(), steps in prop::collection::vec(step(), 1..STEPS)) {
        drive::<32, 31>(units, &steps)?;
    }

    #[test]
    fn any_placement_works(units in units(), steps in prop::collection::vec(step(), 1..STEPS)) {
        drive::<4, 3>(units, &steps)?;
        drive::<64, 0>(units, &steps)?;
        drive::<64, 63>(units, &steps)?;
        drive::<1, 0>(units, &steps)?;
    }
}

/// Every length at every place of a space of three words and a bit, between taken neighbours.
#[test]
fn every_run_of_a_small_space_can_be_taken_again() {
    let units = 3 * 64 + 5;
    let step = if cfg!(miri) { 31 } else { 1 };
    let mut space = Owned::<32, 31>::new(units);
    assert_eq!(space.take(units, 1), Some(0));
    for start in (0..units).step_by(step) {
        for n in (1..=units - start).step_by(step) {
            space.give(start, n).unwrap();
            space.check().unwrap();
            assert_eq!(space.next_taken(start), (start + n < units).then_some(start + n));
            assert_eq!(space.take(n + 1, 1), None);
            let placed = (start..start + n).find(|at| at % 32 == 31).map_or(0, |at| start + n - at);
            assert_eq!(space.take_with(placed + 1, 32, 31), None);
            if placed > 0 {
                let at = space.take_with(placed, 32, 31).unwrap();
                assert_eq!(at, start + n - placed);
                space.give(at, placed).unwrap();
            }
            assert_eq!(space.take(n, 1), Some(start));
        }
    }
}

#[test]
fn exhaustion_is_none_and_ends_when_units_come_back() {
    for units in [1, 64, 65, if cfg!(miri) { 130 } else { 5000 }] {
        let mut space = Owned::<32, 31>::new(units);
        for want in 0..units {
            assert_eq!(space.take(1, 1), Some(want));
        }
        assert_eq!((space.take(1, 1), space.free_units()), (None, 0));
        // Every second one back: no pair fits, single ones do.
        for at in (0..units).step_by(2) {
            space.give(at, 1).unwrap();
        }
        assert_eq!(space.take(2, 1), None);
        assert_eq!(space.take(1, 1), Some(0));
        for at in (0..units).filter(|at| *at == 0 || at % 2 == 1) {
            space.give(at, 1).unwrap();
        }
        assert_eq!(space.take(units, 1), Some(0));
        space.check().unwrap();
    }
}

#[test]
fn requests_that_make_no_sense_change_nothing() {
    let mut space = Owned::<32, 31>::new(200);
    space.take(70, 1).unwrap();
    for (n, align, offset) in [
        (0, 1, 0),
        (1, 0, 0),
        (1, 3, 0),
        (1, 1, 1),
        (1, 32, 32),
        (usize::MAX, 1, 0),
        (131, 1, 0),
        (1, 1 << (usize::BITS - 1), 1 << (usize::BITS - 2)),
    ] {
        assert_eq!(space.take_with(n, align, offset), None);
    }
    for (start, n) in [
        (0, 0),
        (0, 71),
        (69, 2),
        (70, 1),
        (199, 1),
        (200, 1),
        (0, usize::MAX),
        (usize::MAX, 1),
        (usize::MAX, usize::MAX),
        (1, 200),
    ] {
        assert_eq!(space.give(start, n), Err(NotTaken), "{start} {n}");
    }
    assert_eq!(space.free_units(), 130);
    space.check().unwrap();
    assert!(!space.is_taken(usize::MAX));
    assert_eq!(space.next_taken(usize::MAX), None);
    assert_eq!(space.give(0, 70), Ok(()));
}

#[test]
fn an_empty_space_has_nothing() {
    let (mut none, mut zero) = (AddressSpace::<32, 31>::EMPTY, Owned::<32, 31>::new(0));
    for space in [&mut none, &mut *zero] {
        let found = (all(|| space.take(1, 1, 0)), all(|| space.give(0, 1)), all(|| space.next_taken(0)));
        assert_eq!(found, (None, Err(NotTaken), None));
        assert_eq!((space.is_taken(0), space.free_units(), space.check()), (false, 0, Ok(())));
    }
}

/// A fit far beyond the runs that are looked at one by one is still found when it fits for certain.
#[test]
fn an_odd_alignment_finds_a_run_behind_many_that_do_not_fit() {
    let mut space = Owned::<32, 31>::new(64 * 64);
    space.take(64 * 64, 1).unwrap();
    for hole in 0..40 {
        space.give(hole * 16 + 1, 8).unwrap();
    }
    assert_eq!(space.take(8, 16), None);
    space.give(2000, 23).unwrap();
    assert_eq!(space.take(8, 16), Some(2000));
    assert_eq!(space.take_with(8, 16, 1), Some(1));
}

/// Damage to the tree is seen.
#[test]
fn check_sees_a_wrong_node_and_a_wrong_word() {
    let mut space = Owned::<32, 31>::new(1000);
    space.take(100, 1).unwrap();
    let word = space._memory.as_mut_ptr().wrapping_add(16 * 2 + 1);
    assert_eq!(space.check(), Ok(()));
    // SAFETY: the second word follows the 16 nodes of 16 bytes, inside the buffer.
    unsafe { word.write(word.read() ^ 2) };
    assert!(space.check().is_err());
}

/// Two CPUs get a lock in turn, one step each: neither keeps the other from ever coming to an end.
#[test]
fn who_comes_between_any_two_steps_cannot_keep_a_request_from_its_end() {
    let turn = |turns: &mut usize| {
        *turns += 1;
        assert!(*turns <= super::STEPS, "it is kept waiting");
    };
    // Who searches for something else forgets what the step before found.
    let mut owned = Owned::<32, 31>::new(4096);
    let mut turns = 0;
    let taken = in_steps(
        &mut owned.space,
        |space| space.take(2, 1, 0),
        |space| {
            turn(&mut turns);
            assert_eq!(space.take(3, 1, 0), Progress::More);
        },
    );
    assert_eq!((taken, turns), (Some(0), super::STEPS));
    // Who changes the open word leaves its path behind.
    let mut owned = Owned::<32, 31>::new(1 << 20);
    let (low, high) = (owned.take(200, 1), owned.take(1 << 19, 1));
    assert_eq!((low, high), (Some(0), Some(200)));
    assert_eq!(owned.take(1, 1), Some(200 + (1 << 19)));
    turns = 0;
    let given = in_steps(
        &mut owned.space,
        |space| space.give(200, 1 << 19),
        |space| {
            turn(&mut turns);
            if let Progress::Done(Some(unit)) = space.take(1, 1, 0) {
                assert_eq!(space.give(unit, 1), Progress::Done(Ok(())));
            }
        },
    );
    assert_eq!((given, turns), (Ok(()), super::STEPS));
    assert_eq!(owned.check(), Ok(()));
}
