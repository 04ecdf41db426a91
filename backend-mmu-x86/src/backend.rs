//! x86 as a backend of `mm-core`.

use crate::leaf::{self, Leaf};
use crate::machine::Machine;
use crate::{change, walker, window};
use core::sync::atomic::{AtomicU32, Ordering};
use mm_core::vmalloc::Mapped;
use mm_core::{
    Backend, CacheMode, InManager, Join, MapError, MapFrames, PageRange, PageTable, Pfn, Platform, Prot, RawLock,
    TableFrames, VirtAddr, VirtRange, Walk,
};

/// x86 page tables on machine `M`: `Hw` in a kernel, a simulated one in tests.
pub struct X86<M> {
    machine: M,
    /// The last frame this CPU can address; 0 before it was asked. Frame numbers have 32 bits, so a CPU with 44
    /// address bits or more can address all.
    last_frame: AtomicU32,
    /// Local windows in use.
    windows: AtomicU32,
}

impl<M: Machine> X86<M> {
    /// The backend on `machine`. Nothing is touched yet.
    pub const fn new(machine: M) -> Self {
        X86 { machine, last_frame: AtomicU32::new(0), windows: AtomicU32::new(0) }
    }

    /// The machine below.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    #[inline(always)]
    fn last_frame(&self) -> u32 {
        match self.last_frame.load(Ordering::Relaxed) {
            0 => self.ask_last_frame(),
            known => known,
        }
    }

    /// Asked once: the question traps in a virtual machine.
    #[cold]
    fn ask_last_frame(&self) -> u32 {
        let last = last_frame(self.machine.phys_bits());
        self.last_frame.store(last, Ordering::Relaxed);
        last
    }
}

/// The last frame number with `bits` address bits. Wider CPUs than 44 bits are treated as such, and the very last
/// frame of theirs is left out, so that a length compared with the room for it never has all bits set.
pub(crate) fn last_frame(bits: u32) -> u32 {
    (u32::MAX >> 44u32.saturating_sub(bits).min(31)).min(u32::MAX - 1)
}

impl<M: Machine + Default> Default for X86<M> {
    fn default() -> Self {
        X86::new(M::default())
    }
}

// SAFETY: `Machine` promises the same of the direct map, and of its windows what `with_frame` gives.
unsafe impl<M: Machine> Backend for X86<M> {
    const PAGE_SHIFT: u32 = 12;
    const PHYS_BITS: u32 = 52;
    const DIRECT_IS_LINEAR: bool = M::DIRECT_IS_LINEAR;
    const HAS_MMU: bool = true;

    type Areas<P: Platform> = Mapped<P, Self>;
    type Classes<L: RawLock> = InManager<L>;

    #[inline(always)]
    fn direct_ptr(&self, phys: usize) -> *mut u8 {
        self.machine.direct_ptr(phys)
    }

    #[inline(always)]
    fn direct_frame(&self, addr: usize) -> usize {
        self.machine.direct_frame(addr)
    }

    #[inline(always)]
    fn lowmem_end(&self) -> u64 {
        self.machine.lowmem_end()
    }

    const CAN_HIDE: bool = true;

    fn can_hide(&self, run: PageRange) -> bool {
        crate::direct::is_in_pages(&self.machine, run)
    }

    fn can_reach(&self, pfn: Pfn) -> bool {
        crate::direct::has(&self.machine, pfn)
    }

    unsafe fn hide(&self, run: PageRange) {
        // SAFETY: by the caller.
        unsafe { crate::direct::hide(&self.machine, run) };
    }

    unsafe fn show(&self, run: PageRange) {
        // SAFETY: by the caller.
        unsafe { crate::direct::show(&self.machine, run) };
    }

    #[inline(always)]
    unsafe fn with_frame<R>(&self, pfn: Pfn, f: impl FnOnce(*mut u8) -> R) -> R {
        let phys = u64::from(pfn.0) << Self::PAGE_SHIFT;
        if phys < self.machine.lowmem_end() {
            return f(self.machine.direct_ptr(phys as usize));
        }
        // SAFETY: by the caller, who has RAM past the direct map only after the kernel's tables took over.
        unsafe { window::with(&self.machine, &self.windows, pfn, f) }
    }

    unsafe fn try_with_frame<R>(&self, pfn: Pfn, f: impl FnOnce(*mut u8) -> R) -> Option<R> {
        let phys = u64::from(pfn.0) << Self::PAGE_SHIFT;
        if phys < self.machine.lowmem_end() {
            return Some(f(self.machine.direct_ptr(phys as usize)));
        }
        // SAFETY: as above.
        unsafe { window::with_up_to(&self.machine, &self.windows, pfn, window::CALLERS, f) }
    }
}

// SAFETY: the walker maps exactly the entries of the range (`place` over absent ones, `unmap` and `protect` within
// the range and one table), and each flush of a page drops cached upper entries too, by `Machine`.
unsafe impl<M: Machine> PageTable for X86<M> {
    const MAX_TABLES: usize = M::LEVELS.count as usize - 1;
    const LARGE_PAGES: u32 = walker::LARGE_PAGES;
    const BATCH: u32 = walker::BATCH;

    type Leaf = Leaf;

    #[inline(always)]
    fn kernel_root(&self) -> Pfn {
        self.machine.root()
    }

    #[inline]
    fn direct_virt(&self, pfn: Pfn) -> Option<VirtAddr> {
        let phys = u64::from(pfn.0) << Self::PAGE_SHIFT;
        if phys >= self.machine.lowmem_end() {
            return None;
        }
        Some(VirtAddr(self.machine.direct_base() + phys as usize))
    }

    #[inline]
    fn kmap_window(&self) -> VirtRange {
        window::for_kmap(&self.machine)
    }

    #[inline]
    unsafe fn map(
        &self,
        root: Pfn,
        at: VirtAddr,
        run: PageRange,
        prot: Prot,
        cache: CacheMode,
        tables: &mut impl TableFrames,
    ) -> Result<u32, MapError> {
        if !self.can_address(run) {
            return Err(MapError::BadFrame);
        }
        // SAFETY: by the caller; the frames were checked.
        unsafe { walker::map(&self.machine, root, at.0, run, prot, cache, tables) }
    }

    #[inline]
    unsafe fn unmap(
        &self,
        root: Pfn,
        at: VirtAddr,
        pages: u32,
        tables: &mut impl TableFrames,
        block: &mut impl FnMut(Pfn, u32) -> u32,
    ) -> u32 {
        // SAFETY: by the caller.
        unsafe { walker::unmap(&self.machine, root, at.0, pages, tables, block) }
    }

    #[inline]
    unsafe fn walk(&self, root: Pfn, at: VirtAddr) -> Walk {
        walker::walk(&self.machine, root, at.0)
    }

    #[inline(always)]
    unsafe fn leaf(&self, root: Pfn, at: VirtAddr) -> Option<Leaf> {
        // SAFETY: by the caller.
        unsafe { leaf::find(&self.machine, root, at.0) }
    }

    #[inline(always)]
    fn leaf_frame(&self, leaf: Leaf) -> Option<Pfn> {
        leaf.is_counted().then_some(leaf.pfn)
    }

    #[inline]
    fn can_address(&self, run: PageRange) -> bool {
        let last = self.last_frame();
        // A count of 0 wraps to more than there can be.
        run.start.0 <= last && run.count.wrapping_sub(1) <= last - run.start.0
    }

    #[inline(always)]
    unsafe fn leaf_walk(&self, leaf: Leaf, at: VirtAddr) -> Walk {
        // SAFETY: by the caller.
        unsafe { leaf::walk(&self.machine, leaf, at.0) }
    }

    #[inline(always)]
    unsafe fn leaf_map(
        &self,
        leaf: Leaf,
        at: VirtAddr,
        guard: Option<u32>,
        frames: MapFrames<'_>,
        prot: Prot,
        cache: CacheMode,
        tables: &mut impl TableFrames,
        pause: &mut impl FnMut(),
    ) -> u32 {
        // SAFETY: by the caller.
        unsafe { leaf::map(&self.machine, leaf, at.0, guard, frames, prot, cache, tables, pause) }
    }

    #[inline(always)]
    unsafe fn leaf_frames(&self, leaf: Leaf, at: VirtAddr, most: u32, each: impl FnMut(Pfn) -> bool) -> u32 {
        // SAFETY: by the caller.
        unsafe { leaf::frames(&self.machine, leaf, at.0, most, each) }
    }

    #[inline(always)]
    unsafe fn leaf_take(
        &self,
        leaf: Leaf,
        at: VirtAddr,
        most: u32,
        each: impl FnMut(Pfn) -> bool,
        pause: &mut impl FnMut(),
    ) -> u32 {
        // SAFETY: by the caller.
        unsafe { leaf::take(&self.machine, leaf, at.0, most, each, pause) }
    }

    #[inline(always)]
    unsafe fn leaf_clear(&self, leaf: Leaf, at: VirtAddr, entries: u32) {
        // SAFETY: by the caller.
        unsafe { leaf::clear(&self.machine, leaf, at.0, entries) }
    }

    #[inline(always)]
    unsafe fn leaf_unmap(
        &self,
        root: Pfn,
        leaf: Leaf,
        at: VirtAddr,
        guards: u32,
        pages: u32,
        tables: &mut impl TableFrames,
        block: &mut impl FnMut(Pfn, u32) -> u32,
        pause: &mut impl FnMut(),
    ) -> u32 {
        // SAFETY: by the caller.
        unsafe { leaf::unmap(&self.machine, root, leaf, at.0, guards, pages, tables, block, pause) }
    }

    unsafe fn protect(
        &self,
        root: Pfn,
        at: VirtAddr,
        pages: u32,
        prot: Prot,
        tables: &mut impl TableFrames,
    ) -> Result<u32, MapError> {
        // SAFETY: by the caller.
        unsafe { change::protect(&self.machine, root, at.0, pages, prot, tables) }
    }

    unsafe fn join(&self, root: Pfn, at: VirtAddr, from: u32, tables: &mut impl TableFrames) -> Join {
        // SAFETY: by the caller.
        unsafe { change::join(&self.machine, root, at.0, from, tables) }
    }

    #[inline]
    unsafe fn set_guard(
        &self,
        root: Pfn,
        at: VirtAddr,
        tag: u32,
        tables: &mut impl TableFrames,
    ) -> Result<(), MapError> {
        // SAFETY: by the caller.
        unsafe { walker::set_guard(&self.machine, root, at.0, tag, tables) }
    }

    #[inline]
    unsafe fn clear_guard(&self, root: Pfn, at: VirtAddr, tables: &mut impl TableFrames) {
        // SAFETY: by the caller.
        unsafe { walker::clear_guard(&self.machine, root, at.0, tables) }
    }

    #[inline(always)]
    fn flush(&self, range: VirtRange) {
        let mut at = range.start & !(Self::PAGE_SIZE - 1);
        // From a start below the end, that of the last page included.
        let pages = range.end.wrapping_sub(1).wrapping_sub(at) >> Self::PAGE_SHIFT;
        if range.is_empty() || pages >= Self::FLUSH_ALL_PAGES {
            return self.flush_more(range);
        }
        // Many in a row where it can: what the loop itself costs would otherwise outweigh a flush.
        const ROW: usize = 8;
        let mut left = pages + 1;
        while left >= ROW {
            self.machine.flush_eight(at);
            at = at.wrapping_add(ROW << Self::PAGE_SHIFT);
            left -= ROW;
        }
        while left != 0 {
            self.machine.flush_page(at);
            at = at.wrapping_add(Self::PAGE_SIZE);
            left -= 1;
        }
    }
}

impl<M: Machine> X86<M> {
    /// Nothing, or everything.
    #[cold]
    fn flush_more(&self, range: VirtRange) {
        if !range.is_empty() {
            self.machine.flush_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::last_frame;

    #[test]
    fn the_last_frame_follows_the_address_width() {
        assert_eq!(last_frame(36), 0xff_ffff);
        assert_eq!(last_frame(39), 0x7ff_ffff);
        assert_eq!(last_frame(44), u32::MAX - 1);
        assert_eq!(last_frame(52), u32::MAX - 1);
    }
}
