//! Guarded slabs: a red zone on both sides of every object, and poison in those that are free.
//!
//! All of it lies beside the objects or in free ones, and is only ever compared with what it should be: an overflow can
//! spoil a pattern, never the cache. Spoilt objects are left in nobody's hands and never handed out again.

use super::{Given, Slab, Slabs, give};
use crate::backend::Backend;
use crate::bits::{WORD_MASK, WORD_SHIFT};
use crate::error::{AllocError, FreeError};
use crate::gfp::Gfp;
use crate::meta::NIL;
use crate::platform::{Bug, Overwritten, Platform};
use core::panic::Location;
use core::ptr::NonNull;

/// Bytes of a red zone: an overflow that steps over it is a stray pointer.
pub const ZONE: usize = 64;
/// What a red zone holds, as Linux's `SLUB_RED_ACTIVE`.
const RED: u8 = 0xcc;
/// What a free object holds, as Linux's `POISON_FREE`.
const POISON: u8 = 0x6b;

/// What reports call kmalloc's classes.
#[cfg(feature = "kmalloc-debug")]
pub const KMALLOC: &str = "kmalloc";

/// What a cache watches.
#[derive(Clone, Copy)]
pub struct Guarded {
    /// Bytes of an object that are the caller's.
    pub object: usize,
    /// There are red zones.
    pub zones: Zones,
    /// Free objects are poisoned.
    pub poison: Poison,
}

/// Whether there are red zones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Zones {
    /// Yes.
    Red,
    /// No.
    None,
}

/// Whether free objects are poisoned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    /// Yes.
    Free,
    /// No.
    None,
}

/// A byte that is not as it was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spoilt {
    /// The object beside it or around it.
    pub object: usize,
    /// The lowest such byte.
    pub at: usize,
    /// What it was part of.
    pub what: Overwritten,
}

impl Guarded {
    /// Fills a new slab: everything red, and the objects poisoned.
    ///
    /// # Safety
    /// `slots` objects of `size` bytes begin at `first`, with a red zone before it when there are any, and nobody else
    /// has them.
    pub unsafe fn fill(&self, first: *mut u8, size: usize, slots: usize) {
        if self.zones == Zones::Red {
            // SAFETY: by the caller's word.
            unsafe { first.sub(ZONE).write_bytes(RED, ZONE + size * slots) };
        }
        if self.poison == Poison::Free {
            // SAFETY: as above.
            (0..slots).for_each(|slot| unsafe { first.add(slot * size).write_bytes(POISON, self.object) });
        }
    }

    /// The first spoilt byte before or behind an object.
    ///
    /// # Safety
    /// The object is one of a slab that `fill` filled.
    unsafe fn around(&self, object: *mut u8, size: usize) -> Option<Spoilt> {
        // SAFETY: by the caller's word.
        unsafe { self.before(object).or_else(|| self.behind(object, size)) }
    }

    /// The first spoilt byte before an object.
    ///
    /// # Safety
    /// As for [`around`](Self::around).
    unsafe fn before(&self, object: *mut u8) -> Option<Spoilt> {
        if self.zones == Zones::None {
            return None;
        }
        // SAFETY: the zone is a part of the slab.
        let at = unsafe { first_other(object.sub(ZONE), ZONE, RED) }?;
        Some(Spoilt { object: object.addr(), at: at.addr(), what: Overwritten::RedZone })
    }

    /// The first spoilt byte behind an object, in the zone it shares with the next.
    ///
    /// # Safety
    /// As for [`around`](Self::around).
    unsafe fn behind(&self, object: *mut u8, size: usize) -> Option<Spoilt> {
        if self.zones == Zones::None {
            return None;
        }
        // SAFETY: the zone is a part of the slab.
        let at = unsafe { first_other(object.add(self.object), size - self.object, RED) }?;
        Some(Spoilt { object: object.addr(), at: at.addr(), what: Overwritten::RedZone })
    }

    /// Makes the zones around an object red again, so that its neighbours are not blamed too.
    ///
    /// # Safety
    /// As for [`around`](Self::around).
    unsafe fn mend(&self, object: *mut u8, size: usize) {
        // SAFETY: the zones are parts of the slab.
        unsafe {
            object.sub(ZONE).write_bytes(RED, ZONE);
            object.add(self.object).write_bytes(RED, size - self.object);
        }
    }

    /// The first byte of a free object that is no poison any more.
    ///
    /// # Safety
    /// As for [`around`](Self::around), and the object is in nobody's hands.
    unsafe fn inside(&self, object: *mut u8) -> Option<Spoilt> {
        if self.poison == Poison::None {
            return None;
        }
        // SAFETY: by the caller's word.
        let at = unsafe { first_other(object, self.object, POISON) }?;
        Some(Spoilt { object: object.addr(), at: at.addr(), what: Overwritten::Poison })
    }
}

/// The first of `len` bytes that is not `byte`.
///
/// # Safety
/// The bytes can be read.
unsafe fn first_other(from: *mut u8, len: usize, byte: u8) -> Option<*mut u8> {
    // SAFETY: by the caller's word. Volatile: they change by mistake, under nobody's control.
    (0..len).map(|i| from.wrapping_add(i)).find(|at| unsafe { at.read_volatile() } != byte)
}

impl<P: Platform, B: Backend> Slabs<'_, P, B> {
    /// Tells of an object of the cache called `name` that is spoilt.
    pub fn report(&self, name: &'static str, spoilt: Spoilt, caller: &'static Location<'static>) {
        let Spoilt { object, at, what } = spoilt;
        #[cfg(feature = "page-owner")]
        let owner = self.memory.owner(self.memory.backend.direct_frame(object), object);
        #[cfg(not(feature = "page-owner"))]
        let owner = None;
        self.memory.platform.bug(&Bug::ObjectDamaged { cache: name, object, at, what, owner, caller });
    }

    /// An object that was taken, or another in its place: one that was written to while it was free is reported, and
    /// stays in nobody's hands.
    ///
    /// # Errors
    /// As [`alloc_slab`](Self::alloc_slab), when there is no other.
    #[cold]
    pub fn sound(
        &self,
        name: &'static str,
        mut object: NonNull<u8>,
        flags: Gfp,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        let Some(guarded) = &self.hooks.guarded else { return Ok(object) };
        while let Some(spoilt) = self.spoilt_taken(guarded, object) {
            self.report(name, spoilt, caller);
            object = match self.free_object() {
                Some(next) => next,
                None => self.alloc_slab(flags, None)?,
            };
        }
        Ok(object)
    }

    /// What is spoilt about an object that was just taken.
    fn spoilt_taken(&self, guarded: &Guarded, object: NonNull<u8>) -> Option<Spoilt> {
        let (object, size) = (object.as_ptr(), self.geometry.size as usize);
        // SAFETY: an object of a slab of this cache, and the caller's.
        unsafe { guarded.inside(object).or_else(|| guarded.around(object, size)) }
    }

    /// Gives an object back when nothing around it is spoilt. Else it stays taken, in nobody's hands, and what is spoilt
    /// is returned.
    ///
    /// All under the lock, so that no byte of an object is touched that is not its owner's to give.
    ///
    /// # Errors
    /// As [`give_batch`](Self::give_batch).
    pub fn give_guarded(&self, guarded: &Guarded, addr: usize) -> Result<Option<Spoilt>, FreeError> {
        let state = self.state.lock();
        let frame = self.memory.frames.find(self.memory.backend.direct_frame(addr));
        let Some((_, frame)) = frame.filter(|(_, frame)| frame.head().is(self.kind)) else {
            return Err(FreeError::WrongAllocator);
        };
        if frame.head().class() != self.owner as usize {
            return Err(FreeError::WrongCache);
        }
        let slab = self.slab(frame.link());
        if let Some(object) = self.live_object(slab, addr) {
            // SAFETY: live, so of a slab of this cache; its owner gives it up.
            unsafe {
                if let Some(spoilt) = guarded.around(object, self.geometry.size as usize) {
                    guarded.mend(object, self.geometry.size as usize);
                    return Ok(Some(spoilt));
                }
                if guarded.poison == Poison::Free {
                    object.write_bytes(POISON, guarded.object);
                }
            }
        }
        // SAFETY: the frame names a live slab of this cache, whose lock is held, for as long as its head says so.
        match unsafe { give(slab, addr, Some(self.geometry.slots)) } {
            Given::Inside => Ok(None),
            Given::First(slab, w) | Given::Edge(slab, w) => {
                self.settle(state, slab, w, addr);
                Ok(None)
            }
            Given::Refused(error) => Err(error),
        }
    }

    /// The object that begins at `addr` in a slab, if it is in a caller's hands. The lock is held.
    fn live_object(&self, slab: *mut Slab, addr: usize) -> Option<*mut u8> {
        let pages = self.memory.frame_ptr(self.pfn_of(slab));
        let offset = addr.wrapping_sub(pages.addr());
        let slot = self.geometry.slot(offset).filter(|slot| *slot < self.geometry.slots as usize)?;
        self.is_taken(slab, slot).then(|| pages.wrapping_add(offset))
    }

    fn is_taken(&self, slab: *mut Slab, slot: usize) -> bool {
        let word = Slab::words(slab).wrapping_add(slot >> WORD_SHIFT);
        // SAFETY: the slab is live, the lock is held, and the slot is one of its.
        unsafe { *word >> (slot & WORD_MASK) & 1 == 0 }
    }

    /// The first thing that is spoilt at or behind object number `from` of the slabs of this cache, counted over the
    /// frame table, and the number to go on from. A diagnostic: walks the frame table; one slab under the lock at a time.
    pub fn find_spoilt(&self, guarded: &Guarded, from: (usize, usize)) -> Option<(Spoilt, (usize, usize))> {
        let (mut pfn, mut slot) = from;
        while let Some((found, id)) = self.memory.next_block(pfn, self.kind) {
            let state = self.state.lock();
            let at = found.0 as usize;
            if at != pfn {
                slot = 0;
            }
            pfn = at + 1;
            let first = self.memory.frames.frame(found).is_some_and(|frame| {
                let head = frame.head();
                head.is(self.kind) && head.class() == self.owner as usize && head.count() == 0
            });
            if !first || id == NIL {
                continue;
            }
            let slab = self.slab(id);
            let size = self.geometry.size as usize;
            let origin = self.memory.frame_ptr(found).wrapping_add(self.geometry.slack as usize);
            for slot in slot..self.geometry.slots as usize {
                let object = origin.wrapping_add(slot * size);
                // SAFETY: an object of a slab of this cache; the lock is held, so a free one stays free.
                let spoilt = unsafe {
                    let inside = if self.is_taken(slab, slot) { None } else { guarded.inside(object) };
                    // Each zone once.
                    let before = if slot == 0 { guarded.before(object) } else { None };
                    inside.or(before).or_else(|| guarded.behind(object, size))
                };
                if let Some(spoilt) = spoilt {
                    return Some((spoilt, (at, slot + 1)));
                }
            }
            drop(state);
        }
        None
    }
}
