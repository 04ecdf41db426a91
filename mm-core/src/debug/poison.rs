//! Poisoned pages: free pages hold a pattern, which is looked at before they are handed out again, and by a scrub.
//!
//! Pages are filled and looked at outside the lock: until they were, they are marked as held, and no caller can free
//! them. A page that does not hold the pattern was written to after it was freed, or is broken; it is taken out of use.

use crate::addr::{PageRange, Pfn};
use crate::backend::Backend;
use crate::error::FreeError;
use crate::error::{AllocError, MmError};
use crate::frame::{Frame, FrameKind, Head, Region};
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::{Bug, Platform};
use crate::wait::Block;
use crate::zone::ZoneGuard;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What a free page holds, as Linux's `PAGE_POISON`.
const POISON: u8 = 0xaa;
/// Bytes a scrub looks at in one lock hold. No page is smaller.
const PIECE: usize = 256;

/// What is done to free pages.
pub struct PagePoison {
    /// They are poisoned.
    poison: AtomicBool,
    /// They cannot be reached.
    #[cfg(feature = "debug-pagealloc")]
    pub(super) hidden: AtomicBool,
}

impl PagePoison {
    /// Nothing.
    pub const fn new() -> Self {
        PagePoison {
            poison: AtomicBool::new(false),
            #[cfg(feature = "debug-pagealloc")]
            hidden: AtomicBool::new(false),
        }
    }
}

/// Where a [`scrub`](Mm::scrub) goes on: at first with the lowest frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ScrubCursor(u32);

/// What a step of a [`scrub`](Mm::scrub) did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Scrubbed {
    /// Free pages that were looked at.
    pub checked: usize,
    /// Pages that were reported and taken out of use.
    pub withdrawn: usize,
    /// It has come past the last frame, and the next step begins with the first.
    pub wrapped: bool,
}

/// The first byte of a page that is no poison.
struct Spoilt {
    offset: usize,
    found: u8,
}

/// The first of `len` bytes that is no poison.
///
/// # Safety
/// The bytes can be read, and `from` is aligned to a word.
unsafe fn first_other(from: *const u8, len: usize) -> Option<Spoilt> {
    const WORD: usize = size_of::<usize>();
    let word = usize::from_ne_bytes([POISON; WORD]);
    let words = from.cast::<usize>();
    // Volatile: they change by mistake, under nobody's control.
    // SAFETY: by the caller's word.
    let at = (0..len / WORD).find(|&i| unsafe { words.add(i).read_volatile() } != word)? * WORD;
    (at..at + WORD).find_map(|offset| {
        // SAFETY: as above.
        let found = unsafe { from.add(offset).read_volatile() };
        (found != POISON).then_some(Spoilt { offset, found })
    })
}

impl<P: Platform, B: Backend> Memory<P, B> {
    /// Does to frames that are held what is done to free ones.
    pub(crate) fn put_away(&self, start: Pfn, pages: usize) {
        if self.is_poisoning() {
            self.poison(start, pages);
        }
        self.hide(start, pages);
    }

    /// Fills frames, one by one, so that frames without a kernel address work too.
    fn poison(&self, start: Pfn, pages: usize) {
        for pfn in start.0..start.0 + pages as u32 {
            // SAFETY: the frames are in nobody's hands but the caller's; each pointer is good for one page.
            unsafe { self.backend.with_frame(Pfn(pfn), |p| p.write_bytes(POISON, B::PAGE_SIZE)) };
        }
    }

    /// The first byte of `len` from `offset` on, both multiples of [`PIECE`], that is no poison.
    ///
    /// # Safety
    /// The frame is in nobody's hands, and stays so meanwhile.
    unsafe fn spoilt(&self, pfn: Pfn, offset: usize, len: usize) -> Option<Spoilt> {
        // SAFETY: by the caller's word; the pointer is good for one page.
        let spoilt = unsafe { self.backend.with_frame(pfn, |p| first_other(p.add(offset), len)) };
        spoilt.map(|spoilt| Spoilt { offset: offset + spoilt.offset, ..spoilt })
    }

    /// True when pages are poisoned.
    #[inline(always)]
    pub(crate) fn is_poisoning(&self) -> bool {
        self.page_poison.poison.load(Relaxed)
    }

    /// [`take_block_now`](Self::take_block_now) of pages that were poisoned.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_poisoned(&self, pages: usize, flags: Gfp, head: Head, link: u32) -> Result<Pfn, AllocError> {
        let pfn = self.take_sound(pages, flags)?;
        if let Some(frame) = self.frames.frame(Pfn(pfn)) {
            frame.set_link(link);
            frame.set_head(head);
        }
        if flags.contains(Gfp::ZERO) {
            self.zero(PageRange { start: Pfn(pfn), count: pages as u32 });
        }
        Ok(Pfn(pfn))
    }

    /// Takes a block and marks it as held. Ends, for each block that is not sound makes the memory less.
    fn take_sound(&self, pages: usize, flags: Gfp) -> Result<u32, AllocError> {
        let held = Head::new(FrameKind::Held, 0, pages as u32);
        loop {
            let pfn = match self.zones.take(pages, flags, held, NIL) {
                Some(pfn) => pfn,
                None => self.take_slow(pages, flags, held, NIL)?,
            };
            if self.is_sound(pfn, pages) {
                return Ok(pfn);
            }
        }
    }

    /// A block that was handed over, or another in its place when it is not sound.
    #[cold]
    #[inline(never)]
    pub(crate) fn poisoned_grant(&self, pfn: u32, block: &Block) -> Result<u32, AllocError> {
        if self.is_sound(pfn, block.pages) { Ok(pfn) } else { self.take_sound(block.pages, block.flags) }
    }

    /// Whether every page of a held block is as it was left. If not, the first that is not is reported and withdrawn,
    /// and the others are free again as they are. No lock is held.
    fn is_sound(&self, pfn: u32, pages: usize) -> bool {
        self.show(Pfn(pfn), pages);
        if !self.is_poisoning() {
            return true;
        }
        let end = pfn + pages as u32;
        // SAFETY: the block is held.
        let look = |page: u32| Some((page, unsafe { self.spoilt(Pfn(page), 0, B::PAGE_SIZE) }?));
        let Some((page, spoilt)) = (pfn..end).find_map(look) else { return true };
        if let Some(frame) = self.frames.frame(Pfn(page)) {
            frame.set_head(Head::new(FrameKind::Withdrawn, 0, 0));
        }
        self.hide(Pfn(pfn), pages);
        self.release_run(pfn, page);
        self.release_run(page + 1, end);
        self.report_page(Pfn(page), spoilt);
        false
    }

    /// Gives back a part of a held block, which was not written to since it was taken.
    fn release_run(&self, from: u32, end: u32) {
        let Some((region, frame)) = self.frames.find(from as usize).filter(|_| from != end) else { return };
        let hand_over = |zone: ZoneGuard<'_, P::Lock>| self.hand_over(region.zone(), zone);
        let admit = |_: Head, _: &dyn Fn() -> FreeError| Ok::<_, ()>((end - from) as usize);
        let _ = self.zones.give(region, frame, from, admit, &self.waiting, hand_over);
    }

    fn report_page(&self, frame: Pfn, spoilt: Spoilt) {
        let phys = (u64::from(frame.0) << B::PAGE_SHIFT) + spoilt.offset as u64;
        self.platform.bug(&Bug::PageDamaged { frame, at: phys, found: spoilt.found });
    }

    /// [`give`](Self::give), which fills the pages between two holds of the lock.
    #[cold]
    #[inline(never)]
    pub(crate) fn give_poisoned<E>(
        &self,
        region: &Region,
        frame: &Frame,
        pfn: u32,
        admit: impl FnOnce(Head, &dyn Fn() -> FreeError) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let zone = self.zones.zone(region.zone()).lock();
        // SAFETY: the zone's lock is held, and there is no reference to its buddies.
        let pages = admit(frame.head(), &|| unsafe { region.refusal(frame.head(), pfn) })?;
        frame.set_head(Head::new(FrameKind::Held, 0, pages as u32));
        drop(zone);
        // It is hidden still when it was handed to somebody who never came for it.
        self.show(Pfn(pfn), pages);
        self.put_away(Pfn(pfn), pages);
        let hand_over = |zone: ZoneGuard<'_, P::Lock>| self.hand_over(region.zone(), zone);
        self.zones.give(region, frame, pfn, |_, _| Ok(pages), &self.waiting, hand_over)
    }

    /// Looks at a free frame, a piece in each lock hold. `None` when it is not free, or not any more; true when it was
    /// withdrawn.
    fn scrub_frame(&self, region: &Region, pfn: u32) -> Option<bool> {
        for offset in (0..B::PAGE_SIZE).step_by(PIECE) {
            let mut zone = self.zones.zone(region.zone()).lock();
            // SAFETY: the zone's lock is held, and this is the only reference.
            let buddy = unsafe { region.buddy() };
            if !buddy.is_free(pfn) {
                return None;
            }
            self.show(Pfn(pfn), 1);
            // SAFETY: free, and the lock is held.
            let spoilt = unsafe { self.spoilt(Pfn(pfn), offset, PIECE) };
            self.hide(Pfn(pfn), 1);
            let Some(spoilt) = spoilt else { continue };
            buddy.withdraw(pfn);
            zone.free -= 1;
            if let Some(frame) = region.frame(pfn as usize) {
                frame.set_head(Head::new(FrameKind::Withdrawn, 0, 0));
            }
            drop(zone);
            self.report_page(Pfn(pfn), spoilt);
            return Some(true);
        }
        Some(false)
    }
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// From now on free pages are poisoned, as by Linux's `page_poison=1`: filled with 0xaa when they are freed, and
    /// looked at when they are handed out again. A read of a freed page sees the pattern. A write to one is reported as
    /// [`Bug::PageDamaged`] when the page would come again, or by [`scrub`](Self::scrub); the page is withdrawn, which
    /// [`meminfo`](Self::meminfo) counts, and the request goes on with another.
    ///
    /// Context: start-up, before `init`, which fills all free memory. Cost: every free and every allocation of pages
    /// goes through the page's bytes, outside the lock, and takes the lock twice.
    ///
    /// # Errors
    /// `AlreadyInit` behind the begin of `init`: what is free by then was not filled.
    #[doc(alias = "page_poisoning_enabled")]
    pub fn page_poisoning_enable(&self) -> Result<(), MmError> {
        if *self.memory.started.lock() {
            return Err(MmError::AlreadyInit);
        }
        self.memory.page_poison.poison.store(true, Relaxed);
        Ok(())
    }

    /// Looks at the next free pages, among at most `budget` frames in use or free: for an idle task, to find writes
    /// after a free, and broken memory, before anybody is given it. Each page that does not hold its poison is reported
    /// as [`Bug::PageDamaged`] and withdrawn.
    ///
    /// ```
    /// use mm_core::{Manager, ScrubCursor};
    ///
    /// fn idle(mm: impl Manager) {
    ///     let mut cursor = ScrubCursor::default();
    ///     while !mm.mm().scrub(&mut cursor, 64).wrapped {
    ///         // Whoever has work to do goes first.
    ///     }
    /// }
    /// ```
    ///
    /// Does nothing, and says that it has come to the end, unless pages are
    /// [poisoned](Self::page_poisoning_enable).
    ///
    /// Context: any. Cost: reads up to `budget` pages, 256 bytes in one lock hold.
    pub fn scrub(&self, cursor: &mut ScrubCursor, budget: usize) -> Scrubbed {
        let mut done = Scrubbed::default();
        if !self.memory.is_poisoning() || !self.memory.is_ready() {
            done.wrapped = true;
            return done;
        }
        for _ in 0..budget {
            let Some(region) = self.memory.frames.regions().iter().find(|region| cursor.0 < region.end()) else {
                *cursor = ScrubCursor::default();
                done.wrapped = true;
                break;
            };
            let pfn = cursor.0.max(region.start());
            cursor.0 = pfn + 1;
            if let Some(withdrawn) = self.memory.scrub_frame(region, pfn) {
                done.checked += 1;
                done.withdrawn += usize::from(withdrawn);
            }
        }
        done
    }
}
