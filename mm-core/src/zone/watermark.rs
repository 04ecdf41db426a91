//! Watermarks: how many free frames a request must leave behind, by zone, as one pure function.
//!
//! Every zone has three marks, `min <= low <= high`, in frames:
//!
//! | mark | rule |
//! |---|---|
//! | `min` | one frame in [`divisor`]; HIGHMEM: one in 1024, 32 to 128; never more than one in 32 |
//! | `low` | `min` + the larger of `min / 4` and one frame in 1000 |
//! | `high` | `low` + the same again |
//!
//! Linux 6.1 keeps `4 * sqrt(KiB of low memory)` KiB free and shares it over its zones by size
//! (`init_per_zone_wmark_min`, `__setup_per_zone_wmarks`); one frame in `sqrt(KiB)` is a quarter of that. Linux pays
//! with the rest for a background reclaimer that runs late and for lists per CPU, which are not here. The bound of one
//! frame in 32 is ours: it lets a board of 64 pages keep two of them, one of 32 keep one, and one with fewer keep none,
//! where Linux's least, 128 KiB, would be all there is.
//!
//! What a request must leave is the floor of its [`Depth`] plus the zone's reserve against its kind: a request that
//! could have had frames of higher zones leaves one frame here for each [`Tuning::reserve_ratio`] of theirs
//! (`setup_per_zone_lowmem_reserve`). The reserve holds at every depth.

use super::{MAX_ZONES, ZoneKind};
use core::time::Duration;

/// How a board's zones are watched over; [`Tuning::DEFAULT`] suits most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// Bytes to keep from ordinary requests in all zones below HIGHMEM, shared over them by size, at most half of each.
    /// `None` derives it from their size; `Some(0)` keeps nothing, and there is no atomic reserve then.
    pub min_free: Option<u64>,
    /// By the number of a [`ZoneKind`]: a zone of this kind keeps one frame for each so many frames of higher zones
    /// from requests that could have had those. 0 keeps none. The default is Linux's: 256, 256, 32, 0.
    pub reserve_ratio: [usize; 4],
    /// How long a request that may wait waits at most, when its call names no deadline.
    pub max_wait: Duration,
}

impl Tuning {
    /// What suits most boards.
    pub const DEFAULT: Tuning =
        Tuning { min_free: None, reserve_ratio: [256, 256, 32, 0], max_wait: Duration::from_secs(1) };
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning::DEFAULT
    }
}

/// How far down a request may take a zone: to `low`, or to so many eighths of `min`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// To `low`: the first pass of every request.
    Low = 9,
    /// To `min`: the slow path of every request.
    Min = 8,
    /// To three eighths of `min`: the slow path of `__GFP_HIGH`.
    Atomic = 3,
    /// To the last frame: what the manager itself needs to finish a `__GFP_HIGH` request (a page of descriptors, a
    /// page table), so that the request is not refused for want of 32 bytes.
    Own = 0,
}

/// The marks of a zone, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Marks {
    /// What ordinary requests leave in any case.
    pub min: usize,
    /// What every request leaves while it need not try harder.
    pub low: usize,
    /// From here on a background reclaimer, as Linux's kswapd, would rest. None is here: nothing looks at this mark, and
    /// `zoneinfo` tells it for those who watch how far above `low` a zone is.
    pub high: usize,
    /// By the number of a [`ZoneKind`]: what requests for that kind leave on top.
    pub reserve: [usize; 4],
}

impl Marks {
    /// No marks.
    pub const NONE: Marks = Marks { min: 0, low: 0, high: 0, reserve: [0; 4] };

    /// Free frames a request for `kind` at `depth` must leave.
    pub const fn limit(&self, kind: ZoneKind, depth: Depth) -> usize {
        self.floor(depth).saturating_add(self.reserve[kind as usize])
    }

    /// Free frames every request at `depth` must leave.
    #[inline(always)]
    pub(super) const fn floor(&self, depth: Depth) -> usize {
        match depth {
            Depth::Low => self.low,
            // By parts, so that no product overflows.
            eighths => self.min / 8 * eighths as usize + self.min % 8 * eighths as usize / 8,
        }
    }
}

/// One frame in how many is `min`, for `lowmem` frames below HIGHMEM.
pub const fn divisor(lowmem: usize, page_shift: u32, tuning: &Tuning) -> usize {
    match tuning.min_free {
        None => {
            let kib = if page_shift >= 10 {
                lowmem.saturating_mul(1 << (page_shift - 10))
            } else {
                lowmem >> (10 - page_shift)
            };
            let root = isqrt(kib);
            if root < SMALLEST_SHARE { SMALLEST_SHARE } else { root }
        }
        Some(bytes) => {
            let frames = bytes >> page_shift;
            let frames = if frames > usize::MAX as u64 { usize::MAX } else { frames as usize };
            match frames {
                0 => usize::MAX,
                // Rounded up: never more than was asked for.
                _ if lowmem / 2 > frames => lowmem.div_ceil(frames),
                _ => 2,
            }
        }
    }
}

/// At most one frame in so many is kept by default.
const SMALLEST_SHARE: usize = 32;

/// The marks of `zones`, given as kind and managed frames, lowest first.
///
/// Pure, total, and the only place where marks come from. At most [`MAX_ZONES`] zones count.
pub fn marks(zones: &[(ZoneKind, usize)], page_shift: u32, tuning: &Tuning) -> [Marks; MAX_ZONES] {
    let mut all = [Marks::NONE; MAX_ZONES];
    let zones = &zones[..zones.len().min(MAX_ZONES)];
    let low = |zone: &&(ZoneKind, usize)| zone.0 != ZoneKind::HighMem;
    let lowmem = zones.iter().filter(low).fold(0usize, |sum, zone| sum.saturating_add(zone.1));
    let divisor = divisor(lowmem, page_shift, tuning);
    for (at, &(kind, managed)) in zones.iter().enumerate() {
        let marks = &mut all[at];
        marks.min = match kind {
            ZoneKind::HighMem => (managed / 1024).clamp(32, 128).min(managed / SMALLEST_SHARE),
            _ => managed / divisor,
        };
        // Without a `min` there is nothing to keep a distance from.
        let step = if marks.min == 0 { 0 } else { (marks.min / 4).max(managed / 1000) };
        marks.low = marks.min + step;
        marks.high = marks.low + step;
        let ratio = tuning.reserve_ratio[kind as usize];
        let mut above = 0usize;
        // A request for a kind reaches all zones up to it, listed or not.
        for wanted in kind as usize + 1..marks.reserve.len() {
            let listed = zones[at + 1..].iter().find(|zone| zone.0 as usize == wanted);
            above = above.saturating_add(listed.map_or(0, |zone| zone.1));
            marks.reserve[wanted] = above.checked_div(ratio).unwrap_or(0);
        }
    }
    all
}

/// The square root, rounded down. (Newton's method from above; the standard library's needs a table.)
const fn isqrt(n: usize) -> usize {
    if n < 2 {
        return n;
    }
    let mut root = 1 << (n.ilog2() / 2 + 1);
    loop {
        let next = (root + n / root) / 2;
        if next >= root {
            return root;
        }
        root = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const KINDS: [ZoneKind; 4] = [ZoneKind::Dma, ZoneKind::Dma32, ZoneKind::Normal, ZoneKind::HighMem];
    const DEPTHS: [Depth; 4] = [Depth::Low, Depth::Min, Depth::Atomic, Depth::Own];

    /// What must hold of any marks of a zone with `managed` frames.
    fn sane(marks: &Marks, managed: usize) {
        assert!(marks.min <= marks.low && marks.low <= marks.high, "{marks:?}");
        assert!(marks.low <= managed, "{marks:?} of {managed}");
        for kind in KINDS {
            let limits = DEPTHS.map(|depth| marks.limit(kind, depth));
            assert!(limits.is_sorted_by(|a, b| a >= b), "a deeper reach leaves more: {limits:?}");
            assert_eq!(limits[3], marks.reserve[kind as usize]);
        }
        assert!(marks.reserve.is_sorted(), "a request with more choice has a smaller reserve to leave: {marks:?}");
    }

    /// Sizes that matter: all small ones, and those around every power of two.
    fn sizes() -> impl Iterator<Item = usize> {
        let edges = (8..usize::BITS).flat_map(|shift| {
            let power = 1usize << shift;
            [power - 1, power, power + 1]
        });
        (0..=200).chain(edges).chain([usize::MAX - 1, usize::MAX])
    }

    #[test]
    fn roots_are_exact() {
        for n in (0..100_000).chain(sizes()) {
            let root = isqrt(n);
            assert!(root.checked_mul(root).is_some_and(|square| square <= n), "{n}");
            assert!((root + 1).checked_mul(root + 1).is_none_or(|square| square > n), "{n}");
        }
    }

    #[test]
    fn every_zone_of_any_size_has_sane_marks() {
        let step = if cfg!(miri) { 37 } else { 1 };
        let all: Vec<usize> = sizes().step_by(step).collect();
        for &first in &all {
            for shift in 8..=12 {
                for min_free in [None, Some(0), Some(1), Some(1 << 12), Some(1 << 30), Some(u64::MAX)] {
                    let tuning = Tuning { min_free, ..Tuning::DEFAULT };
                    sane(&marks(&[(ZoneKind::Normal, first)], shift, &tuning)[0], first);
                    for second in [0, 1, 31, 4096, usize::MAX] {
                        let zones = [(ZoneKind::Dma, first), (ZoneKind::Normal, second), (ZoneKind::HighMem, first)];
                        let got = marks(&zones, shift, &tuning);
                        for (marks, zone) in got.iter().zip(zones) {
                            sane(marks, zone.1);
                        }
                        assert_eq!(got[2].reserve, [0; 4], "nothing is above HIGHMEM");
                        assert_eq!(got[0].reserve[0], 0, "the lowest kind has no other choice");
                        assert_eq!(got[0].reserve[2], second / 256);
                        assert_eq!(got[0].reserve[3], second.saturating_add(first) / 256);
                    }
                }
            }
        }
    }

    #[test]
    fn a_small_board_keeps_its_memory() {
        for managed in 0..=200 {
            for shift in 8..=12 {
                let marks = marks(&[(ZoneKind::Normal, managed)], shift, &Tuning::DEFAULT)[0];
                assert!(marks.min <= managed / 32 && marks.low <= managed / 32 + managed / 128, "{managed}: {marks:?}");
                assert!(managed >= 32 || marks == Marks::NONE);
            }
        }
        // 64 KiB in pages of 1 KiB; half of its two pages is for interrupts only by being the second half of `min`.
        let tiny = marks(&[(ZoneKind::Normal, 64)], 10, &Tuning::DEFAULT)[0];
        assert_eq!((tiny.min, tiny.low, tiny.limit(ZoneKind::Normal, Depth::Atomic)), (2, 2, 0));
    }

    #[test]
    fn known_machines_get_what_the_table_says() {
        let of = |mib: usize| marks(&[(ZoneKind::Normal, mib << 8)], 12, &Tuning::DEFAULT)[0];
        assert_eq!((of(16).min, of(16).low, of(16).high), (32, 40, 48));
        assert_eq!((of(1024).min, of(1024).low), (256, 256 + 262));
        assert_eq!(of(16).limit(ZoneKind::Normal, Depth::Atomic), 12);
        // A PC of 256 MiB and one with HIGHMEM.
        let pc = marks(&[(ZoneKind::Dma, 4000), (ZoneKind::Dma32, 61440)], 12, &Tuning::DEFAULT);
        assert_eq!((pc[0].min, pc[1].min), (4000 / 511, 61440 / 511));
        assert_eq!(pc[0].reserve, [0, 240, 240, 240]);
        assert_eq!(pc[1].reserve, [0; 4]);
        let big = marks(&[(ZoneKind::Normal, 229_376), (ZoneKind::HighMem, 294_912)], 12, &Tuning::DEFAULT);
        assert_eq!((big[1].min, big[0].reserve), (128, [0, 0, 0, 9216]));
    }

    #[test]
    fn a_board_may_name_its_own_reserve() {
        let tuned = |bytes, frames| {
            let tuning = Tuning { min_free: Some(bytes), ..Tuning::DEFAULT };
            marks(&[(ZoneKind::Normal, frames)], 12, &tuning)[0].min
        };
        assert_eq!(tuned(0, 4096), 0);
        assert_eq!(tuned(64 << 12, 4096), 64);
        assert_eq!(tuned(u64::MAX, 4096), 2048, "at most half");
        for frames in 1..=200usize {
            for wanted in 1..=200 {
                assert!(tuned((wanted as u64) << 12, frames) <= wanted.min(frames / 2), "{wanted} of {frames}");
            }
        }
        let tuning = Tuning { reserve_ratio: [0; 4], ..Tuning::DEFAULT };
        assert_eq!(marks(&[(ZoneKind::Dma, 100), (ZoneKind::Normal, 100_000)], 12, &tuning)[0].reserve, [0; 4]);
    }

    #[test]
    fn three_eighths_at_every_small_min() {
        for min in (0..=200).chain([usize::MAX]) {
            let marks = Marks { min, ..Marks::NONE };
            assert_eq!(marks.limit(ZoneKind::Normal, Depth::Atomic) as u128, min as u128 * 3 / 8);
        }
    }
}
