//! From an address to the area that begins there, by the guard before it, or to why there is none.

use super::lowest::Tabled;
use super::{Lowest, Mapped};
use crate::addr::{Pfn, VirtAddr};
use crate::backend::{Mapping, PageTable, Walk};
use crate::error::FreeError;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::vmalloc::area::{Area, AreaKind};

/// A number that no frame of RAM has: the boot map keeps the last ones out.
const NO_FRAME: Pfn = Pfn(u32::MAX);

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// Runs `f` on the record of the live area that begins at `addr`, under the lock of the tables.
    #[inline(always)]
    pub(in crate::vmalloc) fn with_live<R>(
        &self,
        memory: &Memory<P, B>,
        addr: usize,
        f: impl FnOnce(&mut Area) -> R,
    ) -> Option<R> {
        let guard = addr.wrapping_sub(B::PAGE_SIZE);
        // Before the first page of the window there is no guard.
        if !self.holds(guard) || addr & (B::PAGE_SIZE - 1) != 0 {
            return None;
        }
        let mut held = self.tables.lock();
        let (_, id) = self.guard_at(memory, &mut held, guard)?;
        // SAFETY: a guard entry names a live record for as long as the lock of the tables is held.
        let area = unsafe { &mut *memory.area(id) };
        (area.is_live() && area.addr == addr).then(|| f(area))
    }

    /// The frame of RAM that is mapped at `addr`, which may be anything.
    #[inline(always)]
    pub(super) fn frame_at(&self, memory: &Memory<P, B>, addr: usize) -> Option<Pfn> {
        let pfn = self.frame_or_none(memory, addr);
        (pfn != NO_FRAME).then_some(pfn)
    }

    /// [`frame_at`](Self::frame_at), or [`NO_FRAME`]: in one register.
    #[inline(always)]
    fn frame_or_none(&self, memory: &Memory<P, B>, addr: usize) -> Pfn {
        let held = self.tables.lock();
        // Nothing but the frame is carried over the end of the lock.
        if let Some(pfn) = held.known_frame(memory, addr) {
            if memory.frames.is_hot(pfn) {
                return pfn;
            }
            drop(held);
            return Self::frame_elsewhere(memory, pfn);
        }
        drop(held);
        self.look_for_frame(memory, addr)
    }

    /// A frame that a page is mapped to, if it is one of RAM.
    #[cold]
    #[inline(never)]
    fn frame_elsewhere(memory: &Memory<P, B>, pfn: Pfn) -> Pfn {
        let is_ram = memory.frames.regions().iter().any(|region| region.holds(pfn.0 as usize));
        if is_ram { pfn } else { NO_FRAME }
    }

    /// [`frame_at`](Self::frame_at) of an address in any table or large entry.
    #[cold]
    #[inline(never)]
    fn look_for_frame(&self, memory: &Memory<P, B>, addr: usize) -> Pfn {
        if !self.holds(addr) {
            return NO_FRAME;
        }
        let mut held = self.tables.lock();
        // The next look is for a neighbour, mostly.
        let _ = held.lowest(memory, addr);
        let walk = memory.backend.walk_kernel(VirtAddr(addr));
        drop(held);
        match walk {
            Walk::Mapped(Mapping { pfn, .. }) if memory.frames.frame(pfn).is_some() => pfn,
            _ => NO_FRAME,
        }
    }

    /// The live area whose guard entry stands just below `addr`, if it begins there.
    pub(super) fn record_at(&self, memory: &Memory<P, B>, addr: usize) -> Option<u32> {
        let guard = VirtAddr(addr.wrapping_sub(B::PAGE_SIZE));
        match memory.backend.walk_kernel(guard) {
            Walk::Guard(id) => Some(id),
            _ => None,
        }
    }

    /// The record that the guard at `at`, which is page-aligned, names, and the table it is in.
    #[inline(always)]
    pub(super) fn guard_at<'a>(
        &self,
        memory: &'a Memory<P, B>,
        held: &mut Tabled<B>,
        at: usize,
    ) -> Option<(Lowest<'a, B>, u32)> {
        let lowest = held.lowest(memory, at)?;
        // SAFETY: the lock is held, and the table was found for this page.
        match unsafe { memory.backend.leaf_walk(lowest.leaf, VirtAddr(at)) } {
            Walk::Guard(id) => Some((lowest, id)),
            _ => None,
        }
    }

    /// Why `addr` is not the start of a live area of `kind`.
    #[cold]
    #[inline(never)]
    pub(super) fn refusal(&self, memory: &Memory<P, B>, addr: usize, kind: AreaKind) -> FreeError {
        if !self.holds(addr) {
            return memory.refusal_of_area(addr);
        }
        if addr & (B::PAGE_SIZE - 1) != 0 {
            return FreeError::Misaligned;
        }
        if let Some(refusal) = self.refusal_of_slot(addr) {
            return refusal;
        }
        let _held = self.tables.lock();
        let Some(id) = self.record_at(memory, addr) else {
            return match memory.backend.walk_kernel(VirtAddr(addr)) {
                Walk::Mapped(_) | Walk::Guard(_) => FreeError::Interior,
                Walk::Absent => FreeError::DoubleFree,
            };
        };
        // SAFETY: a guard entry names a live record for as long as the lock of the tables is held.
        let area = unsafe { &*memory.area(id) };
        if area.is_live() && area.addr & !(B::PAGE_SIZE - 1) == addr && !area.is_freed_as(kind) {
            FreeError::WrongAllocator
        } else {
            FreeError::DoubleFree
        }
    }
}
