//! Changing what an area allows.

use super::{BATCH, Mapped};
use crate::addr::{VirtAddr, VirtRange};
use crate::backend::{MapError, PageTable, Walk};
use crate::error::MmError;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::prot::Prot;
use crate::vmalloc::area::AreaKind;
use crate::vmalloc::unflushed::Tables;

impl<P: Platform, B: PageTable> Mapped<P, B> {
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
