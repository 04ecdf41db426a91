//! Each CPU's own objects, taken and given back without a lock.
//!
//! A *magazine* of a class is the part of one word of one slab that a CPU has to itself: the slots of its `mask`. To the
//! slab they are all handed out, so it stays; which of them are at hand says `ready`, a word of this CPU's, which it changes
//! with interrupts masked and nothing else. An object is known as the magazine's by its address alone, and a slot that is
//! in neither bitmap is owned by a caller: so every free is checked here as it is elsewhere. Another CPU that frees such an
//! object finds the magazine under the lock of the class, and leaves it in `returned`, where its owner fetches it when
//! `ready` is empty. When two CPUs free one object in the same moment both bits get set; then the slot is not handed out,
//! and the owner reports it when he looks.
//!
//! Pages are not kept: a reference ([`Mm::get_page`]) may be taken of a page in the moment of its free, so both go through
//! the zone's lock.
//!
//! A magazine covers no more than a page of bytes, and none is filled while somebody waits.

use super::{MAX_CPUS, Smp};
use crate::backend::Backend;
use crate::bits::{Word, lowest};
use crate::error::{AllocError, FreeError, Packed};
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::{Bug, Context, Platform, RawLock};
use crate::slab::{ClassTable, Given, MAX_CLASSES, Slabs, give};
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

/// The most slots a magazine has: what one lock hold takes.
const MOST: usize = 32;

/// Objects of one class, in a line of their own. All is this CPU's, but for what is said to be others'.
#[repr(align(64))]
pub(crate) struct Magazine {
    /// Slots at hand.
    ready: AtomicUsize,
    /// Slots that other CPUs gave back. Others set bits with the class locked, and the owner clears them so.
    returned: AtomicUsize,
    /// The slots that are this magazine's. Changed with the class locked.
    mask: AtomicUsize,
    /// The slot of bit 0, and how many bytes behind it can be this magazine's: 0 when it has no slot.
    base: AtomicPtr<u8>,
    span: AtomicUsize,
    /// As in `Geometry`.
    recip: AtomicU32,
}

/// One CPU's.
#[repr(C)]
pub(crate) struct PerCpu {
    magazines: [Magazine; MAX_CLASSES],
}

/// Whose slot an address is.
enum Slot {
    /// Not this magazine's.
    Other,
    /// Bit of it.
    Bit(Word),
}

impl Magazine {
    fn set(&self, base: *mut u8, mask: Word, ready: Word, size: usize, recip: u32) {
        self.base.store(base, Relaxed);
        self.recip.store(recip, Relaxed);
        self.mask.store(mask, Relaxed);
        self.ready.store(ready, Relaxed);
        self.span.store(if mask == 0 { 0 } else { size * Word::BITS as usize }, Relaxed);
    }

    /// The slot that begins at `addr`.
    #[inline(always)]
    fn slot(&self, addr: usize) -> Slot {
        let offset = addr.wrapping_sub(self.base.load(Relaxed).addr());
        if offset >= self.span.load(Relaxed) {
            return Slot::Other;
        }
        // As in `Geometry::slot`, which has the reasons.
        let recip = self.recip.load(Relaxed);
        let product = offset as u32 as u64 * u64::from(recip);
        let bit = (1 as Word) << (product >> 32 & u64::from(Word::BITS - 1));
        if product as u32 >= recip || self.mask.load(Relaxed) & bit == 0 {
            return Slot::Other;
        }
        Slot::Bit(bit)
    }

    /// The slots that no caller has.
    fn at_hand(&self) -> Word {
        self.ready.load(Relaxed) | self.returned.load(Relaxed)
    }
}

impl<L: RawLock> Smp<L> {
    /// Bytes of all there is, for `cpus`.
    pub(super) const fn bytes(cpus: usize) -> usize {
        size_of::<Smp<L>>() + cpus * size_of::<PerCpu>()
    }

    /// What CPU `cpu` has to itself. All zero is empty.
    #[inline(always)]
    fn of(&self, cpu: usize) -> &PerCpu {
        // SAFETY: `bytes` made room for as many CPUs, which are below `CPUS`; zeroed memory is a valid value, and what
        // changes in it is atomic.
        unsafe { &*self.each.add(cpu % MAX_CPUS) }
    }

    #[inline(always)]
    fn magazine(&self, cpu: usize, class: usize) -> &Magazine {
        &self.of(cpu).magazines[class % MAX_CLASSES]
    }
}

const _: () = assert!(align_of::<PerCpu>() == 64 && size_of::<Magazine>() == 64);

impl<P: Platform, B: Backend> Mm<P, B> {
    /// True when CPUs keep objects of their own.
    pub(crate) const KEEPS: bool = P::CPUS > 1 && !cfg!(any(feature = "kmalloc-debug", feature = "small"));

    /// An object of a class from this CPU's magazine.
    #[inline(always)]
    pub(crate) fn take_own(
        &self,
        class: usize,
        flags: Gfp,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        if let Some(smp) = self.memory.smp() {
            let token = P::Lock::mask();
            let magazine = smp.magazine(self.memory.platform.cpu(), class);
            let ready = magazine.ready.load(Relaxed);
            let left = ready & !magazine.returned.load(Relaxed);
            if left != 0 {
                let slot = lowest(left);
                magazine.ready.store(ready & !(1 << slot), Relaxed);
                let size = ClassTable::<B>::TABLE.geometry[class % MAX_CLASSES].size as usize;
                let object = magazine.base.load(Relaxed).wrapping_add(slot * size);
                // SAFETY: of the `mask` above.
                unsafe { P::Lock::unmask(token) };
                // SAFETY: slots lie in their slab's pages, which have a kernel address.
                let object = unsafe { NonNull::new_unchecked(object) };
                return Ok(self.memory.told(object, flags, P::Lock::was_masked(token), caller));
            }
            // SAFETY: of the `mask` above.
            unsafe { P::Lock::unmask(token) };
        }
        self.refill(class, flags, caller).result()
    }

    /// The magazine has nothing: fetches what others gave back, or a batch of the class's current word.
    #[inline(never)]
    fn refill(&self, class: usize, flags: Gfp, caller: &'static Location<'static>) -> Packed {
        let (Some(slabs), Some(smp)) = (self.class(class), self.memory.smp()) else {
            return Packed::new(self.memory.admit(flags, caller).and(Err(AllocError::NotReady)));
        };
        let size = slabs.geometry.size as usize;
        let mut state = slabs.state.lock();
        let magazine = smp.magazine(self.memory.platform.cpu(), class);
        let (ready, returned) = (magazine.ready.load(Relaxed), magazine.returned.load(Relaxed));
        let (twice, base) = (ready & returned, magazine.base.load(Relaxed));
        magazine.returned.store(0, Relaxed);
        let all = ready | returned;
        let object = if all != 0 {
            magazine.ready.store(all & (all - 1), Relaxed);
            NonNull::new(base.wrapping_add(lowest(all) * size))
        } else {
            magazine.set(base, 0, 0, 0, 0);
            let object = state.take().or_else(|| slabs.advance(&mut state));
            if let Some(object) = object
                && !self.memory.waiting.is_any()
            {
                let (base, ready) = state.take_more((B::PAGE_SIZE / size).clamp(1, MOST) - 1);
                let own = (1 as Word) << ((object.addr().get() - base.addr()) / size);
                magazine.set(base, ready | own, ready, size, slabs.geometry.recip);
            }
            object
        };
        let masked = state.was_masked();
        drop(state);
        self.tell_twice(base, twice, size);
        match object {
            Some(object) => Packed::new(Ok(self.memory.told(object, flags, masked, caller))),
            None => self.kmalloc_grow(class, flags, caller),
        }
    }

    /// Objects that two CPUs freed at the same time; one of the frees should have been refused.
    #[inline(always)]
    fn tell_twice(&self, base: *mut u8, mut twice: Word, size: usize) {
        while twice != 0 {
            let addr = base.addr() + lowest(twice) * size;
            twice &= twice - 1;
            self.memory.platform.bug(&Bug::BadFree { addr, error: FreeError::DoubleFree });
        }
    }

    /// Frees an object to this CPU's magazine; false when it is none of its, or at hand.
    #[inline(always)]
    pub(crate) fn give_own(&self, addr: usize) -> bool {
        let Some(frame) = self.memory.frames.frame_at(addr, B::PAGE_SHIFT) else { return false };
        let head = frame.head();
        if !head.is(FrameKind::Slab) {
            return false;
        }
        let Some(smp) = self.memory.smp() else { return false };
        let token = P::Lock::mask();
        let magazine = smp.magazine(self.memory.platform.cpu(), head.class());
        if let Slot::Bit(bit) = magazine.slot(addr)
            && magazine.at_hand() & bit == 0
        {
            magazine.ready.store(magazine.ready.load(Relaxed) | bit, Relaxed);
            // SAFETY: of the `mask` above.
            unsafe { P::Lock::unmask(token) };
            return true;
        }
        // SAFETY: of the `mask` above.
        unsafe { P::Lock::unmask(token) };
        false
    }

    /// Frees an object of a class, which is locked, to the magazine of the CPU it belongs to; `None` when it is no CPU's.
    #[inline(always)]
    #[cfg_attr(feature = "small", allow(dead_code))]
    pub(crate) fn give_to_cpu(&self, class: usize, addr: usize) -> Option<Result<(), FreeError>> {
        if !Self::KEEPS {
            return None;
        }
        let smp = self.memory.smp()?;
        (0..P::CPUS).find_map(|cpu| {
            let magazine = smp.magazine(cpu, class);
            let Slot::Bit(bit) = magazine.slot(addr) else { return None };
            if magazine.at_hand() & bit != 0 {
                return Some(Err(FreeError::DoubleFree));
            }
            magazine.returned.store(magazine.returned.load(Relaxed) | bit, Relaxed);
            Some(Ok(()))
        })
    }

    /// True when an object lies in a magazine, and so in no caller's hands.
    pub(crate) fn is_at_hand(&self, class: usize, addr: usize) -> bool {
        let Some(smp) = self.memory.smp().filter(|_| Self::KEEPS) else { return false };
        (0..P::CPUS).any(|cpu| {
            let magazine = smp.magazine(cpu, class);
            matches!(magazine.slot(addr), Slot::Bit(bit) if magazine.at_hand() & bit != 0)
        })
    }

    /// How many objects of a class lie in magazines.
    #[cfg_attr(feature = "small", allow(dead_code))]
    pub(crate) fn objects_at_hand(&self, class: usize) -> usize {
        let Some(smp) = self.memory.smp().filter(|_| Self::KEEPS) else { return 0 };
        (0..P::CPUS).map(|cpu| smp.magazine(cpu, class).at_hand().count_ones() as usize).sum()
    }

    /// Checks the magazines of a class, which nothing changes meanwhile.
    ///
    /// # Errors
    /// The broken rule, and where it was seen.
    pub(crate) fn check_magazines(&self, slabs: &Slabs<'_, P, B>) -> Result<(), (&'static str, usize)> {
        let Some(smp) = self.memory.smp().filter(|_| Self::KEEPS) else { return Ok(()) };
        for cpu in 0..P::CPUS {
            let magazine = smp.magazine(cpu, slabs.owner.into());
            let (mask, base) = (magazine.mask.load(Relaxed), magazine.base.load(Relaxed).addr());
            if magazine.ready.load(Relaxed) & magazine.returned.load(Relaxed) != 0 || magazine.at_hand() & !mask != 0 {
                return Err(("a CPU has objects that are not its own", base));
            }
            let mut slots = mask;
            while slots != 0 {
                let addr = base + lowest(slots) * slabs.geometry.size as usize;
                slots &= slots - 1;
                let frame = self.memory.frames.find(self.memory.backend.direct_frame(addr));
                let owned = frame.is_some_and(|(_, frame)| {
                    frame.head().is(FrameKind::Slab) && slabs.is_live(frame, frame.head(), addr)
                });
                if !owned {
                    return Err(("an object of a CPU's is free in its slab", addr));
                }
            }
        }
        Ok(())
    }

    /// Gives back what this CPU keeps: a slot a lock hold, in which it leaves the magazine for its slab.
    pub(crate) fn drain_own(&self) {
        let Some(smp) = self.memory.smp().filter(|_| Self::KEEPS) else { return };
        for slabs in self.classes() {
            // A task that moves to another CPU meanwhile gives back some of what either keeps.
            for _ in 0..=MOST {
                let state = slabs.state.lock();
                let magazine = smp.magazine(self.memory.platform.cpu(), slabs.owner.into());
                let (ready, returned) = (magazine.ready.load(Relaxed), magazine.returned.load(Relaxed));
                let (all, base) = (ready | returned, magazine.base.load(Relaxed));
                if all == 0 {
                    // What is still out is the slab's own again.
                    magazine.set(base, 0, 0, 0, 0);
                    break;
                }
                let bit = all & all.wrapping_neg();
                magazine.ready.store(ready & !bit, Relaxed);
                magazine.returned.store(returned & !bit, Relaxed);
                magazine.mask.store(magazine.mask.load(Relaxed) & !bit, Relaxed);
                let addr = base.wrapping_add(lowest(bit) * slabs.geometry.size as usize).addr();
                let mut refused = false;
                if let Some((_, frame)) = self.memory.frames.find(self.memory.backend.direct_frame(addr)) {
                    // SAFETY: the slot was the magazine's, so it is handed out and its slab is live; its class is locked.
                    match unsafe { give(self.memory.meta_ptr(frame.link()), addr, None) } {
                        Given::Inside => drop(state),
                        Given::First(slab, w) | Given::Edge(slab, w) => slabs.settle(state, slab, w, addr),
                        Given::Refused(_) => {
                            drop(state);
                            refused = true;
                        }
                    }
                }
                if refused || ready & returned & bit != 0 {
                    self.memory.platform.bug(&Bug::BadFree { addr, error: FreeError::DoubleFree });
                }
            }
        }
    }

    /// Has every CPU give back what it keeps: this one now, and the others, those with interrupts on, as soon as their
    /// interrupt comes. Where the caller may wait for that it does, and looks `most` times for each.
    pub(crate) fn drain_cpus(&self, most: u64) {
        let Some(smp) = self.memory.smp() else { return };
        self.drain_own();
        let mut last = smp.drains.lock();
        *last = last.wrapping_add(1);
        let number = *last;
        smp.asked.store(number, SeqCst);
        drop(last);
        let is_due = |cpu: usize| {
            smp.shootdown.is_online(cpu) && !super::shootdown::is_at(smp.drained[cpu].load(SeqCst), number)
        };
        (0..P::CPUS).filter(|&cpu| is_due(cpu)).for_each(|cpu| self.memory.platform.send_ipi(cpu));
        if self.memory.platform.context() != Context::Task {
            return;
        }
        for cpu in 0..P::CPUS {
            let mut polls = 0;
            while is_due(cpu) && polls < most {
                polls += 1;
                self.poll_shootdown();
                self.drain_if_asked();
                self.memory.platform.relax();
            }
        }
    }

    /// Gives back what this CPU keeps when another one asked for it. No lock is held. (A task that moves to another CPU
    /// meanwhile gives back some of what either keeps.)
    pub(crate) fn drain_if_asked(&self) {
        let Some(smp) = self.memory.smp() else { return };
        let mine = &smp.drained[self.memory.platform.cpu() % MAX_CPUS];
        let asked = smp.asked.load(SeqCst);
        if mine.load(SeqCst) != asked {
            self.drain_own();
            mine.store(asked, SeqCst);
        }
    }
}
