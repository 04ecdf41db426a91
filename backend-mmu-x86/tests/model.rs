//! Random sequences against the model: translations, counts, retired tables, and the TLB up to the flush.

mod common;

use common::{CACHES, LARGE, PAGE, PROTS, Rig, Slot, absent, seen};
use mm_core::{CacheMode, PageRange, Pfn, Prot};
use proptest::prelude::*;
use rtmm_testkit::{Access, Seen};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Step {
    Map {
        at: usize,
        run: PageRange,
        prot: Prot,
        cache: CacheMode,
    },
    Unmap {
        at: usize,
        pages: u32,
        block: u32,
    },
    Protect {
        at: usize,
        pages: u32,
        prot: Prot,
    },
    SetGuard {
        at: usize,
        tag: u32,
    },
    ClearGuard {
        at: usize,
    },
    /// Loads from the pages around, so that the TLB knows them.
    Touch {
        at: usize,
    },
    Flush,
}

/// 2 MiB regions of the window that steps use: neighbours, under one upper table and not, and its last.
fn regions<const PAE: bool>() -> Vec<usize> {
    let window = Rig::<PAE>::new(1).window;
    if PAE {
        vec![window.start, window.start + LARGE, window.start + 9 * LARGE, window.end - LARGE]
    } else {
        let slot = window.start + (1 << 30);
        vec![window.start, slot - LARGE, slot, slot + LARGE, window.end - LARGE]
    }
}

/// Pages of the window, most of them where something ends: a table, a batch.
fn page(regions: Vec<usize>) -> impl Strategy<Value = usize> {
    let number = prop_oneof![4 => Just(0usize), 3 => 1..4usize, 2 => 30..36usize, 2 => 508..512usize, 1 => 0..512usize];
    (proptest::sample::select(regions), number).prop_map(|(region, number)| region + number * PAGE)
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 1..4u32, 2 => 30..36u32, 2 => 510..515u32, 1 => 1..1100u32]
}

fn step(regions: Vec<usize>) -> impl Strategy<Value = Step> {
    let pfn = prop_oneof![2 => (0..64u32).prop_map(|n| n * 512), 1 => 0..0x40_0000u32, 1 => 0xff_f000..0xff_fb00u32];
    let run = (pfn, count()).prop_map(|(start, count)| PageRange { start: Pfn(start), count });
    let at = || page(regions.clone());
    let prot = || proptest::sample::select(PROTS.to_vec());
    let cache = proptest::sample::select(CACHES.to_vec());
    prop_oneof![
        6 => (at(), run, prot(), cache).prop_map(|(at, run, prot, cache)| Step::Map { at, run, prot, cache }),
        4 => (at(), count(), 1..40u32).prop_map(|(at, pages, block)| Step::Unmap { at, pages, block }),
        3 => (at(), count(), prot()).prop_map(|(at, pages, prot)| Step::Protect { at, pages, prot }),
        2 => (at(), any::<u32>()).prop_map(|(at, tag)| Step::SetGuard { at, tag }),
        2 => at().prop_map(|at| Step::ClearGuard { at }),
        3 => at().prop_map(|at| Step::Touch { at }),
        2 => Just(Step::Flush),
    ]
}

/// What the TLB may still say of the pages a CPU has touched.
#[derive(Default)]
struct Stale {
    /// Pages changed since the last flush, with all they were mapped to meanwhile.
    was: BTreeMap<usize, Vec<Option<Slot>>>,
    touched: BTreeSet<usize>,
}

impl Stale {
    fn before<const PAE: bool>(&mut self, rig: &Rig<PAE>, at: usize, pages: u32) {
        // A split changes what the whole entry is cached as.
        let start = at & !(LARGE - 1);
        let end = (at + pages as usize * PAGE).next_multiple_of(LARGE);
        for &page in self.touched.range(start..end) {
            self.was.entry(page).or_default().push(rig.model.get(&page).copied());
        }
    }

    /// Each touched page is translated as the model says, or, when it changed since the last flush, as it said.
    fn check<const PAE: bool>(&self, rig: &Rig<PAE>) {
        for &page in &self.touched {
            let now = rig.machine.access(page, Access::Read);
            let allowed = |slot: Option<&Slot>| match (slot, now) {
                (Some(&Slot::Page { pfn, prot, cache, large }), Ok(now)) => same(now, seen(pfn, prot, cache, large)),
                (Some(Slot::Page { .. }), Err(_)) => false,
                (_, result) => result == Err(absent(page)),
            };
            let was = self.was.get(&page).map_or(&[][..], |slots| slots);
            assert!(
                allowed(rig.model.get(&page)) || was.iter().any(|slot| allowed(slot.as_ref())),
                "{page:#x}: {now:x?}"
            );
        }
    }

    fn flush<const PAE: bool>(&mut self, rig: &mut Rig<PAE>) {
        for &page in self.was.keys() {
            rig.flush(page, 1);
        }
        // Upper entries on the way to what was never touched are cached too.
        rig.flush(rig.window.start, 1);
        self.was.clear();
        self.check(rig);
    }
}

/// The size of the entry aside: the TLB may have kept that of an entry split since.
fn same(a: Seen, b: Seen) -> bool {
    Seen { bytes: 0, ..a } == Seen { bytes: 0, ..b }
}

fn run<const PAE: bool>(steps: Vec<Step>) {
    let mut rig = Rig::<PAE>::new(1);
    let mut stale = Stale::default();
    for step in steps {
        let fits = |at: usize, pages: u32| at + (pages as usize) * PAGE <= rig.window.end;
        let around = match step {
            Step::Map { at, run, prot, cache } => {
                if !fits(at, run.count) {
                    continue;
                }
                stale.before(&rig, at, run.count);
                let _ = rig.map(at, run, prot, cache);
                at
            }
            Step::Unmap { at, pages, block } => {
                stale.before(&rig, at, pages);
                rig.unmap(at, pages, block);
                at
            }
            Step::Protect { at, pages, prot } => {
                stale.before(&rig, at, pages);
                let _ = rig.protect(at, pages, prot);
                at
            }
            Step::SetGuard { at, tag } => {
                stale.before(&rig, at, 1);
                let _ = rig.set_guard(at, tag);
                at
            }
            Step::ClearGuard { at } => {
                stale.before(&rig, at, 1);
                rig.clear_guard(at);
                at
            }
            Step::Touch { at } => {
                // A large entry cached before a change speaks for pages that are only touched now.
                let region = at & !(LARGE - 1);
                if stale.was.range(region..region + LARGE).next().is_some() {
                    stale.flush(&mut rig);
                }
                stale.touched.extend([at, at ^ PAGE]);
                at
            }
            Step::Flush => {
                stale.flush(&mut rig);
                rig.window.start
            }
        };
        stale.check(&rig);
        rig.check();
        for page in [around - PAGE, around, around + PAGE, around + 31 * PAGE, around + 32 * PAGE] {
            if rig.window.contains(page) {
                rig.check_page(page);
            }
        }
    }
    // Unmapping everything leaves no table behind.
    let pages: Vec<(usize, Slot)> = rig.model.iter().map(|(&at, &slot)| (at, slot)).collect();
    for (at, slot) in pages {
        stale.before(&rig, at, 1);
        match slot {
            Slot::Guard(_) => rig.clear_guard(at),
            Slot::Page { .. } => {
                rig.unmap(at, 512, 512);
            }
        }
    }
    rig.check();
    assert!(rig.model.is_empty() && rig.tables.live().is_empty());
    stale.flush(&mut rig);
    assert_eq!(rig.tables.retired(), 0);
}

fn config() -> ProptestConfig {
    let cases = if cfg!(miri) { 2 } else { 160 };
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() }
}

const STEPS: usize = if cfg!(miri) { 10 } else { 60 };

proptest! {
    #![proptest_config(config())]

    #[test]
    fn tables_in_64_bit_mode_say_what_the_model_says(steps in proptest::collection::vec(step(regions::<false>()), 1..STEPS)) {
        run::<false>(steps);
    }

    #[test]
    fn pae_tables_say_what_the_model_says(steps in proptest::collection::vec(step(regions::<true>()), 1..STEPS)) {
        run::<true>(steps);
    }
}
