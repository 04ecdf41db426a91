//! Free pages that the CPU cannot reach, as Linux's `debug_pagealloc`: a read or write after the free faults.
//!
//! The direct map's entry of a page is cleared when the page is freed, and written again when it is allocated, both
//! while the page is held, outside the lock. Its lowest tables must be there from the start: splitting a large entry
//! would take a page for a table in the middle of a free, which may fail or be the very call that gives the last one
//! back.

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::memory::Memory;
use crate::platform::Platform;

#[cfg(not(feature = "debug-pagealloc"))]
impl<P: Platform, B: Backend> Memory<P, B> {
    /// False: without the feature all pages can be reached.
    #[inline(always)]
    pub(crate) fn is_hiding(&self) -> bool {
        false
    }

    /// Nothing.
    #[inline(always)]
    pub(crate) fn hide(&self, _start: Pfn, _pages: usize) {}

    /// Nothing.
    #[inline(always)]
    pub(crate) fn show(&self, _start: Pfn, _pages: usize) {}
}

#[cfg(feature = "debug-pagealloc")]
mod enabled {
    use super::*;
    use crate::addr::PageRange;
    use crate::error::MmError;
    use crate::frame::FrameKind;
    use crate::manager::Mm;
    use core::fmt;
    use core::panic::Location;
    use core::sync::atomic::Ordering::Relaxed;

    impl<P: Platform, B: Backend> Memory<P, B> {
        /// True when free pages cannot be reached.
        #[inline(always)]
        pub(crate) fn is_hiding(&self) -> bool {
            self.page_poison.hidden.load(Relaxed)
        }

        /// Those of the frames that have a kernel address, when free ones are hidden.
        fn direct(&self, start: Pfn, pages: usize) -> Option<PageRange> {
            let end = self.backend.lowmem_end() >> B::PAGE_SHIFT;
            let count = (pages as u64).min(end.saturating_sub(start.0.into())) as u32;
            (self.is_hiding() && count != 0).then_some(PageRange { start, count })
        }

        /// Nobody can reach these frames from now on, which the caller holds.
        pub(crate) fn hide(&self, start: Pfn, pages: usize) {
            if let Some(run) = self.direct(start, pages) {
                // SAFETY: `init` has seen that the backend can; the caller holds the frames, and nobody else has them.
                unsafe { self.backend.hide(run) };
            }
        }

        /// These frames, which the caller holds, can be reached again.
        pub(crate) fn show(&self, start: Pfn, pages: usize) {
            if let Some(run) = self.direct(start, pages) {
                // SAFETY: as above.
                unsafe { self.backend.show(run) };
            }
        }

        /// Whether frames that are to be free can be hidden.
        pub(crate) fn can_hide(&self, start: Pfn, pages: usize) -> bool {
            self.direct(start, pages).is_none_or(|run| self.backend.can_hide(run))
        }
    }

    /// A page that is free, and what is known of it.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct FreedPage {
        /// The page.
        pub frame: Pfn,
        /// The call that allocated it last, as the first of its block; `None` without feature `page-owner`.
        pub owner: Option<&'static Location<'static>>,
    }

    impl fmt::Display for FreedPage {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "freed page {}", self.frame)?;
            self.owner.map_or(Ok(()), |owner| write!(f, ", last allocated at {owner}"))
        }
    }

    impl<P: Platform, B: Backend> Mm<P, B> {
        /// From now on the CPU cannot reach free pages that have a kernel address, as by Linux's `debug_pagealloc=on`:
        /// their entries in the direct map are cleared, and a read or write after the free is a page fault, which
        /// [`find_freed`](Self::find_freed) explains. Together with [poison](Self::page_poisoning_enable) pages are
        /// filled and looked at while they can be reached.
        ///
        /// The direct map must be in entries of single pages (`kernel::build_in_pages` of the x86 backend), of which
        /// `init` makes sure: entries are never split in a free. One table for each 2 MiB of memory is what that costs.
        ///
        /// Context: start-up, before `init`, which hides all free memory. Cost: each allocation and free of pages
        /// writes an entry for each page, and a free flushes each from this CPU's TLB; other CPUs may reach a page
        /// until they flush, as on Linux.
        ///
        /// # Errors
        /// `Unsupported` when the backend has no such entries, `AlreadyInit` behind the begin of `init`. `init` returns
        /// `Unsupported` when the direct map is in large entries.
        #[doc(alias = "debug_pagealloc_enabled")]
        pub fn debug_pagealloc_enable(&self) -> Result<(), MmError> {
            if !B::CAN_HIDE {
                return Err(MmError::Unsupported);
            }
            if *self.memory.started.lock() {
                return Err(MmError::AlreadyInit);
            }
            self.memory.page_poison.hidden.store(true, Relaxed);
            Ok(())
        }

        /// The free page that a kernel address lies in, if free pages are [hidden](Self::debug_pagealloc_enable): for
        /// the report of a fault.
        ///
        /// Context: any, fault handlers too; takes no lock, so that it may be out of date if others run.
        pub fn find_freed(&self, addr: usize) -> Option<FreedPage> {
            let memory = &self.memory;
            let pfn = memory.backend.direct_frame(addr);
            let (_, frame) = memory.frames.find(pfn).filter(|_| memory.is_hiding())?;
            let free = matches!(frame.head().kind(), FrameKind::Tail | FrameKind::Held | FrameKind::Withdrawn);
            let frame = Pfn(pfn as u32);
            if !free || memory.backend.can_reach(frame) {
                return None;
            }
            #[cfg(feature = "page-owner")]
            let owner = memory.block_owner(pfn);
            #[cfg(not(feature = "page-owner"))]
            let owner = None;
            Some(FreedPage { frame, owner })
        }
    }
}

#[cfg(feature = "debug-pagealloc")]
pub use enabled::FreedPage;
