//! The pages a caller gives to be mapped: which may be, and which are an area's.

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::MmError;
use crate::frame::FrameKind;
use crate::gfp::GFP_KERNEL;
use crate::manager::Mm;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;

/// Whose the pages are that may be mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// The caller's.
    Plain,
    /// One of them at least is an area's of `vmalloc`, which may be made executable at any time.
    OfArea,
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Each page is RAM that this manager gave out, and is there once.
    ///
    /// # Errors
    /// `Inval` for any other; `Alloc` when there is no memory for a sort.
    #[inline(always)]
    pub(super) fn check_pages(&self, pages: &[Pfn]) -> Result<Given, MmError> {
        if are_heads(&self.memory, pages) { Ok(Given::Plain) } else { self.check_blocks(pages) }
    }

    /// [`check_pages`](Self::check_pages) of any pages: one look at each block, or frame of a slab.
    #[inline(never)]
    fn check_blocks(&self, pages: &[Pfn]) -> Result<Given, MmError> {
        let (mut given, mut ascending) = (Given::Plain, true);
        let (mut last, mut left) = (None, 0);
        for &pfn in pages {
            ascending &= last < Some(pfn);
            let follows = last.is_some_and(|last: Pfn| last.0.checked_add(1) == Some(pfn.0));
            last = Some(pfn);
            if follows && left != 0 {
                left -= 1;
                continue;
            }
            let (kind, pages) = self.memory.block_around(pfn).ok_or(MmError::Inval)?;
            left = pages - 1;
            match kind {
                FrameKind::Pages
                | FrameKind::Large
                | FrameKind::Slab
                | FrameKind::DmaSlab
                | FrameKind::CacheSlab
                | FrameKind::Deferred => {}
                FrameKind::Mapped => given = Given::OfArea,
                _ => return Err(MmError::Inval),
            }
        }
        if !ascending {
            self.check_order(pages)?;
        }
        Ok(given)
    }

    /// Sorts a copy of the numbers, unless a look at their runs is enough, to see whether one is there twice.
    #[cold]
    fn check_order(&self, pages: &[Pfn]) -> Result<(), MmError> {
        if are_apart(pages) {
            return Ok(());
        }
        let bytes = core::mem::size_of_val(pages);
        let block = self.take_block(bytes.div_ceil(B::PAGE_SIZE), GFP_KERNEL, FrameKind::Held, NIL)?;
        let copy = self.memory.frame_ptr(block).cast::<Pfn>();
        // SAFETY: the block is low memory of that length, and nobody else's.
        let copy = unsafe {
            copy.copy_from_nonoverlapping(pages.as_ptr(), pages.len());
            core::slice::from_raw_parts_mut(copy, pages.len())
        };
        copy.sort_unstable();
        let twice = copy.windows(2).any(|two| two[0] == two[1]);
        let _ = self.memory.free_block(block.0 as usize, FrameKind::Held, None);
        if twice { Err(MmError::Inval) } else { Ok(()) }
    }
}

/// Pages looked at in a row.
const ROW: usize = 8;
/// Ascending runs of pages at most, before they are sorted.
const RUNS: usize = 8;

/// Ascending runs of pages, no two of which share one.
struct Reaches<'a>(heapless::Vec<&'a [Pfn], RUNS>);

impl<'a> Reaches<'a> {
    const fn new() -> Self {
        Reaches(heapless::Vec::new())
    }

    /// Adds a run; false when it is mixed with another, or there are too many.
    fn add(&mut self, run: &'a [Pfn]) -> bool {
        let is_apart = |other: &&[Pfn]| is_beside(run, other) || is_in_gap(run, other) || is_in_gap(other, run);
        self.0.iter().all(is_apart) && self.0.push(run).is_ok()
    }
}

/// Whether an ascending run ends before another begins, or the other way round.
fn is_beside(run: &[Pfn], other: &[Pfn]) -> bool {
    run.last() < other.first() || other.last() < run.first()
}

/// Whether an ascending run lies in one gap of another, between its first and its last page: pages taken one by one come
/// from where the last was first, and then from both sides of that.
fn is_in_gap(run: &[Pfn], other: &[Pfn]) -> bool {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return true };
    if other.first() >= Some(first) || other.last() <= Some(last) {
        return false;
    }
    let behind = other.partition_point(|pfn| pfn < first);
    other.get(behind).is_some_and(|pfn| pfn > last)
}

/// True when the pages are a few ascending runs that are not mixed, as they are when they were taken one by one: then none is
/// there twice.
fn are_apart(pages: &[Pfn]) -> bool {
    let mut reaches = Reaches::new();
    pages.chunk_by(|one, next| one < next).all(|run| reaches.add(run))
}

/// True for what nearly all callers bring: first pages of blocks that a caller has, in a few ascending runs.
#[inline(always)]
fn are_heads<P: Platform, B: Backend>(memory: &Memory<P, B>, pages: &[Pfn]) -> bool {
    let heads = leading_heads(memory, pages);
    heads == pages.len() || are_heads_in_runs(memory, pages, heads)
}

/// Goes on where the first run ended.
#[cold]
#[inline(never)]
fn are_heads_in_runs<P: Platform, B: Backend>(memory: &Memory<P, B>, mut pages: &[Pfn], mut heads: usize) -> bool {
    let mut reaches = Reaches::new();
    while let Some((run, rest)) = pages.split_at_checked(heads) {
        if run.is_empty() {
            return pages.is_empty();
        }
        if !reaches.add(run) {
            return false;
        }
        pages = rest;
        heads = leading_heads(memory, pages);
    }
    false
}

/// How many pages from the first on ascend and are of one region; 0 unless a caller has each of them.
#[inline(always)]
fn leading_heads<P: Platform, B: Backend>(memory: &Memory<P, B>, pages: &[Pfn]) -> usize {
    let Some(first) = pages.first() else { return 0 };
    let Some((region, frame)) = memory.frames.find(first.0 as usize) else { return 0 };
    let (records, last) = (region.records(), region.end() - 1);
    // What all heads have in common is looked at once, at the end.
    let mut common = frame.head();
    let mut look = |pfn: u32| {
        // SAFETY: from the first on the frames ascend up to here, and here they are not past the last: all lie between two
        // frames of the region.
        common = common.both(unsafe { records.frame_unchecked(pfn) }.head());
    };
    // Frame 0, before which there is none, takes the long way.
    let mut before = first.0.wrapping_sub(1);
    let mut rest = pages;
    while let Some((row, behind)) = rest.split_first_chunk::<ROW>() {
        let mut at = before;
        if !row.iter().all(|pfn| core::mem::replace(&mut at, pfn.0) < pfn.0) || at > last {
            break;
        }
        row.iter().for_each(|pfn| look(pfn.0));
        (before, rest) = (at, behind);
    }
    while let [pfn, behind @ ..] = rest
        && before < pfn.0
        && pfn.0 <= last
    {
        look(pfn.0);
        (before, rest) = (pfn.0, behind);
    }
    if common.is_callers() { pages.len() - rest.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{RUNS, are_apart};
    use crate::addr::Pfn;
    use std::vec::Vec;

    fn apart(pages: &[u32]) -> bool {
        are_apart(&pages.iter().copied().map(Pfn).collect::<Vec<_>>())
    }

    #[test]
    fn runs_before_behind_and_in_gaps_of_others_are_apart() {
        assert!(apart(&[]) && apart(&[7]) && apart(&[5, 6, 1, 2, 9]));
        // The first lies in a gap of the second, the second in one of the first.
        assert!(apart(&[20, 21, 22, 10, 11, 30, 31]));
        assert!(apart(&[10, 11, 30, 31, 20, 21, 22]));
        assert!(apart(&[40, 20, 21, 10, 30, 50]));
    }

    #[test]
    fn a_page_that_is_there_twice_is_never_overlooked() {
        for pages in [&[3, 3][..], &[20, 21, 22, 10, 22, 30], &[10, 20, 30, 20, 25], &[10, 30, 9, 10], &[5, 6, 7, 1, 7]]
        {
            assert!(!apart(pages), "{pages:?}");
        }
        // All lists of five small numbers: whenever they are said to be apart, none is there twice.
        let mut seen = 0;
        for code in 0..6u32.pow(5) {
            let pages: Vec<u32> = (0..5).map(|place| code / 6u32.pow(place) % 6).collect();
            if apart(&pages) {
                seen += 1;
                let mut sorted = pages.clone();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len(), 5, "{pages:?}");
            }
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn more_runs_than_are_remembered_are_left_to_a_sort() {
        let falling: Vec<u32> = (0..=RUNS as u32).rev().collect();
        assert!(apart(&falling[1..]) && !apart(&falling));
    }
}
