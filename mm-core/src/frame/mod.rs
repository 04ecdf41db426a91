//! The frame table: one eight-byte record per page frame, out of line.

mod map;

pub use map::{FrameMap, Region, Single};

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What a frame is used for.
///
/// The first frame of a block carries the kind and the block's length; the others read [`FrameKind::Tail`], as free
/// frames do: whether a tail is free is told by the buddy's bitmap alone.
///
/// The numbers of what callers have, and nothing else's, have bit 1: of many frames that is told by one AND of their
/// heads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum FrameKind {
    /// Free, or inside a block.
    Tail = 0,
    /// Never managed: firmware, kernel image, early boot allocations, the manager's own tables.
    Reserved = 1,
    /// A frame of a kmalloc slab; the record names its descriptor.
    Slab = 2,
    /// A frame of a `KmemCache` slab; the record names its descriptor.
    CacheSlab = 3,
    /// A page of descriptors.
    Meta = 4,
    /// A page table; the length field counts its live entries.
    Table = 5,
    /// Head of a block of `get_free_pages` and friends.
    Pages = 6,
    /// Head of a block that `kmalloc` took whole.
    Large = 7,
    /// Head of a block that backs a vmalloc area.
    Mapped = 8,
    /// Head of a block that was unmapped and waits for its flush.
    Pending = 9,
    /// A frame of a kmalloc slab for devices; the record names its descriptor.
    DmaSlab = 10,
    /// Head of a block of pages that was freed while others held references on it: it goes back with the last one.
    Deferred = 11,
    /// Head of a block the manager has in hand: on its way to or from a slab, or kept for the next page table. No
    /// caller has it, so no caller can free it.
    Held = 12,
    /// Taken out of use for good, because what was written to it while it was free did not stay, or should not have come.
    #[cfg(feature = "page-poison")]
    Withdrawn = 13,
}

impl FrameKind {
    /// How many there are.
    pub(crate) const COUNT: usize = FrameKind::Held as usize + if cfg!(feature = "page-poison") { 2 } else { 1 };

    #[inline(always)]
    const fn from_bits(bits: u32) -> FrameKind {
        match bits & 0xff {
            0 => FrameKind::Tail,
            2 => FrameKind::Slab,
            3 => FrameKind::CacheSlab,
            4 => FrameKind::Meta,
            5 => FrameKind::Table,
            6 => FrameKind::Pages,
            7 => FrameKind::Large,
            8 => FrameKind::Mapped,
            9 => FrameKind::Pending,
            10 => FrameKind::DmaSlab,
            11 => FrameKind::Deferred,
            12 => FrameKind::Held,
            #[cfg(feature = "page-poison")]
            13 => FrameKind::Withdrawn,
            // An unknown value is damage; treating it as reserved keeps every free of it refused.
            _ => FrameKind::Reserved,
        }
    }
}

/// What the numbers of kinds have in common that callers have; no other kind has it.
const CALLERS: u32 = 1 << 1;

/// A frame's record: two words that are read without a lock and written by the block's owner or under its lock.
#[repr(C)]
pub struct Frame {
    /// kind in bits 0..8, slab class (of blocks of pages: references) in 8..16, pages (or live entries, or index in the slab) in 16..32.
    head: AtomicU32,
    /// Descriptor, area, next frame in a chain, or the flags a block of pages was taken with.
    link: AtomicU32,
}

/// The first word of a [`Frame`], decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head(u32);

impl Head {
    /// A head of `kind` with `count` pages, entries or index.
    #[inline(always)]
    pub const fn new(kind: FrameKind, class: u8, count: u32) -> Head {
        Head(kind as u32 | (class as u32) << 8 | count << 16)
    }

    /// What the frame is used for.
    #[inline(always)]
    pub fn kind(self) -> FrameKind {
        FrameKind::from_bits(self.0)
    }

    /// The number of the kind, which may be none's.
    #[inline(always)]
    pub const fn number(self) -> usize {
        (self.0 & 0xff) as usize
    }

    /// True when the kind is `kind`; cheaper than comparing [`Head::kind`].
    #[inline(always)]
    pub const fn is(self, kind: FrameKind) -> bool {
        self.0 & 0xff == kind as u32
    }

    /// What two heads have in common; of many, [`is_callers`](Self::is_callers) of it is that of each.
    #[inline(always)]
    pub(crate) const fn both(self, other: Head) -> Head {
        Head(self.0 & other.0)
    }

    /// True for memory that a caller has, and that is no area's.
    #[inline(always)]
    pub(crate) const fn is_callers(self) -> bool {
        self.0 & CALLERS != 0
    }

    /// True for a head of `kind` with `count`, and nothing else in it.
    #[inline(always)]
    pub fn is_run(self, kind: FrameKind, count: u32) -> bool {
        self == Head::new(kind, 0, count)
    }

    /// This one with a count one larger.
    #[inline(always)]
    pub const fn next(self) -> Head {
        Head(self.0 + (1 << 16))
    }

    /// This one with a count `n` larger, which fits.
    #[inline(always)]
    pub const fn more(self, n: u32) -> Head {
        Head(self.0 + (n << 16))
    }

    /// This one with a count `n` smaller, which is not below 0.
    #[inline(always)]
    pub const fn less(self, n: u32) -> Head {
        Head(self.0 - (n << 16))
    }

    /// The slab class, or how many references beside the owner's a block of pages has.
    #[inline(always)]
    pub const fn class(self) -> usize {
        (self.0 >> 8 & 0xff) as usize
    }

    /// Pages of the block, live entries of the table, or the frame's index within its slab.
    #[inline(always)]
    pub const fn count(self) -> u32 {
        self.0 >> 16
    }
}

impl Frame {
    /// The decoded first word.
    #[inline(always)]
    pub fn head(&self) -> Head {
        Head(self.head.load(Relaxed))
    }

    /// Replaces the first word.
    #[inline(always)]
    pub fn set_head(&self, head: Head) {
        self.head.store(head.0, Relaxed);
    }

    /// The second word.
    #[inline(always)]
    pub fn link(&self) -> u32 {
        self.link.load(Relaxed)
    }

    /// Replaces the second word.
    #[inline(always)]
    pub fn set_link(&self, link: u32) {
        self.link.store(link, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_have_is_told_by_one_bit_and_every_kind_is_read_back() {
        use FrameKind::{CacheSlab, Deferred, DmaSlab, Large, Pages, Slab};
        let callers = [Pages, Large, Slab, CacheSlab, DmaSlab, Deferred];
        for number in 0..FrameKind::COUNT as u32 {
            let kind = FrameKind::from_bits(number);
            assert_eq!(kind as u32, number);
            let head = Head::new(kind, 0xff, 0xffff);
            assert_eq!(head.is_callers(), callers.contains(&kind), "{kind:?}");
            // One that no caller has is seen among others.
            for other in callers {
                assert_eq!(head.both(Head::new(other, 0, 1)).is_callers(), head.is_callers());
            }
        }
    }
}
