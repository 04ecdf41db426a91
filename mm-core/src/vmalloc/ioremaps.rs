//! The live ioremaps, so that a range is never mapped with two cache modes.

use super::area::Area;
use crate::backend::Backend;
use crate::error::MmError;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;

/// The records of live ioremaps; the caller's lock guards it.
pub struct Ioremaps {
    first: u32,
}

impl Default for Ioremaps {
    fn default() -> Self {
        Self::new()
    }
}

impl Ioremaps {
    /// None.
    pub const fn new() -> Self {
        Ioremaps { first: NIL }
    }

    /// Adds a record that is not in it.
    ///
    /// # Errors
    /// `AliasConflict` when part of its range is mapped with another cache mode; it was not added.
    pub fn add<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, id: u32) -> Result<(), MmError> {
        // SAFETY: the record is the caller's, not yet shared; listed records are live.
        unsafe {
            let new = memory.area(id);
            let mut at = self.first;
            while at != NIL {
                let other = memory.area(at);
                if (*other).cache != (*new).cache && overlaps(&*other, &*new, B::PAGE_SIZE) {
                    return Err(MmError::AliasConflict);
                }
                at = (*other).next;
            }
            (*new).next = self.first;
        }
        self.first = id;
        Ok(())
    }

    /// Removes a record, if it is in it.
    pub fn remove<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, id: u32) {
        let mut link: *mut u32 = &raw mut self.first;
        // SAFETY: listed records are live, and the links are only changed here, under the caller's lock.
        unsafe {
            while *link != NIL {
                let area = memory.area(*link);
                if *link == id {
                    *link = (*area).next;
                    return;
                }
                link = &raw mut (*area).next;
            }
        }
    }

    /// The record with the lowest address at or above `from`.
    pub fn next<P: Platform, B: Backend>(&self, memory: &Memory<P, B>, from: usize) -> Option<u32> {
        let mut best: Option<u32> = None;
        let mut at = self.first;
        while at != NIL {
            // SAFETY: listed records are live.
            let (addr, next) = unsafe { ((*memory.area(at)).addr, (*memory.area(at)).next) };
            // SAFETY: as above.
            if addr >= from && best.is_none_or(|best| addr < unsafe { (*memory.area(best)).addr }) {
                best = Some(at);
            }
            at = next;
        }
        best
    }
}

fn overlaps(a: &Area, b: &Area, page_size: usize) -> bool {
    let span = |area: &Area| {
        let start = area.phys & !(page_size as u64 - 1);
        (start, start + area.pages as u64 * page_size as u64)
    };
    let ((a_start, a_end), (b_start, b_end)) = (span(a), span(b));
    a_start < b_end && b_start < a_end
}
