//! Records of areas that are set aside with tables, so that an area that needs no frame of its own can be made when there is
//! no memory at all.

use super::Mapped;
use crate::backend::{Backend, PageTable};
use crate::error::AllocError;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;

/// The records, linked through `Area::next`.
pub(in crate::vmalloc) struct RecordReserve {
    first: u32,
    kept: usize,
    wanted: usize,
}

impl RecordReserve {
    pub(super) const fn new() -> Self {
        RecordReserve { first: NIL, kept: 0, wanted: 0 }
    }

    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    fn keep<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>, id: u32) {
        // SAFETY: a record that no area has, which its taker handed over. It may not be filled, so no reference is made.
        unsafe { (&raw mut (*memory.area(id)).next).write(self.first) };
        self.first = id;
        self.kept += 1;
    }

    fn take<P: Platform, B: Backend>(&mut self, memory: &Memory<P, B>) -> Option<u32> {
        let id = self.first;
        if id == NIL {
            return None;
        }
        // SAFETY: as above, and `next` was written when it came.
        self.first = unsafe { (&raw const (*memory.area(id)).next).read() };
        self.kept -= 1;
        Some(id)
    }
}

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// A record, which is not filled: one that is kept when there is no memory for another.
    pub(super) fn take_record(&self, memory: &Memory<P, B>) -> Result<u32, AllocError> {
        memory.area_take().or_else(|error| self.records.lock().take(memory).ok_or(error))
    }

    /// Gives a record back that no area has, to what is kept aside first.
    #[cold]
    #[inline(never)]
    pub(super) fn give_record(&self, memory: &Memory<P, B>, id: u32) {
        let mut records = self.records.lock();
        if records.kept < records.wanted {
            return records.keep(memory, id);
        }
        drop(records);
        memory.area_give(id);
    }

    /// How many records are to be kept aside; returns how many were.
    pub(in crate::vmalloc) fn want_records(&self, wanted: usize) -> usize {
        core::mem::replace(&mut self.records.lock().wanted, wanted)
    }

    /// Takes records until as many are kept as are wanted.
    ///
    /// # Errors
    /// `NoMemory`; those taken stay until they are trimmed.
    pub(in crate::vmalloc) fn fill_records(&self, memory: &Memory<P, B>) -> Result<(), AllocError> {
        let lacks = |records: &RecordReserve| records.kept < records.wanted;
        while lacks(&self.records.lock()) {
            let id = memory.area_take()?;
            self.records.lock().keep(memory, id);
        }
        Ok(())
    }

    /// Gives back what is kept beyond what is wanted.
    pub(in crate::vmalloc) fn trim_records(&self, memory: &Memory<P, B>) {
        loop {
            let mut records = self.records.lock();
            if records.kept <= records.wanted {
                return;
            }
            let id = records.take(memory);
            drop(records);
            if let Some(id) = id {
                memory.area_give(id);
            }
        }
    }
}
