//! Slabs: objects of one size in blocks of pages, with their free bits out of line.
//!
//! A slab is up to eight pages cut into slots. Its descriptor holds one bit per slot, 1 for free, so a double free, an
//! interior pointer or a foreign one is seen by arithmetic and one bit, and nothing is ever written into free memory.
//! Allocation takes the lowest bit of the cache's current word: a load, a count of zeros, a store.

mod cache;
mod geometry;
mod scan;

pub use cache::{CacheState, Slabs};
pub use geometry::{ClassTable, Geometry, MAX_CLASSES};
pub use scan::SlabCounts;

use crate::bits::Word;
use crate::meta::MetaSize;

/// The descriptor of a slab; `words` free bits follow it.
#[repr(C)]
pub struct Slab {
    /// Next and previous listed slab of the cache.
    next: u32,
    prev: u32,
    /// Its first frame.
    pfn: u32,
    /// Bit `w`: word `w` has a free slot (the current word may be used up unnoticed).
    summary: u16,
    /// The cache it belongs to, and whether it is listed.
    owner: u16,
}

/// Set in [`Slab::owner`] while the slab is on its cache's list.
const LISTED: u16 = 1 << 15;

impl Slab {
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
