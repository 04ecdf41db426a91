//! Boot maps of any regions against a model that asks each byte.

use crate::number::Place;
use arbitrary::{Arbitrary, Unstructured};
use mm_core::{BootMap, MmError, PhysRange};

/// 16-byte pages in a world of 512 bytes: every boundary is near every other.
const SHIFT: u32 = 4;
const BITS: u32 = 9;
/// Regions that the map has room for: fewer than a list may have.
const ROOM: usize = 12;
const MOST: usize = 20;

#[derive(Debug, Arbitrary)]
struct Region {
    ram: bool,
    base: Place,
    len: Place,
}

impl Region {
    fn holds(&self, byte: u64) -> bool {
        let (base, byte) = (u128::from(self.base.0), u128::from(byte));
        (base..base + u128::from(self.len.0)).contains(&byte)
    }
}

/// Adds the regions to a map, and holds what comes of it against what each byte is.
pub fn boot_map(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let mut regions: Vec<Region> = Vec::new();
    while !bytes.is_empty() && regions.len() < MOST {
        let Ok(region) = bytes.arbitrary() else { break };
        regions.push(region);
    }
    let is = |byte: u64, ram: bool| regions.iter().any(|region| region.ram == ram && region.holds(byte));
    let pages = |good: &dyn Fn(u64) -> bool| -> Vec<bool> {
        (0..1 << (BITS - SHIFT)).map(|page: u64| (page << SHIFT..(page + 1) << SHIFT).all(good)).collect()
    };
    let spans = pages(&|byte| is(byte, true));
    let free = pages(&|byte| is(byte, true) && !is(byte, false));

    let mut map = BootMap::<ROOM>::new();
    let added = regions.iter().try_for_each(|&Region { ram, base, len }| match ram {
        true => map.add_ram(base.0, len.0),
        false => map.reserve(base.0, len.0),
    });
    match added.and_then(|()| map.finish(SHIFT, BITS)) {
        Ok(mut map) => {
            assert_eq!(covered(map.spans()), spans);
            assert_eq!(covered(map.free()), free);
            assert_eq!(map.free_bytes(), (free.iter().filter(|page| **page).count() as u64) << SHIFT);
            early(&mut map, free);
        }
        Err(MmError::NoUsableMemory) => assert!(!free.contains(&true)),
        Err(MmError::TooManyRegions) => assert!(regions.len() > ROOM || runs(&free) > ROOM),
        Err(error) => panic!("{error}"),
    }
}

/// Which pages the ranges cover; they are in order, and do not touch.
fn covered(ranges: &[PhysRange]) -> Vec<bool> {
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
    let mut pages = vec![false; 1 << (BITS - SHIFT)];
    for range in ranges {
        assert!(range.start < range.end && (range.start | range.end).is_multiple_of(1 << SHIFT));
        pages[(range.start >> SHIFT) as usize..(range.end >> SHIFT) as usize].fill(true);
    }
    pages
}

fn runs(pages: &[bool]) -> usize {
    pages.chunk_by(|a, b| a == b).filter(|run| run[0]).count()
}

/// Takes all of it again from the top, in pieces of growing size: each is free, and none is given twice.
fn early<const N: usize>(map: &mut mm_core::RamMap<N>, mut free: Vec<bool>) {
    for (bytes, align) in [(1, 1), (16, 32), (24, 16), (48, 64), (100, 16), (16, 16)].into_iter().cycle().take(64) {
        let Some(got) = map.alloc_top(bytes, align, u64::MAX) else { continue };
        assert!(got.start.is_multiple_of(align) && got.end - got.start >= bytes);
        for page in &mut free[(got.start >> SHIFT) as usize..(got.end >> SHIFT) as usize] {
            assert!(core::mem::replace(page, false), "{got:?} is not free");
        }
    }
    assert_eq!(covered(map.free()), free);
}
