//! Several single frames in one lock hold.

use super::{MAX_ZONES, ZoneGuard, ZoneKind, Zones};
use crate::bits::{Word, lowest};
use crate::frame::{Frame, FrameKind, FrameMap, Head, Region};
use crate::gfp::Gfp;
use crate::platform::RawLock;
use crate::wait::Waiting;

/// The most frames one lock hold takes or gives.
pub const BATCH: usize = 32;

impl<L: RawLock> Zones<L> {
    /// Takes up to `most` single frames from the highest zone the flags allow that has any above its low mark, all of one word
    /// of its bitmap; marks each with `head` and `link` and tells `found`. Returns how many there were, which may be fewer
    /// than the zone has. The caller asks for at most [`BATCH`].
    pub fn take_each(
        &self,
        frames: &FrameMap,
        flags: Gfp,
        (head, link): (Head, u32),
        most: usize,
        mut found: impl FnMut(u32),
    ) -> usize {
        let kind = ZoneKind::of(flags);
        let mut index = self.entry(kind);
        let mut taken = 0;
        while index < MAX_ZONES && taken == 0 {
            let mut zone = self.zones[index].lock();
            let limit = zone.limit(kind);
            for region in zone.regions(frames) {
                let most = most.min(zone.free.saturating_sub(limit));
                // SAFETY: the zone's lock is held, and this is the only reference.
                let row = if most == 0 { None } else { unsafe { region.buddy() }.take_row(most) };
                let Some((first, mut row)) = row else { continue };
                let records = region.records();
                while row != 0 {
                    let pfn = first + lowest(row) as u32;
                    row &= row - 1;
                    // SAFETY: the buddy hands out frames of its region only.
                    let frame = unsafe { records.frame_unchecked(pfn) };
                    frame.set_link(link);
                    frame.set_head(head);
                    taken += 1;
                    found(pfn);
                }
                zone.free -= taken;
                break;
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
    /// as they are `region`'s and of one word of its bitmap, and at most `most`. Returns where the chain goes on: at `first`
    /// when that is no such frame. `hand_over` as for [`give`](Self::give).
    pub fn give_chain(
        &self,
        region: &Region,
        first: u32,
        head: Head,
        most: usize,
        waiting: &Waiting<L>,
        hand_over: impl FnOnce(ZoneGuard<'_, L>),
    ) -> u32 {
        let mut state = self.zones[region.zone() % MAX_ZONES].lock();
        // SAFETY: the zone's lock is held, and this is the only reference.
        let buddy = unsafe { region.buddy() };
        let (base, _) = buddy.row_of(first);
        let (mut pfn, mut row, mut given) = (first, 0, 0);
        let records = region.records();
        while given < most {
            let bit = pfn.wrapping_sub(base);
            let frame = if bit < Word::BITS { records.frame(pfn) } else { None };
            let Some(frame) = frame.filter(|frame| frame.head() == head) else { break };
            pfn = frame.link();
            frame.set_head(Head::new(FrameKind::Tail, 0, 0));
            row |= 1 << bit;
            given += 1;
        }
        if given != 0 {
            buddy.give_row(base, row);
        }
        state.free += given;
        if waiting.is_any() {
            hand_over(state);
        }
        pfn
    }
}
