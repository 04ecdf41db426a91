//! Several single frames in one call.

use super::{MAX_ZONES, ZoneGuard, ZoneKind, Zones};
use crate::addr::Pfn;
use crate::bits::Word;
use crate::frame::{Frame, FrameKind, FrameMap, Head, Region};
use crate::gfp::Gfp;
use crate::platform::RawLock;
use crate::wait::Waiting;

/// The most frames one lock hold takes or gives.
pub const BATCH: usize = 32;
/// The most single frames of those that one lock hold takes, or gives back in a chain.
const ROW: usize = 16;

impl<L: RawLock> Zones<L> {
    /// Fills `room` with single frames from the highest zone the flags allow that has any above its low mark, and then from
    /// lower ones; marks each with `head` and `link`. Returns how many there were. [`ROW`] at most in one lock hold.
    pub fn take_singles(&self, frames: &FrameMap, flags: Gfp, (head, link): (Head, u32), room: &mut [Pfn]) -> usize {
        let kind = ZoneKind::of(flags);
        let mut index = self.entry(kind);
        let mut taken = 0;
        while index < MAX_ZONES && taken < room.len() {
            let mut zone = self.zones[index].lock();
            for region in zone.regions(frames) {
                let records = region.records();
                loop {
                    let left = &mut room[taken..];
                    let most = left.len().min(ROW).min(zone.free.saturating_sub(zone.limit(kind)));
                    if most == 0 {
                        break;
                    }
                    // SAFETY: the zone's lock is held, and this is the only reference.
                    let found = unsafe { region.buddy() }.take_row(&mut left[..most], |pfn| {
                        // SAFETY: the buddy hands out frames of its region only.
                        let frame = unsafe { records.frame_unchecked(pfn) };
                        frame.set_link(link);
                        frame.set_head(head);
                    });
                    zone.free -= found;
                    taken += found;
                    if found == 0 || taken == room.len() {
                        break;
                    }
                    zone.pause();
                }
            }
            drop(zone);
            index = index.wrapping_sub(1);
        }
        taken
    }

    /// Gives single frames back whose record is `head`, one after the other, until one is another zone's or not such
    /// a frame. Returns how many went back. The caller brings at most [`BATCH`]. `hand_over` as for [`give`](Self::give).
    pub fn give_each<'a>(
        &self,
        zone: usize,
        head: Head,
        each: impl Iterator<Item = (&'a Region, &'a Frame, u32)>,
        waiting: &Waiting<L>,
        hand_over: impl FnOnce(ZoneGuard<'_, L>),
    ) -> usize {
        let mut state = self.zones[zone % MAX_ZONES].lock();
        let mut given = 0;
        // Neighbours in a word go back together.
        let mut row: Option<(&Region, u32, Word)> = None;
        let tell = |row: Option<(&Region, u32, Word)>| {
            if let Some((region, first, bits)) = row {
                // SAFETY: the zone's lock is held, and this is the only reference.
                unsafe { region.buddy() }.give_row(first, bits);
            }
        };
        for (region, frame, pfn) in each {
            if region.zone() != zone || frame.head() != head {
                break;
            }
            frame.set_head(Head::new(FrameKind::Tail, 0, 0));
            // SAFETY: as above.
            let (first, bit) = unsafe { region.buddy() }.row_of(pfn);
            row = match row {
                Some((same, at, bits)) if at == first && core::ptr::eq(same, region) => Some((same, at, bits | bit)),
                other => {
                    tell(other);
                    Some((region, first, bit))
                }
            };
            given += 1;
        }
        tell(row);
        state.free += given;
        if waiting.is_any() {
            hand_over(state);
        }
        given
    }

    /// Gives single frames back whose record is `head` and that are chained through their links, from `first` on, as long
    /// as they are `region`'s. Returns where the chain goes on: at `first` when that is no such frame. [`ROW`] at most in one
    /// lock hold. `hand_over` as for [`give`](Self::give).
    pub fn give_chain(
        &self,
        region: &Region,
        first: u32,
        head: Head,
        waiting: &Waiting<L>,
        hand_over: impl FnOnce(ZoneGuard<'_, L>),
    ) -> u32 {
        let mut state = self.zones[region.zone() % MAX_ZONES].lock();
        let records = region.records();
        let mut pfn = first;
        loop {
            // SAFETY: the zone's lock is held, and this is the only reference.
            let buddy = unsafe { region.buddy() };
            let (base, _) = buddy.row_of(pfn);
            // The frames of the word that are the region's.
            let (low, span) = records.part(base, Word::BITS);
            let (mut row, mut left) = (0, ROW);
            while left != 0 {
                let bit = pfn.wrapping_sub(low);
                if bit >= span {
                    break;
                }
                // SAFETY: just seen to be one of the region's.
                let frame = unsafe { records.frame_unchecked(pfn) };
                if frame.head() != head {
                    break;
                }
                pfn = frame.link();
                frame.set_head(Head::new(FrameKind::Tail, 0, 0));
                row |= 1 << bit;
                left -= 1;
            }
            if left == ROW {
                return pfn;
            }
            buddy.give_row(base, row << (low - base));
            state.free += ROW - left;
            if waiting.is_any() {
                hand_over(state);
                return pfn;
            }
            if records.frame(pfn).is_none() {
                return pfn;
            }
            state.pause();
        }
    }
}
