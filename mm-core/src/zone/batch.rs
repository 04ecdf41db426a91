//! Several single frames in one lock hold.

use super::{MAX_ZONES, ZoneGuard, ZoneKind, Zones};
use crate::buddy::End;
use crate::frame::{Frame, FrameKind, FrameMap, Head, Region};
use crate::gfp::Gfp;
use crate::platform::RawLock;
use crate::wait::Waiting;

/// The most frames one lock hold takes or gives.
pub const BATCH: usize = 32;

impl<L: RawLock> Zones<L> {
    /// Takes up to `most` single frames from the highest zone the flags allow that has any above its low mark; marks each with
    /// `head` and `link` and tells `found`. Returns how many there were. The caller asks for at most [`BATCH`].
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
            let limit = zone.limit[kind as usize];
            for region in frames.regions().get(zone.first..zone.first + zone.count).unwrap_or_default() {
                // SAFETY: the zone's lock is held, and this is the only reference.
                let buddy = unsafe { region.buddy() };
                while taken < most && zone.free > limit {
                    let Some(pfn) = buddy.take(1, 0, End::Low) else { break };
                    // SAFETY: the buddy hands out frames of its region only.
                    let frame = unsafe { region.frame_unchecked(pfn as usize) };
                    frame.set_link(link);
                    frame.set_head(head);
                    zone.free -= 1;
                    taken += 1;
                    found(pfn);
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
        for (region, frame, pfn) in each {
            if region.zone() != zone || frame.head() != head {
                break;
            }
            frame.set_head(Head::new(FrameKind::Tail, 0, 0));
            // SAFETY: the zone's lock is held, and this is the only reference.
            unsafe { region.buddy() }.give(pfn, 1);
            state.free += 1;
            given += 1;
        }
        if waiting.is_any() {
            hand_over(state);
        }
        given
    }
}
