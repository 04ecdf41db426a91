//! "Would this fit?": answers that take nothing.

use super::MAX_ZONES;
use super::ZoneKind;
use super::Zones;
use crate::backend::Backend;
use crate::frame::FrameMap;
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::{Platform, RawLock};

impl<L: RawLock> Zones<L> {
    /// See [`Mm::largest_block`].
    #[cold]
    #[inline(never)]
    pub fn largest_block(&self, frames: &FrameMap, flags: Gfp) -> Option<usize> {
        let kind = ZoneKind::of(flags);
        let mut index = self.entry(kind);
        let mut largest = None;
        while index < MAX_ZONES {
            let mut zone = self.zone(index).lock();
            let spare = zone.free.saturating_sub(zone.limit_at(kind, flags.depth()));
            if spare != 0 {
                for region in zone.regions(frames) {
                    // SAFETY: the zone's lock is held, and this is the only reference.
                    let order = unsafe { region.buddy() }.largest();
                    largest = largest.max(order.map(|order| order.min(spare.ilog2() as usize)));
                    zone.pause();
                }
            }
            drop(zone);
            index = index.wrapping_sub(1);
        }
        largest
    }
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// The largest order of which a request with these flags would find a block now; `None` when not even a page.
    ///
    /// It counts what the watermarks leave to such requests, without reclaim. Out of date when it returns, unless
    /// nobody else allocates.
    ///
    /// Context: any. Cost: O(orders) for each run of RAM, under the lock of its zone.
    pub fn largest_block(&self, flags: Gfp) -> Option<usize> {
        self.memory.zones.largest_block(&self.memory.frames, flags)
    }

    /// How much of the free memory is of no use to requests of `order`, because its blocks are smaller: from 0, none,
    /// to 1000, all, as Linux's `unusable_free_index` has it. 0 when nothing is free.
    ///
    /// Context: any. Cost: a diagnostic; walks the bitmaps, each zone under its lock, and is not bounded.
    pub fn unusable_index(&self, order: usize) -> u32 {
        let info = self.zoneinfo();
        let free: usize = info.zones().iter().map(|zone| zone.free).sum();
        let fits = |zone: &crate::ZoneInfo| -> usize {
            zone.blocks.iter().enumerate().skip(order).map(|(order, blocks)| blocks << order).sum()
        };
        let usable: usize = info.zones().iter().map(fits).sum();
        // Frames have numbers of 32 bits, so the product fits.
        ((free - usable.min(free)) as u64 * 1000).checked_div(free as u64).unwrap_or(0) as u32
    }
}
