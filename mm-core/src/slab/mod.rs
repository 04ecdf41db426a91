//! Slabs: objects of one size in blocks of pages, with their free bits out of line.
//!
//! A slab is up to eight pages cut into slots. Its descriptor holds one bit per slot, 1 for free, so a double free, an
//! interior pointer or a foreign one is seen by arithmetic and one bit, and nothing is ever written into free memory.
//! Allocation takes the lowest bit of the cache's current word: a load, a count of zeros, a store.

mod bulk;
#[cfg(not(feature = "small"))]
mod cache;
mod counts;
mod detached;
mod geometry;
mod give;
#[cfg(feature = "slab-debug")]
mod guard;
mod hooks;
mod object;
#[cfg(not(feature = "small"))]
mod scan;
mod short;
#[cfg(feature = "small")]
mod small;
#[cfg(not(feature = "small"))]
mod spare;
#[cfg(not(feature = "small"))]
mod state;
mod states;

pub use bulk::BATCH;
#[cfg(not(feature = "small"))]
pub use cache::{Slabs, Slabs as Store};
pub use counts::SlabCounts;
pub use detached::Detached;
pub use geometry::{ClassTable, Geometry, MAX_CLASSES};
pub use give::{Given, give};
#[cfg(feature = "kmalloc-debug")]
pub use guard::KMALLOC;
#[cfg(feature = "slab-debug")]
pub use guard::{Guarded, Poison, Spoilt, ZONE, Zones};
pub use hooks::{ClassHooks, Hooks};
#[cfg(feature = "small")]
pub use small::{CacheState, OpenWord, Slabs, Store};
#[cfg(not(feature = "small"))]
pub use state::{CacheState, OpenWord};
pub use states::{ClassStates, InManager, SetAside};

use crate::bits::Word;
use crate::meta::MetaSize;

/// The descriptor of a slab; `words` free bits follow it.
///
/// What a free needs stands here, in one line, and not with the cache: a free then need not look for its cache.
#[cfg(not(feature = "small"))]
#[repr(C)]
pub struct Slab {
    /// Minus the address of slot 0: what a free adds to find its slot.
    origin: usize,
    /// Next and previous listed slab of the cache.
    next: u32,
    prev: u32,
    /// The cache's [`Geometry::recip`].
    recip: u32,
    /// Bit `w`: word `w` has a free slot, and is not the cache's current word. The slab is listed while there is one.
    summary: u16,
    /// The class or the number of the cache it belongs to.
    owner: u8,
    /// The index of the cache's current word if this slab has it, else `NOWHERE`.
    place: u8,
}

/// The same where code is to be small.
#[cfg(feature = "small")]
#[repr(C)]
pub struct Slab {
    /// Minus the address of slot 0: what a free adds to find its slot.
    origin: usize,
    /// The next listed slab of the cache, and the previous one of all but the first.
    next: *mut Slab,
    prev: *mut Slab,
    /// The cache it belongs to.
    state: *const CacheState,
    /// How many slots are free.
    free: u32,
}

/// [`Slab::place`] of a slab that does not have the current word.
#[cfg(not(feature = "small"))]
const NOWHERE: u8 = 0xff;

impl Slab {
    /// The class or the number of the cache it belongs to.
    ///
    /// # Safety
    /// The slab is live.
    #[cfg(not(feature = "small"))]
    #[inline(always)]
    pub unsafe fn owner(this: *mut Slab) -> usize {
        // SAFETY: live, by the caller's word.
        usize::from(unsafe { (*this).owner })
    }

    /// The cache's [`Geometry::recip`].
    ///
    /// # Safety
    /// The slab is live.
    #[inline(always)]
    unsafe fn recip(this: *mut Slab) -> u32 {
        // SAFETY: live, by the caller's word, as is its cache.
        unsafe {
            #[cfg(feature = "small")]
            return CacheState::recip((*this).state);
            #[cfg(not(feature = "small"))]
            (*this).recip
        }
    }

    /// The number of the slot that begins at `addr`.
    ///
    /// # Safety
    /// The slab is live, and the slot one of its.
    #[cfg(feature = "page-owner")]
    pub unsafe fn slot_of(this: *mut Slab, addr: usize) -> usize {
        // SAFETY: live, by the caller's word.
        let (origin, recip) = unsafe { ((*this).origin, Self::recip(this)) };
        ((origin.wrapping_add(addr) as u32 as u64 * recip as u64) >> 32) as usize
    }

    /// How many slots are free.
    ///
    /// # Safety
    /// The slab is live, and the lock of its cache is held.
    #[cfg(feature = "small")]
    pub unsafe fn free(this: *mut Slab) -> u32 {
        // SAFETY: live, by the caller's word.
        unsafe { (*this).free }
    }

    /// The slab's free bits.
    #[inline(always)]
    fn words(this: *mut Slab) -> *mut Word {
        this.wrapping_add(1).cast()
    }
}

/// The descriptor size for a slab of `words` words of bits.
const fn meta_size(words: usize) -> MetaSize {
    if size_of::<Slab>() + words * size_of::<Word>() <= MetaSize::Small.bytes() {
        MetaSize::Small
    } else {
        MetaSize::Large
    }
}

/// The most slots a slab can have: what fits the large descriptor.
const MAX_SLOTS: usize = 512;
const _: () = assert!(size_of::<Slab>() + MAX_SLOTS / 8 <= MetaSize::Large.bytes());
