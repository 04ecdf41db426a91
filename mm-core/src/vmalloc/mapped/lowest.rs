//! What the lock of the tables guards, and the lowest table used last: most areas come and go within one.

use super::ram::RamSlots;
use crate::addr::{Pfn, VirtAddr};
use crate::backend::PageTable;
use crate::frame::Frame;
use crate::lock::Guard;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::vmalloc::ioremaps::Ioremaps;
use core::mem::MaybeUninit;

/// No table: no address is in this reach.
const NOWHERE: usize = usize::MAX;

/// What the lock of the tables guards beside the tables and the states of records.
pub(super) struct Tabled<B: PageTable> {
    pub(super) ioremaps: Ioremaps,
    pub(super) ram: RamSlots<B>,
    /// Which of all lowest tables it is that was used last, by the addresses it has entries for.
    reach: usize,
    /// Its name; filled unless `reach` is `NOWHERE`.
    leaf: MaybeUninit<B::Leaf>,
    /// The record of its frame, or null when its entries are not counted.
    frame: *const Frame,
}

// SAFETY: the pointer is to a record of the frame table, which lives as long as the manager and is shared by all threads.
unsafe impl<B: PageTable> Send for Tabled<B> {}

/// Looks for the lowest table of `at`, and opens the lock for a moment behind that: what follows takes long enough. False
/// when there is none.
#[cold]
#[inline(never)]
pub(super) fn look_first<P: Platform, B: PageTable>(
    memory: &Memory<P, B>,
    held: &mut Guard<'_, P::Lock, Tabled<B>>,
    at: usize,
) -> bool {
    let found = held.lowest(memory, at).is_some();
    if found {
        held.pause();
    }
    found
}

/// A lowest table in use; good as long as the lock of the tables is held and nothing is unmapped, or its holder has entries
/// in it.
pub(in crate::vmalloc) struct Lowest<'a, B: PageTable> {
    /// Its name.
    pub leaf: B::Leaf,
    /// The record of its frame, when its entries are counted.
    pub frame: Option<&'a Frame>,
}

impl<B: PageTable> Tabled<B> {
    pub(super) const fn new() -> Self {
        Tabled {
            ioremaps: Ioremaps::new(),
            ram: RamSlots::new(),
            reach: NOWHERE,
            leaf: MaybeUninit::uninit(),
            frame: core::ptr::null(),
        }
    }

    /// The lowest table that has the entry of `at`, a page of the window, if there is one. Cost: a comparison, or a walk.
    #[inline(always)]
    pub(super) fn lowest<'a, P: Platform>(&mut self, memory: &'a Memory<P, B>, at: usize) -> Option<Lowest<'a, B>> {
        let reach = at >> (B::PAGE_SHIFT + B::LARGE_PAGES.trailing_zeros());
        if self.reach != reach && !self.look(memory, at, reach) {
            return None;
        }
        // SAFETY: `look` filled the name, now or before; the record is one of the frame table.
        Some(unsafe { Lowest { leaf: self.leaf.assume_init(), frame: self.frame.as_ref() } })
    }

    /// The frame that `at`, which may be anything, is mapped to, if the table used last has its entry: then `at` is in the
    /// window.
    #[inline(always)]
    pub(super) fn known_frame<P: Platform>(&self, memory: &Memory<P, B>, at: usize) -> Option<Pfn> {
        if !self.is_known(at) {
            return None;
        }
        let mut found = None;
        let each = |pfn| {
            found = Some(pfn);
            true
        };
        // SAFETY: `look` filled the name, and whoever has `self` holds the lock; the table has this entry.
        unsafe { memory.backend.leaf_frames(self.leaf.assume_init(), VirtAddr(at), 1, each) };
        found
    }

    /// True when [`lowest`](Self::lowest) of `at` costs a comparison.
    #[inline(always)]
    pub(super) fn is_known(&self, at: usize) -> bool {
        self.reach == at >> (B::PAGE_SHIFT + B::LARGE_PAGES.trailing_zeros())
    }

    #[cold]
    #[inline(never)]
    fn look<P: Platform>(&mut self, memory: &Memory<P, B>, at: usize, reach: usize) -> bool {
        // SAFETY: whoever has `self` holds the lock.
        let Some(leaf) = (unsafe { memory.backend.leaf(memory.backend.kernel_root(), VirtAddr(at)) }) else {
            return false;
        };
        let frame = memory.backend.leaf_frame(leaf).and_then(|pfn| memory.frames.frame(pfn));
        (self.reach, self.frame) = (reach, frame.map_or(core::ptr::null(), core::ptr::from_ref));
        self.leaf.write(leaf);
        true
    }

    /// A lowest table was unlinked.
    pub(super) fn forget(&mut self) {
        self.reach = NOWHERE;
    }
}
