//! Everything below kmalloc and vmalloc: frames, zones, descriptors, and the checks every call begins with.

use crate::addr::{PageRange, Pfn};
use crate::backend::Backend;
use crate::bits::Word;
use crate::error::{AllocError, FreeError, PackedFrame, PackedFree};
use crate::fault::FaultClass;
use crate::frame::{Frame, FrameKind, FrameMap, Head, Region, Single};
use crate::gfp::Gfp;
use crate::lock::Locked;
use crate::meta::MetaPools;
use crate::platform::{Bug, Context, Platform, RawLock};
use crate::smp::Smp;
use crate::wait::{Block, Patience, Waiting};
use crate::zone::{Depth, ZoneKind, Zones};
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};

/// Call sites the may-wait report remembers. Later ones are not told any more: better silent than a flood.
const MAX_SITES: usize = if cfg!(feature = "small") { 4 } else { 16 };

const STATE_NEW: u8 = 0;
const STATE_READY: u8 = 1;

/// The managed memory, without any policy of use. Backends that serve vmalloc themselves build on it.
pub struct Memory<P: Platform, B: Backend> {
    pub(crate) platform: P,
    pub(crate) backend: B,
    state: AtomicU8,
    /// Frames of all zones, summed up once.
    managed: AtomicUsize,
    /// What several CPUs need; null for one.
    smp: AtomicPtr<Smp<P::Lock>>,
    pub(crate) started: Locked<P::Lock, bool>,
    pub(crate) frames: FrameMap,
    pub(crate) zones: Zones<P::Lock>,
    pub(crate) waiting: Waiting<P::Lock>,
    pub(crate) meta: MetaPools<P::Lock>,
    sites: Locked<P::Lock, heapless::Vec<&'static Location<'static>, MAX_SITES>>,
    #[cfg(feature = "page-poison")]
    pub(crate) page_poison: crate::debug::PagePoison,
    #[cfg(feature = "fault-injection")]
    pub(crate) faults: crate::fault::FaultInjector<P::Lock>,
    #[cfg(feature = "page-owner")]
    pub(crate) owners: crate::debug::Owners<P::Lock>,
}

impl<P: Platform, B: Backend> Memory<P, B> {
    pub(crate) const fn new(platform: P, backend: B) -> Self {
        Memory {
            platform,
            backend,
            state: AtomicU8::new(STATE_NEW),
            managed: AtomicUsize::new(0),
            smp: AtomicPtr::new(core::ptr::null_mut()),
            started: Locked::new(false),
            frames: FrameMap::new(),
            zones: Zones::new(),
            waiting: Waiting::new(),
            meta: MetaPools::new(),
            sites: Locked::new(heapless::Vec::new()),
            #[cfg(feature = "page-poison")]
            page_poison: crate::debug::PagePoison::new(),
            #[cfg(feature = "fault-injection")]
            faults: crate::fault::FaultInjector::new(),
            #[cfg(feature = "page-owner")]
            owners: crate::debug::Owners::new(),
        }
    }

    /// The platform this manager was made with.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// The backend this manager was made with.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Sums up the frames of all zones, for [`managed_pages`](Self::managed_pages).
    pub(crate) fn count_managed(&self) -> usize {
        let managed = (0..crate::zone::MAX_ZONES).map(|z| self.zones.zone(z).lock().managed).sum();
        self.managed.store(managed, Ordering::Relaxed);
        managed
    }

    /// What several CPUs need; `None` for one, and before `init`.
    #[inline(always)]
    pub(crate) fn smp(&self) -> Option<&Smp<P::Lock>> {
        if P::CPUS == 1 {
            return None;
        }
        // SAFETY: null, or placed by `init` for good.
        unsafe { self.smp.load(Ordering::Acquire).as_ref() }
    }

    pub(crate) fn set_smp(&self, smp: *mut Smp<P::Lock>) {
        self.smp.store(smp, Ordering::Release);
    }

    pub(crate) fn set_ready(&self) {
        self.state.store(STATE_READY, Ordering::Release);
    }

    /// True after `init`.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.state.load(Ordering::Acquire) == STATE_READY
    }

    /// A fallible step is about to run: fails when fault injection says so.
    #[inline(always)]
    pub fn fault_point(&self, class: FaultClass) -> Result<(), AllocError> {
        #[cfg(feature = "fault-injection")]
        if self.faults.strikes(class) {
            return Err(match class {
                FaultClass::AddressSpace => AllocError::NoAddressSpace,
                FaultClass::Guard => AllocError::NoGuard,
                _ => AllocError::NoMemory,
            });
        }
        let _ = class;
        Ok(())
    }

    /// True when a step was made to fail since this was last asked.
    pub(crate) fn was_injected(&self) -> bool {
        #[cfg(feature = "fault-injection")]
        return self.faults.take_struck();
        #[cfg(not(feature = "fault-injection"))]
        false
    }

    /// Refuses unknown flags, and takes `WAIT` from flags where waiting is impossible: in an interrupt or critical
    /// section, with one report per call site, and at start-up.
    ///
    /// # Errors
    /// [`AllocError::BadFlags`].
    #[inline(always)]
    pub fn admit(&self, flags: Gfp, caller: &'static Location<'static>) -> Result<Gfp, AllocError> {
        let flags = flags.validate()?.union(crate::debug::ON_ALLOC);
        if flags.contains(Gfp::WAIT) {
            let context = self.platform.context();
            if context != Context::Task {
                if context == Context::Atomic {
                    self.report_may_wait(caller);
                }
                // Here, so that the compiler still knows the others of a caller's fixed flags.
                return Ok(flags.difference(Gfp::WAIT));
            }
        }
        Ok(flags)
    }

    /// [`admit`](Self::admit)'s report, behind an allocation that found `memory` at hand and learned from its lock that
    /// interrupts were masked, if the lock tells. Hands `memory` through, so that nobody has to keep it meanwhile.
    #[inline(always)]
    pub(crate) fn told(
        &self,
        memory: NonNull<u8>,
        flags: Gfp,
        masked: Option<bool>,
        caller: &'static Location<'static>,
    ) -> NonNull<u8> {
        let clear = match masked {
            Some(masked) => !masked,
            None => !flags.contains(Gfp::WAIT) || self.platform.context() != Context::Atomic,
        };
        if clear || !flags.contains(Gfp::WAIT) { memory } else { self.told_of_masked(memory, caller) }
    }

    #[cold]
    #[inline(never)]
    fn told_of_masked(&self, memory: NonNull<u8>, caller: &'static Location<'static>) -> NonNull<u8> {
        if self.platform.context() == Context::Atomic {
            self.report_may_wait(caller);
        }
        // A compiler that knows what comes back keeps it in a register of the caller's after all.
        core::hint::black_box(memory)
    }

    #[cold]
    #[inline(never)]
    fn report_may_wait(&self, caller: &'static Location<'static>) {
        // By value: one place in the source can have several copies of its location. (Byte by byte: comparing strings
        // would bring a library function in that nothing else here needs.)
        let same = |site: &&'static Location<'static>| {
            // Where code is to be small, each copy is told of.
            if cfg!(feature = "small") {
                return core::ptr::eq(*site, caller);
            }
            (site.line(), site.column()) == (caller.line(), caller.column())
                && site.file().bytes().eq(caller.file().bytes())
        };
        let mut sites = self.sites.lock();
        let known = sites.iter().any(same);
        let full = !known && sites.push(caller).is_err();
        drop(sites);
        if !known && !full {
            self.platform.bug(&Bug::MayWaitInAtomic { caller });
        }
    }

    /// Takes `pages` contiguous frames (exactly as many), marks the first with `kind` and `link`, and zeroes them when the
    /// flags ask for it. They are aligned to the next power of two, `Held` and `Large` ones to the largest power of two
    /// that divides their number.
    ///
    /// Context: any. Cost: O(levels); one zone lock at a time.
    ///
    /// # Errors
    /// `NotReady`, `ZeroSize`, `TooBig`, `NoMemory`, `NoContig`.
    #[inline]
    pub fn take_block(&self, pages: usize, flags: Gfp, kind: FrameKind, link: u32) -> Result<Pfn, AllocError> {
        self.fault_point(FaultClass::Page)?;
        self.take_block_now(pages, flags, kind, link)
    }

    /// [`take_block`](Self::take_block) for what is large and stays: from the high end of memory, where nothing else is taken
    /// from while there is room elsewhere, so that it is not mixed with what is small and goes. Aligned to the largest power
    /// of two that divides `pages`. A single page, and what the high end has no room for above the low mark, comes as from
    /// `take_block`; so does everything while free pages are poisoned.
    ///
    /// Context and cost: as `take_block`.
    ///
    /// # Errors
    /// As `take_block`.
    #[cold]
    #[inline(never)]
    pub fn take_block_high(&self, pages: usize, flags: Gfp, kind: FrameKind, link: u32) -> Result<Pfn, AllocError> {
        // Where code is to be small all comes from the low end.
        if cfg!(feature = "small") || pages < 2 || pages > 1 << B::MAX_ORDER {
            return self.take_block(pages, flags, kind, link);
        }
        self.fault_point(FaultClass::Page)?;
        let head = Head::new(kind, 0, pages as u32);
        #[cfg(feature = "page-poison")]
        if self.poisons() {
            return self.take_poisoned(pages, flags, head, link);
        }
        let Some(pfn) = self.zones.take_high(&self.frames, pages, ZoneKind::of(flags), head, link) else {
            return self.take_block_now(pages, flags, kind, link);
        };
        if flags.contains(Gfp::ZERO) {
            self.zero(PageRange { start: Pfn(pfn), count: pages as u32 });
        }
        Ok(Pfn(pfn))
    }

    /// [`take_block`](Self::take_block) behind a fault point of the caller's own.
    #[cfg_attr(feature = "small", inline(always))]
    #[cfg_attr(not(feature = "small"), inline)]
    pub fn take_block_now(&self, pages: usize, flags: Gfp, kind: FrameKind, link: u32) -> Result<Pfn, AllocError> {
        if cfg!(feature = "small") {
            return self.take_by_depth(pages, flags, kind, link).result().map(Pfn);
        }
        if pages.wrapping_sub(1) >= 1 << B::MAX_ORDER {
            return Err(if pages == 0 { AllocError::ZeroSize } else { AllocError::TooBig });
        }
        let head = Head::new(kind, 0, pages as u32);
        #[cfg(feature = "page-poison")]
        if self.poisons() {
            return self.take_poisoned(pages, flags, head, link);
        }
        let pfn = match self.zones.take(pages, flags, head, link) {
            Some(pfn) => pfn,
            None => self.take_slow(pages, flags, head, link)?,
        };
        if flags.contains(Gfp::ZERO) {
            self.zero(PageRange { start: Pfn(pfn), count: pages as u32 });
        }
        Ok(Pfn(pfn))
    }

    /// [`take_block_now`](Self::take_block_now) by a call, and both passes by the same code.
    #[inline(never)]
    fn take_by_depth(&self, pages: usize, flags: Gfp, kind: FrameKind, link: u32) -> PackedFrame {
        if pages.wrapping_sub(1) >= 1 << B::MAX_ORDER {
            return PackedFrame::new(Err(if pages == 0 { AllocError::ZeroSize } else { AllocError::TooBig }));
        }
        let head = Head::new(kind, 0, pages as u32);
        #[cfg(feature = "page-poison")]
        if self.poisons() {
            return PackedFrame::new(self.take_poisoned(pages, flags, head, link).map(|pfn| pfn.0));
        }
        let (kind, mut depth) = (ZoneKind::of(flags), Depth::Low);
        loop {
            let taken = self.zones.take_at(pages, (kind, depth), head, link);
            if let Ok(start) = taken.result() {
                if flags.contains(Gfp::ZERO) {
                    self.zero(PageRange { start: Pfn(start), count: pages as u32 });
                }
                return taken;
            }
            if depth != Depth::Low {
                return if self.is_ready() { taken } else { PackedFrame::new(Err(AllocError::NotReady)) };
            }
            depth = flags.depth();
        }
    }

    /// [`take_block_now`](Self::take_block_now) of a single frame, at hand in the common case.
    #[inline(always)]
    pub(crate) fn take_frame_now(&self, flags: Gfp, kind: FrameKind, link: u32) -> Result<Pfn, AllocError> {
        if !self.poisons() && !flags.contains(Gfp::ZERO) {
            let head = Head::new(kind, 0, 1);
            if let Some(pfn) = self.zones.take_single_of(ZoneKind::of(flags), head, link) {
                return Ok(Pfn(pfn));
            }
        }
        self.take_block_now(1, flags, kind, link)
    }

    /// No zone has the block above its low mark: down to where the flags may go.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_slow(&self, pages: usize, flags: Gfp, head: Head, link: u32) -> Result<u32, AllocError> {
        let reach = (ZoneKind::of(flags), flags.depth());
        let result = self.zones.take_deep(pages, reach, head, link);
        result.map_err(|error| if self.is_ready() { error } else { AllocError::NotReady })
    }

    /// [`take_block_now`](Self::take_block_now), and when there is none waits for it, if the caller has patience.
    ///
    /// Context: task when it may wait, no lock held.
    ///
    /// # Errors
    /// As `take_block`.
    #[inline(never)]
    pub fn take_block_until(
        &self,
        pages: usize,
        flags: Gfp,
        kind: FrameKind,
        link: u32,
        patience: Option<&Patience<'_>>,
    ) -> Result<Pfn, AllocError> {
        match (self.take_block_now(pages, flags, kind, link), patience) {
            (Err(error), Some(patience)) if P::CAN_WAIT && error.may_pass() => {
                self.wait_for_block(Block { pages, flags, kind, link }, patience.until, error, patience.tend)
            }
            (result, _) => result,
        }
    }

    /// Gives back the block at frame number `pfn` (which may be anything), which must be a live block of `kind` and,
    /// when told, of `pages` frames. Returns how many frames it had.
    ///
    /// # Errors
    /// Every [`FreeError`] that fits; nothing was changed.
    #[cfg_attr(feature = "small", inline(always))]
    #[cfg_attr(not(feature = "small"), inline)]
    pub fn free_block(&self, pfn: usize, kind: FrameKind, pages: Option<usize>) -> Result<usize, FreeError> {
        if cfg!(feature = "small") {
            // No block has as many pages as stand for any number.
            return self.free_run(pfn, kind, pages.map_or(usize::MAX, |pages| pages.min(usize::MAX - 1))).result();
        }
        self.free_block_here(pfn, kind, pages)
    }

    /// [`free_block`](Self::free_block) by a call; `usize::MAX` pages are any number.
    #[inline(never)]
    fn free_run(&self, pfn: usize, kind: FrameKind, pages: usize) -> PackedFree {
        PackedFree::new(self.free_block_here(pfn, kind, (pages != usize::MAX).then_some(pages)))
    }

    #[inline(always)]
    fn free_block_here(&self, pfn: usize, kind: FrameKind, pages: Option<usize>) -> Result<usize, FreeError> {
        let Some((region, frame)) = self.frames.find(pfn) else {
            return Err(self.foreign());
        };
        self.give(region, frame, pfn as u32, |head, is_free| {
            if !head.is(kind) {
                return Err(FrameMap::refusal(head.kind(), head.is(FrameKind::Tail) && is_free()));
            }
            let count = head.count() as usize;
            if pages.is_some_and(|pages| pages != count) {
                return Err(FreeError::WrongOrder);
            }
            Ok(count)
        })
    }

    /// Shortens the live block of `kind` at `pfn` to `pages`; the tail is free again. Returns the block.
    ///
    /// Context: any. Cost: as freeing the tail.
    ///
    /// # Errors
    /// `BadPointer` when there is no such block, or it is not longer.
    pub fn trim_block(&self, pfn: Pfn, kind: FrameKind, pages: usize) -> Result<Pfn, AllocError> {
        let Some((region, frame)) = self.frames.find(pfn.0 as usize) else { return Err(AllocError::BadPointer) };
        let zone = self.zones.zone(region.zone()).lock();
        let head = frame.head();
        let tail = (head.count() as usize).checked_sub(pages).filter(|tail| *tail != 0 && pages != 0 && head.is(kind));
        let Some(tail) = tail else { return Err(AllocError::BadPointer) };
        frame.set_head(Head::new(kind, head.class() as u8, pages as u32));
        let behind = pfn.0 as usize + pages;
        if let Some(frame) = region.frame(behind) {
            frame.set_head(Head::new(FrameKind::Held, 0, tail as u32));
        }
        drop(zone);
        // As any block, for somebody may wait for it.
        let _ = self.free_block(behind, FrameKind::Held, Some(tail));
        Ok(pfn)
    }

    /// Cuts the first `pages` frames off the live block of `kind` at `pfn`; they are free again. Returns what is left, which
    /// keeps the link.
    ///
    /// Context: any. Cost: as freeing what is cut off.
    ///
    /// # Errors
    /// `BadPointer` when there is no such block, or it is not longer, or `pages` is 0.
    pub fn trim_front(&self, pfn: Pfn, kind: FrameKind, pages: usize) -> Result<Pfn, AllocError> {
        let first = pfn.0 as usize;
        let Some((region, frame)) = self.frames.find(first) else { return Err(AllocError::BadPointer) };
        let zone = self.zones.zone(region.zone()).lock();
        let head = frame.head();
        let left = (head.count() as usize).checked_sub(pages).filter(|left| *left != 0 && pages != 0 && head.is(kind));
        let (Some(left), Some(rest)) = (left, region.frame(first + pages)) else { return Err(AllocError::BadPointer) };
        rest.set_link(frame.link());
        rest.set_head(Head::new(kind, head.class() as u8, left as u32));
        frame.set_head(Head::new(FrameKind::Held, 0, pages as u32));
        drop(zone);
        // As any block, for somebody may wait for it.
        let _ = self.free_block(first, FrameKind::Held, Some(pages));
        Ok(Pfn((first + pages) as u32))
    }

    /// True for a frame number, which may be anything, that is free or no frame of this manager.
    pub fn frame_is_free(&self, pfn: usize) -> bool {
        let Some((region, _)) = self.frames.find(pfn) else { return true };
        let _zone = self.zones.zone(region.zone()).lock();
        // SAFETY: the zone's lock is held, and this is the only reference.
        unsafe { region.buddy() }.is_free(pfn as u32)
    }

    /// [`Zones::give`], which hands the block over if somebody waits for it. No lock is held.
    #[inline(always)]
    pub(crate) fn give<E>(
        &self,
        region: &Region,
        frame: &Frame,
        pfn: u32,
        admit: impl FnOnce(Head, &dyn Fn() -> bool) -> Result<usize, E>,
    ) -> Result<usize, E> {
        #[cfg(feature = "page-poison")]
        if self.poisons() {
            return self.give_poisoned(region, frame, pfn, admit);
        }
        self.zones.give(region, frame, pfn, admit, &self.waiting, |zone| self.hand_over(region.zone(), zone))
    }

    /// True when free pages are poisoned or hidden, so that none may come or go by a path that does not look at it.
    #[inline(always)]
    pub(crate) fn poisons(&self) -> bool {
        #[cfg(feature = "page-poison")]
        return self.is_poisoning() || self.is_hiding();
        #[cfg(not(feature = "page-poison"))]
        false
    }

    /// A block that was handed over, as [`accept`](Self::accept) takes it, or another that is sound.
    #[inline(always)]
    pub(crate) fn sound_grant(&self, pfn: u32, block: &Block) -> Result<u32, AllocError> {
        #[cfg(feature = "page-poison")]
        if self.poisons() {
            return self.poisoned_grant(pfn, block);
        }
        let _ = block;
        Ok(pfn)
    }

    /// [`Zones::give_single`], which hands the frame over if somebody waits for it. No lock is held.
    #[inline(always)]
    pub(crate) fn give_single(&self, single: Single<'_>, head: Head) -> bool {
        if self.poisons() {
            return false;
        }
        let edge = |token, region: &Region, word| self.page_edge(token, region, word);
        self.zones.give_single(single, head, &self.waiting, edge)
    }

    /// [`give`](Self::give) of a block that is found already, if its record is `head`: one of `pages` frames.
    #[inline(always)]
    pub(crate) fn give_known(&self, single: Single<'_>, head: Head, pages: usize) -> bool {
        if self.poisons() {
            return false;
        }
        let region = single.region;
        self.zones.give_known(single, head, pages, &self.waiting, |zone| self.hand_over(region.zone(), zone))
    }

    /// A frame of a word that is not the open one was given back, or somebody waits.
    #[inline(never)]
    fn page_edge(&self, token: <P::Lock as RawLock>::Token, region: &Region, word: *mut Word) {
        // SAFETY: `give_single` said so.
        let zone = unsafe { self.zones.retell(token, region, word) };
        if self.waiting.is_any() {
            self.hand_over(region.zone(), zone);
        }
    }

    /// Why an address outside every region is refused.
    #[cold]
    pub(crate) fn foreign(&self) -> FreeError {
        if self.is_ready() { FreeError::Foreign } else { FreeError::NotReady }
    }

    /// Why an address that is no live allocation of the wanted kind is refused.
    #[cold]
    pub fn refusal(&self, addr: usize) -> FreeError {
        let pfn = self.backend.direct_frame(addr);
        let Some((region, frame)) = self.frames.find(pfn) else {
            return self.foreign();
        };
        let zone = self.zones.zone(region.zone()).lock();
        // SAFETY: the zone's lock is held, and this is the only reference.
        let free = unsafe { region.buddy() }.is_free(pfn as u32);
        drop(zone);
        FrameMap::refusal(frame.head().kind(), free)
    }

    /// Why an address outside every area is refused by the frees of areas.
    #[cold]
    pub fn refusal_of_area(&self, addr: usize) -> FreeError {
        match self.refusal(addr) {
            // Free memory of the direct map was never an area's.
            FreeError::DoubleFree | FreeError::Interior => FreeError::WrongAllocator,
            other => other,
        }
    }

    /// The pages and the link of the block of `kind` that begins at frame `pfn`, which may be anything.
    pub fn block_at(&self, pfn: usize, kind: FrameKind) -> Option<(usize, u32)> {
        let (_, frame) = self.frames.find(pfn)?;
        let head = frame.head();
        head.is(kind).then(|| (head.count() as usize, frame.link()))
    }

    /// The head of the block that holds frame `pfn` (which may be anything), when it is one of `kind`: its first frame,
    /// its pages and its link.
    ///
    /// Cost: at most the frames of the largest block, for an address inside one.
    pub fn find_block(&self, pfn: usize, kind: FrameKind) -> Option<(Pfn, usize, u32)> {
        let (region, _) = self.frames.find(pfn)?;
        for back in 0..1 << B::MAX_ORDER {
            let frame = region.frame(pfn.checked_sub(back)?)?;
            let head = frame.head();
            if head.is(FrameKind::Tail) {
                continue;
            }
            let pages = head.count() as usize;
            return (head.is(kind) && back < pages).then(|| (Pfn((pfn - back) as u32), pages, frame.link()));
        }
        None
    }

    /// What the frame is used for, or the block it lies in, and how many pages of that follow from this one on; `None` for a
    /// frame that is free or no frame of this manager.
    ///
    /// Cost: at most the frames of the largest block, for one inside it.
    pub(crate) fn block_around(&self, pfn: Pfn) -> Option<(FrameKind, u32)> {
        let (region, _) = self.frames.find(pfn.0 as usize)?;
        for back in 0..1 << B::MAX_ORDER {
            let head = region.frame((pfn.0 as usize).checked_sub(back)?)?.head();
            let pages = match head.kind() {
                FrameKind::Tail => continue,
                FrameKind::Slab | FrameKind::DmaSlab | FrameKind::CacheSlab | FrameKind::Meta | FrameKind::Table => 1,
                FrameKind::Reserved => 1,
                _ => head.count(),
            };
            return pages.checked_sub(back as u32).filter(|left| *left != 0).map(|left| (head.kind(), left));
        }
        None
    }

    /// The first block of `kind` whose head is at or above frame `from`, and its link. A diagnostic: walks the frame
    /// table.
    pub fn next_block(&self, from: usize, kind: FrameKind) -> Option<(Pfn, u32)> {
        let region_walk = |region: &crate::frame::Region| {
            (region.start().max(u32::try_from(from).unwrap_or(u32::MAX))..region.end()).find_map(|pfn| {
                let frame = region.frame(pfn as usize)?;
                frame.head().is(kind).then(|| (Pfn(pfn), frame.link()))
            })
        };
        self.frames.regions().iter().find_map(region_walk)
    }

    /// Zeroes frames, one by one, so that frames without a kernel address work too.
    pub(crate) fn zero(&self, range: PageRange) {
        for pfn in range.start.0..range.end() {
            // SAFETY: the range is a block this manager handed out; each pointer is good for one page.
            unsafe { self.backend.with_frame(Pfn(pfn), |p| wipe(p, B::PAGE_SIZE)) };
        }
    }

    /// The kernel pointer to a frame that has one.
    #[inline(always)]
    pub fn frame_ptr(&self, pfn: Pfn) -> *mut u8 {
        self.direct_ptr((pfn.0 as usize) << B::PAGE_SHIFT)
    }

    /// [`Backend::direct_ptr`], in the way that costs least.
    #[inline(always)]
    pub(crate) fn direct_ptr(&self, phys: usize) -> *mut u8 {
        if B::DIRECT_IS_LINEAR { self.frames.direct().wrapping_add(phys) } else { self.backend.direct_ptr(phys) }
    }

    /// Frames handed to the buddies of all zones since `init`, in use or not.
    #[inline]
    pub fn managed_pages(&self) -> usize {
        self.managed.load(Ordering::Relaxed)
    }

    /// Free frames in all zones.
    pub fn free_pages(&self) -> usize {
        (0..crate::zone::MAX_ZONES).map(|z| self.zones.zone(z).lock().free).sum()
    }
}

/// Zeroes `bytes` bytes. In one place, so that one of the library's functions for it is enough.
///
/// # Safety
/// They are the caller's to write, and `at` and `bytes` are multiples of 8.
#[inline(never)]
pub(crate) unsafe fn wipe(at: *mut u8, bytes: usize) {
    if cfg!(feature = "small") {
        // Not known to be 0, so that the library's function for it is not called, which is larger than this.
        let zero = core::hint::black_box(0u32);
        let mut left = bytes / 4;
        while left != 0 {
            left -= 1;
            // SAFETY: by the caller's word.
            unsafe { at.cast::<u32>().add(left).write(zero) };
        }
        return;
    }
    // SAFETY: by the caller's word.
    unsafe { at.cast::<u64>().write_bytes(0, bytes / 8) };
}
