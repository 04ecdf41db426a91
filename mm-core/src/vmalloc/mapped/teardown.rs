//! Unmaking an area: hidden first, then unmapped batch by batch, then flushed, and only then given back.

use super::{BATCH, Mapped};
use crate::addr::{VirtAddr, VirtRange};
use crate::backend::{MapError, PageTable, Walk};
use crate::error::{FreeError, MmError};
use crate::frame::FrameKind;
use crate::memory::Memory;
use crate::platform::{Bug, Platform};
use crate::prot::Prot;
use crate::vmalloc::area::AreaKind;
use crate::vmalloc::unflushed::{Chain, Tables, Unflushed};

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// Finds the live area of `kind` at `addr` and hides it.
    fn withdraw(&self, memory: &Memory<P, B>, addr: usize, kind: AreaKind) -> Result<u32, FreeError> {
        let _tables = self.tables.lock();
        let Some(id) = self.record_at(memory, addr) else {
            return Err(match memory.backend.walk_kernel(VirtAddr(addr)) {
                Walk::Mapped(_) | Walk::Guard(_) => FreeError::Interior,
                Walk::Absent => FreeError::DoubleFree,
            });
        };
        // SAFETY: a guard entry names a live record for as long as the lock of the tables is held.
        let area = unsafe { &mut *memory.area(id) };
        if !area.is_live() || area.addr != addr {
            return Err(FreeError::DoubleFree);
        }
        if area.kind != kind {
            return Err(FreeError::WrongAllocator);
        }
        area.withdraw();
        Ok(id)
    }

    pub(super) fn unmap_area(&self, memory: &Memory<P, B>, addr: usize, kind: AreaKind) -> Result<(), FreeError> {
        if !self.holds(addr) {
            return Err(memory.refusal_of_area(addr));
        }
        if addr & (B::PAGE_SIZE - 1) != 0 {
            return Err(FreeError::Misaligned);
        }
        let id = self.withdraw(memory, addr, kind)?;
        // SAFETY: hidden by us, so nobody else frees or changes it.
        let info = unsafe { &*memory.area(id) }.info();
        self.freed.note(&info);
        let guard = addr - B::PAGE_SIZE;
        let range = VirtRange { start: addr, end: addr + info.pages as usize * B::PAGE_SIZE };
        let mut tables = Tables::new(memory, self);
        let blocks = self.unmap_pages(memory, range, kind, &mut tables);
        let held = self.tables.lock();
        // SAFETY: the lock of the tables is held, and the guard is this area's.
        unsafe { memory.backend.clear_guard(memory.backend.kernel_root(), VirtAddr(guard), &mut tables) };
        self.flush_retired(memory, &tables, guard);
        drop(held);
        let retired = core::mem::replace(&mut tables.retired, Chain::new());
        let units = self.units_of(guard, info.pages as usize);
        Unflushed::new(memory, self, range, units, blocks, retired, id).flush();
        Ok(())
    }

    /// The units of an area with its guard at `guard`.
    pub(super) fn units_of(&self, guard: usize, pages: usize) -> (usize, usize) {
        ((guard - self.window_start()) >> super::UNIT_SHIFT, (pages + 1).div_ceil(Self::UNIT_PAGES))
    }

    /// Clears the entries of `range`, a batch at a time; the blocks behind them are in the chain it returns.
    pub(super) fn unmap_pages(
        &self,
        memory: &Memory<P, B>,
        range: VirtRange,
        kind: AreaKind,
        tables: &mut Tables<'_, P, B>,
    ) -> Chain {
        let root = memory.backend.kernel_root();
        let mut chain = Chain::new();
        let mut at = range.start;
        // Pages of the current block that the batch before left over.
        let mut carry = 0;
        while at < range.end {
            let left = ((range.end - at) >> B::PAGE_SHIFT) as u32;
            let large = at.is_multiple_of(B::LARGE_PAGES as usize * B::PAGE_SIZE) && left >= B::LARGE_PAGES;
            // A batch that ends at a large boundary leaves the next large entry whole.
            let to_large = B::LARGE_PAGES - ((at >> B::PAGE_SHIFT) as u32 & (B::LARGE_PAGES - 1));
            let is_large = large && self.large_at(memory, at);
            let most = if is_large { B::LARGE_PAGES } else { left.min(BATCH).min(to_large) };
            let mut damaged = None;
            let held = self.tables.lock();
            // SAFETY: the lock of the tables is held, the range is this area's, and what is cleared waits for a flush.
            let done = unsafe {
                memory.backend.unmap(root, VirtAddr(at), most, tables, &mut |pfn, most| {
                    if kind != AreaKind::Alloc {
                        return most;
                    }
                    if carry == 0 {
                        carry = match memory.frames.frame(pfn).map(|frame| frame.head()) {
                            Some(head) if head.is(FrameKind::Mapped) => {
                                chain.push(memory, pfn.0, head.count());
                                head.count()
                            }
                            _ => {
                                damaged = Some(pfn.0);
                                1
                            }
                        };
                    }
                    let pages = carry.min(most);
                    carry -= pages;
                    pages
                })
            };
            self.flush_retired(memory, tables, at);
            drop(held);
            if let Some(pfn) = damaged {
                let what = "an area maps a frame that is not its own";
                memory.platform.bug(&Bug::Damage { what, at: pfn as usize });
            }
            if done == 0 {
                memory.platform.bug(&Bug::Damage { what: "an area's entry is gone", at });
                at += B::PAGE_SIZE;
            }
            at += done as usize * B::PAGE_SIZE;
        }
        chain
    }

    /// A table was unlinked: its slot may be linked anew as soon as the lock opens, so this CPU forgets the old way
    /// first. (One entry is enough: it drops the cached upper levels with it, Intel SDM vol. 3, 4.10.4.1.)
    fn flush_retired(&self, memory: &Memory<P, B>, tables: &Tables<'_, P, B>, at: usize) {
        if !tables.retired.is_empty() {
            memory.backend.flush(VirtRange { start: at, end: at + B::PAGE_SIZE });
        }
    }

    fn large_at(&self, memory: &Memory<P, B>, at: usize) -> bool {
        let walk = memory.backend.walk_kernel(VirtAddr(at));
        matches!(walk, Walk::Mapped(mapping) if mapping.pages >= B::LARGE_PAGES)
    }

    pub(super) fn protect_area(&self, memory: &Memory<P, B>, addr: usize, prot: Prot) -> Result<(), MmError> {
        // Executable frames would stay writable through the direct map (principle 8).
        if prot.executable() {
            return Err(MmError::Unsupported);
        }
        let held = self.tables.lock();
        let Some(id) = self.record_at(memory, addr) else { return Err(MmError::NotMapped) };
        // SAFETY: a guard entry names a live record for as long as the lock of the tables is held.
        let area = unsafe { &*memory.area(id) };
        if !area.is_live() || area.addr != addr || area.kind != AreaKind::Alloc {
            return Err(MmError::NotMapped);
        }
        let pages = area.pages;
        drop(held);
        let root = memory.backend.kernel_root();
        let range = VirtRange { start: addr, end: addr + pages as usize * B::PAGE_SIZE };
        let mut tables = Tables::new(memory, self);
        let mut at = addr;
        while at < range.end {
            let left = ((range.end - at) >> B::PAGE_SHIFT) as u32;
            let most =
                if left >= B::LARGE_PAGES && self.large_at(memory, at) { B::LARGE_PAGES } else { left.min(BATCH) };
            let done = self.step(&mut tables, |tables| {
                // SAFETY: the lock of the tables is held, and the range is a live area of the caller's.
                match unsafe { memory.backend.protect(root, VirtAddr(at), most, prot, tables) } {
                    Ok(0) => Err(MapError::NotMapped),
                    result => result,
                }
            });
            match done {
                Ok(done) => at += done as usize * B::PAGE_SIZE,
                Err(error) => {
                    // What was changed so far is told to the TLBs all the same.
                    memory.backend.flush(range);
                    memory.platform.flush_remote(range);
                    return Err(error);
                }
            }
        }
        memory.backend.flush(range);
        memory.platform.flush_remote(range);
        Ok(())
    }
}
