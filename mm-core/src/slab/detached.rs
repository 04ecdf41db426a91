//! A slab on its way back to the buddy.

use super::Hooks;
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::frame::FrameKind;
use crate::memory::Memory;
use crate::meta::MetaSize;
use crate::platform::Platform;

/// A slab that no cache has any more.
#[must_use = "its pages and its descriptor come back by `give`"]
pub struct Detached {
    pub(super) id: u32,
    pub(super) descriptor: MetaSize,
    pub(super) pfn: u32,
    pub(super) pages: u16,
    pub(super) slots: u16,
    pub(super) size: u32,
    pub(super) slack: u32,
    pub(super) hooks: Hooks,
}

impl Detached {
    /// How many pages it has.
    pub fn pages(&self) -> usize {
        self.pages as usize
    }

    /// Tells that it goes back.
    #[inline(always)]
    pub(super) fn told<P: Platform, B: Backend>(&self, memory: &Memory<P, B>) {
        crate::trace::slab(false, self.size, self.pages, self.pfn);
        #[cfg(feature = "page-owner")]
        memory.disown_slab(self.pfn, self.slots);
        let _ = memory;
    }

    /// Destroys its objects, and gives its pages and its descriptor back. No lock is held.
    #[cfg_attr(feature = "small", inline(always))]
    pub fn give<P: Platform, B: Backend>(self, memory: &Memory<P, B>) {
        let first = memory.frame_ptr(Pfn(self.pfn)).wrapping_add(self.slack as usize);
        // SAFETY: what has a destructor was constructed, and no cache has the slab any more.
        unsafe { self.hooks.destroy_all(first, self.size as usize, self.slots as usize) };
        self.told(memory);
        memory.meta_give(self.id, self.descriptor);
        let _ = memory.free_block(self.pfn as usize, FrameKind::Held, Some(self.pages as usize));
    }
}
