//! The boot map against a model that asks each byte.

use super::{BootMap, CutReport, RamMap};
use crate::addr::PhysRange;
use crate::error::MmError;
use proptest::prelude::*;
use std::string::ToString;
use std::vec::Vec;

/// 16-byte pages in a world of 512 bytes: every boundary is near every other.
const SHIFT: u32 = 4;
const BITS: u32 = 9;
const CASES: u32 = if cfg!(miri) { 3 } else { 1024 };

#[derive(Clone, Copy, Debug, PartialEq)]
enum Region {
    Ram(u64, u64),
    Reserved(u64, u64),
}
use Region::{Ram, Reserved};

fn build<const N: usize>(regions: &[Region], shift: u32, bits: u32) -> Result<RamMap<N>, MmError> {
    let mut map = BootMap::<N>::new();
    for region in regions {
        match *region {
            Ram(base, len) => map.add_ram(base, len)?,
            Reserved(base, len) => map.reserve(base, len)?,
        }
    }
    map.finish(shift, bits)
}

type Ranges = Vec<(u64, u64)>;

fn pairs(list: &[PhysRange]) -> Ranges {
    list.iter().map(|r| (r.start, r.end)).collect()
}

/// The pages for which `good` holds, as ranges.
fn runs(good: impl Fn(u64) -> bool) -> Ranges {
    let mut out: Ranges = Vec::new();
    for page in 0..1u64 << (BITS - SHIFT) {
        if !good(page) {
            continue;
        }
        let (start, end) = (page << SHIFT, (page + 1) << SHIFT);
        match out.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => out.push((start, end)),
        }
    }
    out
}

/// Spans, free ranges and the cut, byte by byte.
fn model(regions: &[Region]) -> (Ranges, Ranges, u64) {
    let holds = |byte: u128, r: &Region| {
        let (Ram(base, len) | Reserved(base, len)) = *r;
        (base as u128..base as u128 + len as u128).contains(&byte)
    };
    let is_ram = |byte: u64| regions.iter().any(|r| matches!(r, Ram(..)) && holds(byte as u128, r));
    let is_reserved = |byte: u64| regions.iter().any(|r| matches!(r, Reserved(..)) && holds(byte as u128, r));
    let bytes = |page: u64| page << SHIFT..(page + 1) << SHIFT;
    let spans = runs(|page| bytes(page).all(is_ram));
    let free = runs(|page| bytes(page).all(|b| is_ram(b) && !is_reserved(b)));
    let cut = (1 << BITS..2 << BITS).map(|b| u64::from(is_ram(b)) + u64::from(is_reserved(b))).sum();
    (spans, free, cut)
}

fn compare<const N: usize>(regions: &[Region]) -> Result<(), TestCaseError> {
    let (spans, free, cut) = model(regions);
    match build::<N>(regions, SHIFT, BITS) {
        Ok(map) => {
            prop_assert_eq!(pairs(map.spans()), spans);
            prop_assert_eq!(pairs(map.free()), free);
            prop_assert_eq!(map.cut().bytes, cut);
            prop_assert_eq!(map.cut().regions > 0, cut > 0);
        }
        Err(MmError::NoUsableMemory) => prop_assert!(free.is_empty()),
        Err(MmError::TooManyRegions) => prop_assert!(regions.len() > N || free.len() > N),
        Err(e) => prop_assert!(false, "{e:?}"),
    }
    Ok(())
}

fn region() -> impl Strategy<Value = Region> {
    let part = prop_oneof![0u64..=600, (0u64..=32).prop_map(|n| n * 16)];
    let len = prop_oneof![0u64..=400, (0u64..=8).prop_map(|n| n * 16), 0u64..=20];
    (any::<bool>(), part, len).prop_map(|(ram, base, len)| if ram { Ram(base, len) } else { Reserved(base, len) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_page_is_what_the_byte_model_says(regions in prop::collection::vec(region(), 0..12)) {
        compare::<16>(&regions)?;
    }

    #[test]
    fn a_small_table_is_right_or_refuses(regions in prop::collection::vec(region(), 0..12)) {
        compare::<3>(&regions)?;
    }

    #[test]
    fn early_allocations_are_the_highest_that_fit(
        regions in prop::collection::vec(region(), 1..8),
        requests in prop::collection::vec((0u64..100, 0u32..8, prop_oneof![Just(u64::MAX), 0u64..600]), 1..8),
    ) {
        let Ok(mut map) = build::<32>(&regions, SHIFT, BITS) else { return Ok(()) };
        let mut free: Vec<bool> = (0..1u64 << (BITS - SHIFT))
            .map(|page| map.free().iter().any(|r| (r.start..r.end).contains(&(page << SHIFT))))
            .collect();
        for (bytes, align_shift, below) in requests {
            let pages = bytes.div_ceil(1 << SHIFT) as usize;
            let step = 1usize << align_shift.saturating_sub(SHIFT);
            let want = (0..free.len())
                .rev()
                .filter(|at| pages > 0 && at.is_multiple_of(step) && at + pages <= free.len())
                .filter(|at| ((at + pages) as u64) << SHIFT <= below)
                .find(|at| free[*at..at + pages].iter().all(|f| *f));
            let got = map.alloc_top(bytes, 1 << align_shift, below);
            prop_assert_eq!(got.map(|r| r.start), want.map(|at| (at as u64) << SHIFT));
            if let (Some(at), Some(got)) = (want, got) {
                prop_assert_eq!(got.len(), (pages as u64) << SHIFT);
                free[at..at + pages].fill(false);
            }
            prop_assert_eq!(pairs(map.free()), runs(|page| free[page as usize]));
        }
    }
}

fn permute(list: &mut [Region], k: usize, visit: &mut impl FnMut(&[Region])) {
    if k == list.len() {
        return visit(list);
    }
    for i in k..list.len() {
        list.swap(k, i);
        permute(list, k + 1, visit);
        list.swap(k, i);
    }
}

#[test]
fn the_order_of_regions_does_not_matter() {
    let mut all = [
        Ram(0, 160),
        Ram(150, 101),
        Ram(251, 69),
        Ram(400, 300),
        Reserved(33, 1),
        Reserved(96, 40),
        Ram(u64::MAX - 5, 40),
    ];
    let list = if cfg!(miri) { &mut all[3..] } else { &mut all[..] };
    let want = build::<8>(list, SHIFT, BITS).unwrap();
    assert!(want.cut().regions == 2 && !want.free().is_empty());
    let mut orders = 0;
    permute(list, 0, &mut |order| {
        let got = build::<8>(order, SHIFT, BITS).unwrap();
        assert_eq!((got.spans(), got.free(), got.cut()), (want.spans(), want.free(), want.cut()));
        orders += 1;
    });
    assert_eq!(orders, if cfg!(miri) { 24 } else { 5040 });
}

/// Each end of a region near each edge of the number line, in 128-bit arithmetic.
#[test]
fn regions_at_every_edge_are_cut_and_counted() {
    let near = |at: u128| [at.wrapping_sub(1), at, at + 1].into_iter().filter(|v| *v <= u64::MAX as u128);
    let edges: Vec<u64> =
        [0u128, 4096, 8192, 1 << 40, ((1 << 32) - 256) << 12, 1 << 44, 1 << 63, (1 << 64) - 4096, 1 << 64]
            .into_iter()
            .flat_map(near)
            .map(|v| v as u64)
            .collect();
    let widths: &[u32] = if cfg!(miri) { &[40, 64] } else { &[0, 11, 12, 13, 40, 44, 52, 63, 64, 200] };
    for &bits in widths {
        let width = if bits < 64 { 1u128 << bits } else { 1 << 64 };
        let limit = width.min(((1 << 32) - 256) << 12);
        for base in &edges {
            for len in &edges {
                let (start, end) = (*base as u128, *base as u128 + *len as u128);
                let usable = (start.next_multiple_of(4096), end.min(limit) & !4095);
                let past = if *len == 0 { 0 } else { end.saturating_sub(limit.max(start)) };
                let past = u64::try_from(past).unwrap_or(u64::MAX);
                match build::<4>(&[Ram(*base, *len)], 12, bits) {
                    Ok(map) => {
                        assert_eq!(pairs(map.free()), [(usable.0 as u64, usable.1 as u64)]);
                        assert_eq!(map.cut(), CutReport { regions: usize::from(past > 0), bytes: past });
                        assert_eq!(map.total_bytes(), (usable.1 - usable.0) as u64);
                    }
                    Err(e) => assert!(e == MmError::NoUsableMemory && usable.0 >= usable.1, "{base:#x} {len:#x}"),
                }
                // The same bytes reserved leave what lies outside them.
                let world = [Ram(0, 1 << 16), Reserved(*base, *len)];
                let Ok(map) = build::<4>(&world, 12, bits) else { continue };
                let inside = |page: u64| *len > 0 && (page as u128) + 4096 > start && (page as u128) < end;
                let want = (0..limit.min(1 << 16) as u64 / 4096).filter(|page| !inside(page * 4096)).count();
                assert_eq!(map.free_bytes(), want as u64 * 4096, "{base:#x} {len:#x} {bits}");
                assert!(map.free().iter().all(|r| !inside(r.start) && !inside(r.end - 4096)));
            }
        }
    }
}

#[test]
fn cut_bytes_saturate() {
    let map = build::<4>(&[Ram(0, 4096), Ram(1 << 50, u64::MAX), Reserved(1 << 51, u64::MAX)], 12, 40).unwrap();
    assert_eq!(map.cut(), CutReport { regions: 2, bytes: u64::MAX });
}

#[test]
fn too_many_regions_is_an_error_and_stays_one() {
    let mut map = BootMap::<2>::new();
    map.add_ram(0, 4096).unwrap();
    map.add_ram(8192, 4096).unwrap();
    map.add_ram(100, 50).unwrap();
    map.add_ram(16384, 0).unwrap();
    assert!(map.finish(12, 40).is_ok());
    assert_eq!(map.add_ram(16384, 1), Err(MmError::TooManyRegions));
    assert_eq!(map.finish(12, 40).unwrap_err(), MmError::TooManyRegions);

    let mut map = BootMap::<2>::new();
    map.add_ram(0, 1 << 20).unwrap();
    map.reserve(0x1000, 1).unwrap();
    map.reserve(0x3000, 1).unwrap();
    assert_eq!(map.reserve(0x5000, 1), Err(MmError::TooManyRegions));
    assert_eq!(map.finish(12, 40).unwrap_err(), MmError::TooManyRegions);
}

#[test]
fn a_split_that_has_no_room_is_an_error() {
    let regions = [Ram(0, 1 << 20), Reserved(0x1000, 1), Reserved(0x3000, 1)];
    assert_eq!(build::<2>(&regions, 12, 40).unwrap_err(), MmError::TooManyRegions);
    assert_eq!(build::<3>(&regions, 12, 40).unwrap().free().len(), 3);

    let mut map = build::<1>(&[Ram(0, 0xa000)], 12, 40).unwrap();
    assert_eq!(map.alloc_top(0x1000, 0x4000, u64::MAX), None, "a tail would be lost");
    assert_eq!(map.free_bytes(), 0xa000);
    assert_eq!(map.alloc_top(0x1000, 0x1000, u64::MAX).unwrap().start, 0x9000);
}

#[test]
fn without_a_free_page_there_is_no_map() {
    for regions in [&[][..], &[Ram(0, 0)], &[Ram(1, 8190)], &[Ram(0, 4096), Reserved(4095, 1)], &[Ram(1 << 45, 8192)]] {
        assert_eq!(build::<4>(regions, 12, 40).unwrap_err(), MmError::NoUsableMemory, "{regions:?}");
    }
    assert_eq!(build::<4>(&[Ram(0, u64::MAX)], 32, 40).unwrap_err(), MmError::Inval);
    assert_eq!(build::<4>(&[Ram(0, u64::MAX)], 31, 64).unwrap().free_bytes(), u64::from(u32::MAX - 255) << 31);
}

#[test]
fn pages_shared_by_two_pieces_of_ram_are_whole() {
    let map = build::<4>(&[Ram(0x1800, 0x800), Ram(0x1000, 0x800), Ram(0x3001, 0x1fff)], 12, 40).unwrap();
    assert_eq!(pairs(map.spans()), [(0x1000, 0x2000), (0x4000, 0x5000)]);
}

#[test]
fn impossible_early_allocations_take_nothing() {
    let mut map = build::<4>(&[Ram(0x10_0000, 0x10_0000)], 12, 40).unwrap();
    let before = map.free().to_vec();
    for (bytes, align, below) in [
        (0, 1, u64::MAX),
        (4096, 0, u64::MAX),
        (4096, 3, u64::MAX),
        (u64::MAX, 1, u64::MAX),
        (0x10_0001, 1, u64::MAX),
        (4096, 1 << 63, u64::MAX),
        (4096, 1, 0x10_0fff),
        (4096, 1, 0),
    ] {
        assert_eq!(map.alloc_top(bytes, align, below), None);
    }
    assert_eq!(map.free(), before);
    assert_eq!(map.alloc_top(1, 1, 0x10_1fff).unwrap().start, 0x10_0000);
}

#[test]
fn display_reads_like_a_firmware_map() {
    let mut map = build::<4>(&[Ram(0, 0x9_fc00), Ram(0x10_0000, 0x70_0000), Reserved(0, 1)], 12, 40).unwrap();
    map.alloc_top(0x1000, 1, u64::MAX).unwrap();
    assert_eq!(
        map.to_string(),
        "[mem 0x0000000000000000-0x0000000000000fff] reserved\n\
         [mem 0x0000000000001000-0x000000000009efff] usable\n\
         [mem 0x0000000000100000-0x00000000007fefff] usable\n\
         [mem 0x00000000007ff000-0x00000000007fffff] reserved\n\
         memory: 7796K/7804K available"
    );
    let map = build::<4>(&[Ram(0x1000, 0x1000), Ram(1 << 40, 7)], 12, 40).unwrap();
    assert!(map.to_string().contains("cut off 7 bytes of 1 regions"));
}
