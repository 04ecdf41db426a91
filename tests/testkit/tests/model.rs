//! The whole manager against a model of what is live: every call in any order, with wrong frees and failing steps
//! mixed in, scanned after each step.

mod common;

use common::world::{CACHES, Reach, Step, World};
use mm_core::*;
use proptest::prelude::*;
use rtmm_testkit::rig::Rig;

const CASES: u32 = if cfg!(miri) { 1 } else { 48 };
const STEPS: usize = if cfg!(miri) { 24 } else { 160 };
/// Scans after so many steps.
const EACH: usize = if cfg!(miri) { 8 } else { 1 };

/// Sizes near every constant: a word, a class, a page, the largest class, the slabs' pages, a unit of address space.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 1usize..=72,
        4 => 73usize..=1100,
        2 => 1100usize..=4096,
        1 => 4095usize..=4097,
        2 => 4097usize..=40_000,
        1 => 61_000usize..=66_000,
        1 => 66_000usize..=200_000,
    ]
}

fn flags() -> impl Strategy<Value = Gfp> {
    prop_oneof![
        8 => Just(GFP_KERNEL),
        2 => Just(GFP_ATOMIC),
        2 => Just(GFP_KERNEL | Gfp::ZERO),
        1 => Just(GFP_USER | Gfp::COMP | Gfp::NOWARN),
        1 => Just(GFP_NOWAIT | Gfp::HIGHMEM),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0usize..1 << 20;
    let slot = 0..CACHES;
    let area = prop_oneof![3 => 1usize..=4 * 4096, 2 => 60_000usize..70_000, 1 => 70_000usize..600_000];
    // Few device ranges, so that they repeat and overlap.
    let device = (0u64..6, prop_oneof![Just(0u64), Just(0x10), Just(0xfff)]);
    let take = prop_oneof![
        10 => (size(), flags()).prop_map(|(size, flags)| Step::Kmalloc(size, flags)),
        1 => (1usize..300).prop_map(|size| Step::Kmalloc(size, GFP_ATOMIC | GFP_DMA)),
        2 => (1usize..20, 1usize..300).prop_map(|(n, size)| Step::Kcalloc(n, size)),
        3 => (1usize..9000, 0u32..14).prop_map(|(size, shift)| Step::Layout(size, shift)),
        4 => (prop_oneof![3 => Just(0usize), 2 => 1usize..=5], flags()).prop_map(|(order, f)| Step::Block(order, f)),
        2 => (1usize..80_000).prop_map(Step::Exact),
        5 => (area, any::<bool>()).prop_map(|(size, zero)| Step::Area(size, zero)),
        2 => (device, 1usize..40_000).prop_map(|((page, at), len)| Step::Device(0xf000_0000 + page * 4096 + at, len)),
        2 => (slot.clone(), 1usize..9000, 0u32..8).prop_map(|(slot, size, shift)| Step::Cache(slot, size, shift)),
        6 => (slot.clone(), flags()).prop_map(|(slot, flags)| Step::Object(slot, flags)),
    ];
    let other = prop_oneof![
        3 => (index.clone(), prop_oneof![1 => Just(0usize), 12 => size()]).prop_map(|(i, n)| Step::Krealloc(i, n)),
        2 => (index.clone(), 1usize..20_000).prop_map(|(i, n)| Step::Relayout(i, n)),
        14 => index.clone().prop_map(Step::Free),
        2 => index.clone().prop_map(Step::FreeAgain),
        4 => (index.clone(), 0usize..64, prop_oneof![Just(0usize), Just(1), Just(8), Just(4096), 0usize..1 << 20])
            .prop_map(|(i, call, at)| Step::FreeWrong(i, call, at)),
        1 => slot.prop_map(Step::EndCache),
        1 => Just(Step::Drain),
        2 => (1u64..12).prop_map(Step::Fail),
    ];
    prop_oneof![take, other]
}

fn live<B: Reach>(rig: &Rig<B>, steps: &[Step], key: usize) {
    rig.nothing_lost(|mm| {
        let mut world = World::new(mm);
        for (i, step) in steps.iter().enumerate() {
            world.step(*step);
            if (i + 1).is_multiple_of(EACH) {
                world.check();
            }
        }
        world.end(key);
    });
    assert!(rig.platform.take_bugs().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_life_without_an_mmu(steps in prop::collection::vec(step(), STEPS / 2..STEPS), key: usize) {
        // RAM is scarce, so that exhaustion and fragments are met.
        live(&if cfg!(miri) { common::nommu() } else { Rig::nommu(0x2000_0000, 0x18_0000) }, &steps, key);
    }

    #[test]
    fn any_life_with_an_mmu(steps in prop::collection::vec(step(), STEPS / 2..STEPS), key: usize) {
        let rig = if cfg!(miri) { common::mmu() } else { Rig::mmu(&[(0x1000, 0x8_0000), (0x10_0000, 0x20_0000)]) };
        live(&rig, &steps, key);
    }

    #[test]
    fn any_life_on_two_cpus_with_highmem(steps in prop::collection::vec(step(), STEPS / 2..STEPS), key: usize) {
        live(&common::highmem(), &steps, key);
    }

    #[test]
    fn any_life_on_pae_tables_with_highmem(steps in prop::collection::vec(step(), STEPS / 2..STEPS), key: usize) {
        live(&common::pae(), &steps, key);
    }
}
