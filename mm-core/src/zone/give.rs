//! Giving a block back, under its zone's lock.

use super::{ZoneGuard, Zones};
use crate::bits::Word;
use crate::error::FreeError;
use crate::frame::{Frame, FrameKind, Head, Region, Single};
use crate::platform::RawLock;
use crate::wait::Waiting;

impl<L: RawLock> Zones<L> {
    /// Gives a single frame back if its record is `head`; false when it is not. When its word is not the open one, or
    /// somebody waits, for whose sake no word is quiet, `edge` goes on with the zone still locked: by
    /// [`retell`](Self::retell) and serving him.
    #[inline(always)]
    pub fn give_single(&self, single: Single<'_>, head: Head, edge: impl FnOnce(L::Token, &Region, *mut Word)) -> bool {
        // SAFETY: the offset of the frame's zone.
        let mut zone = unsafe { self.zone_at(single.zone()) }.lock();
        let frame = single.frame();
        if frame.head() != head {
            return false;
        }
        frame.set_head(Head::new(FrameKind::Tail, 0, 0));
        zone.free += 1;
        let (region, word) = (single.region(), single.word());
        // SAFETY: a word of the region's buddy, whose zone's lock is held.
        unsafe { *word |= 1 << single.bit() };
        // SAFETY: as above, and this is the only reference.
        if !unsafe { region.buddy() }.is_quiet(word) {
            edge(zone.suspend(), region, word);
        }
        true
    }

    /// Goes on where [`give_single`](Self::give_single) left off, when nobody waits: done if the buddy is content.
    ///
    /// # Errors
    /// The zone's section, which is still open: the buddy is to be [told](Self::retell).
    ///
    /// # Safety
    /// The arguments are those of `edge`.
    #[inline(always)]
    pub unsafe fn settle(&self, token: L::Token, region: &Region, word: *mut Word) -> Result<(), L::Token> {
        // SAFETY: `give_single` locked this zone, and left its section to the caller.
        let zone = unsafe { self.zone(region.zone()).resume(token) };
        // SAFETY: the zone's lock is held, and this is the only reference; the word is of this region.
        if unsafe { region.buddy().settle(word) } { Ok(()) } else { Err(zone.suspend()) }
    }

    /// Goes on where [`give_single`](Self::give_single) left off: tells the buddy, if the word is not the open one.
    ///
    /// # Safety
    /// The arguments are those of `edge`.
    #[inline(always)]
    pub unsafe fn retell<'z>(&'z self, token: L::Token, region: &Region, word: *mut Word) -> ZoneGuard<'z, L> {
        // SAFETY: `give_single` locked this zone, and left its section to the caller.
        let zone = unsafe { self.zone(region.zone()).resume(token) };
        // SAFETY: the zone's lock is held, and this is the only reference; the word is of this region.
        unsafe {
            if !region.buddy().is_open(word) {
                region.buddy().retell(word);
            }
        }
        zone
    }

    /// Gives a block of `pages` frames back if its record is `head`; false when it is not. `hand_over` as for
    /// [`give`](Self::give).
    #[inline(always)]
    pub fn give_known(
        &self,
        single: Single<'_>,
        head: Head,
        pages: usize,
        waiting: &Waiting<L>,
        hand_over: impl FnOnce(ZoneGuard<'_, L>),
    ) -> bool {
        // SAFETY: the offset of the frame's zone.
        let mut zone = unsafe { self.zone_at(single.zone()) }.lock();
        let frame = single.frame();
        if frame.head() != head {
            return false;
        }
        frame.set_head(Head::new(FrameKind::Tail, 0, 0));
        // SAFETY: the zone's lock is held, and this is the only reference; the word is of this region.
        unsafe { single.region().buddy().give_from(single.word(), single.bit(), pages) };
        zone.free += pages;
        if waiting.is_any() {
            hand_over(zone);
        }
        true
    }

    /// Gives back a block whose head `admit` accepts; all under the zone's lock, so that of two frees one is refused.
    ///
    /// `admit` returns the block's pages, or why it is refused; it is told what is wrong with one that heads no block of its kind. When somebody
    /// waits, `hand_over` gets the zone, still locked, to serve him.
    #[inline(always)]
    pub fn give<E>(
        &self,
        region: &Region,
        frame: &Frame,
        pfn: u32,
        admit: impl FnOnce(Head, &dyn Fn() -> FreeError) -> Result<usize, E>,
        waiting: &Waiting<L>,
        hand_over: impl FnOnce(ZoneGuard<'_, L>),
    ) -> Result<usize, E> {
        let mut zone = self.zone_of(region).lock();
        // SAFETY: the zone's lock is held, and there is no reference to its buddies while this runs.
        let pages = admit(frame.head(), &|| unsafe { region.refusal(frame.head(), pfn) })?;
        frame.set_head(Head::new(FrameKind::Tail, 0, 0));
        // SAFETY: the zone's lock is held, and this is the only reference.
        unsafe { region.buddy() }.give(pfn, pages);
        zone.free += pages;
        // Where code is to be small, that is looked at once, by who serves.
        if cfg!(feature = "small") || waiting.is_any() {
            hand_over(zone);
        }
        Ok(pages)
    }
}
