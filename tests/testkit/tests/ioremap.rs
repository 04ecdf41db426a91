//! Device ranges mapped often, in any order, on managers of both kinds.

use mm_core::{Backend, Mm, PhysAddr};
use proptest::prelude::*;
use rtmm_testkit::TestPlatform;
use rtmm_testkit::rig::Rig;

const DEVICES: u64 = 0x4000_0000;
/// Ranges of devices need little memory, and Miri scans it slowly.
const RAM: u64 = if cfg!(miri) { 0x10_0000 } else { 0x40_0000 };

/// Maps all of `ranges` (page offset, bytes), then unmaps them in the order of `keys`; scans after each step.
fn map_and_unmap<B: Backend>(mm: &Mm<TestPlatform, B>, ranges: &[(u64, usize)], keys: &[u32]) {
    let areas = mm.vmallocinfo().count();
    let mut mapped = Vec::new();
    for (i, &(at, size)) in ranges.iter().enumerate() {
        let start = mm.ioremap(PhysAddr(DEVICES + at), size).unwrap();
        mapped.push((keys[i], start));
        mm.check().unwrap_or_else(|damage| panic!("{damage}"));
    }
    mapped.sort();
    for (_, start) in mapped {
        mm.iounmap(start.as_ptr()).unwrap();
        mm.check().unwrap_or_else(|damage| panic!("{damage}"));
    }
    assert_eq!(mm.vmallocinfo().count(), areas);
}

fn range() -> impl Strategy<Value = (u64, usize)> {
    // Few starts, so that ranges repeat and overlap; some begin inside a page.
    (prop_oneof![0u64..4, 8u64..12], prop_oneof![Just(0u64), Just(0x24)], 1usize..20_000)
        .prop_map(|(page, offset, size)| (page * 4096 + offset, size))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 24 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ranges_repeat_overlap_and_go_in_any_order(
        ranges in prop::collection::vec(range(), 1..if cfg!(miri) { 5 } else { 24 }),
        keys in prop::collection::vec(any::<u32>(), 24),
    ) {
        Rig::nommu(0x10_0000, RAM).nothing_lost(|mm| map_and_unmap(mm, &ranges, &keys));
        Rig::mmu(&[(0x10_0000, 0x10_0000 + RAM)]).nothing_lost(|mm| map_and_unmap(mm, &ranges, &keys));
    }
}

#[test]
fn the_same_range_twice_is_two_mappings() {
    let rig = Rig::nommu(0x10_0000, RAM);
    rig.nothing_lost(|mm| {
        let first = mm.ioremap(PhysAddr(DEVICES), 4096).unwrap();
        let second = mm.ioremap(PhysAddr(DEVICES), 4096).unwrap();
        assert_eq!(first, second);
        mm.check().unwrap_or_else(|damage| panic!("{damage}"));
        mm.iounmap(first.as_ptr()).unwrap();
        mm.iounmap(second.as_ptr()).unwrap();
        assert!(mm.iounmap(second.as_ptr()).is_err());
    });
}
