//! Reading and writing areas from outside: `vread`, `vwrite`, and the copy that moves an area.

use super::area::{AreaInfo, AreaKind, Place};
use super::interval::Cursor;
use super::{AreaFamily, CopyWay};
use crate::backend::Backend;
use crate::manager::Mm;
use crate::platform::Platform;

/// Bytes copied in one hold of a lock.
pub(super) const STEP: usize = 128;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Reads `into.len()` bytes of the vmalloc address space from `addr` on, as Linux's `vread`: for crash dumps and
    /// debuggers.
    ///
    /// Each area is read up to the size it was asked for; what lies between areas, behind their size, in guards and in
    /// ioremaps reads as zeros, and no device is touched. Returns how many bytes, ending with the last of an area, the
    /// range has to do with areas: 0 when it meets none.
    ///
    /// Context: task. Cost: one walk and one lock for each 128 bytes, and a walk for each page from `addr` down to its
    /// area's guard.
    ///
    /// # Safety
    /// Nobody writes to the areas meanwhile.
    pub unsafe fn vread(&self, into: &mut [u8], addr: *const u8) -> usize {
        into.fill(0);
        let start = into.as_mut_ptr();
        self.each_part(addr.addr(), into.len(), |at, offset, bytes| {
            // SAFETY: `bytes` from `offset` on are inside the slice.
            unsafe { self.areas.copy(&self.memory, at, start.add(offset), bytes, CopyWay::Read) };
        })
    }

    /// Writes `from` to the vmalloc address space from `addr` on, as Linux's `vwrite`: what falls on no area, behind an
    /// area's size or on an ioremap is left out. Returns what [`vread`](Self::vread) would.
    ///
    /// Frames are written whatever the area's protection says.
    ///
    /// Context and cost: as `vread`.
    ///
    /// # Safety
    /// Nobody reads or writes the areas meanwhile, and their owners expect it.
    pub unsafe fn vwrite(&self, from: &[u8], addr: *const u8) -> usize {
        let start = from.as_ptr().cast_mut();
        self.each_part(addr.addr(), from.len(), |at, offset, bytes| {
            // SAFETY: `bytes` from `offset` on are inside the slice, which is only read.
            unsafe { self.areas.copy(&self.memory, at, start.add(offset), bytes, CopyWay::Write) };
        })
    }

    /// Calls `part(address, offset, bytes)` for pieces of the range that lie in areas of memory, each in one page.
    fn each_part(&self, addr: usize, len: usize, mut part: impl FnMut(usize, usize, usize)) -> usize {
        if !self.memory.is_ready() {
            return 0;
        }
        let end = addr.saturating_add(len);
        let (mut at, mut reached) = (addr, 0);
        while at < end {
            let Some(area) = self.area_from(at).filter(|area| area.addr < end) else { break };
            let from = at.max(area.addr);
            let to = end.min(area.addr.saturating_add(area.size));
            let mut here = from;
            while here < to && area.kind != AreaKind::Ioremap {
                let bytes = STEP.min(to - here).min(B::PAGE_SIZE - here % B::PAGE_SIZE);
                part(here, here - addr, bytes);
                here += bytes;
            }
            reached = reached.max(to.saturating_sub(addr));
            at = area.addr.saturating_add(area.pages as usize * B::PAGE_SIZE).max(at.saturating_add(1));
        }
        reached
    }

    /// The area that holds `at`, or the next one.
    fn area_from(&self, at: usize) -> Option<AreaInfo> {
        match self.areas.find(&self.memory, at) {
            Some(hit) if hit.place == Place::Inside => Some(hit.area),
            _ => self.areas.next(&self.memory, &mut Cursor::at(at as u64)),
        }
    }

    /// Copies `bytes` bytes from one area to another.
    ///
    /// # Safety
    /// Nobody else reads or writes them meanwhile.
    pub(super) unsafe fn copy_area(&self, from: usize, to: usize, bytes: usize) -> bool {
        let mut step = [0u8; STEP];
        // Both begin a page, and pages are a multiple of the step.
        (0..bytes).step_by(STEP).all(|offset| {
            let bytes = STEP.min(bytes - offset);
            let buffer = step.as_mut_ptr();
            // SAFETY: the buffer has room for a step.
            unsafe {
                self.areas.copy(&self.memory, from + offset, buffer, bytes, CopyWay::Read)
                    && self.areas.copy(&self.memory, to + offset, buffer, bytes, CopyWay::Write)
            }
        })
    }
}
