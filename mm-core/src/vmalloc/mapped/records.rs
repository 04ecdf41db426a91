//! Records of areas that are set aside with tables, so that an area that needs no frame of its own can be made when there is
//! no memory at all.

use super::Mapped;
use crate::backend::{Backend, PageTable};
use crate::error::AllocError;
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::Platform;
use core::sync::atomic::Ordering::Relaxed;

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

    fn is_short(&self) -> bool {
        self.kept < self.wanted
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
        memory.area_take().or_else(|error| {
            let mut records = self.records.lock();
            let record = records.take(memory);
            self.note_records(&records);
            record.ok_or(error)
        })
    }

    /// Has the next free of an area give its record to what is kept aside, when that is short. Its lock is held.
    fn note_records(&self, records: &RecordReserve) {
        self.lacks_records.store(records.is_short(), Relaxed);
    }

    /// Gives a record back that no area has, to what is kept aside first.
    #[cold]
    #[inline(never)]
    pub(super) fn give_record(&self, memory: &Memory<P, B>, id: u32) {
        let mut records = self.records.lock();
        if records.is_short() {
            records.keep(memory, id);
            self.note_records(&records);
            return;
        }
        drop(records);
        memory.area_give(id);
    }

    /// How many records are to be kept aside; returns how many were.
    pub(in crate::vmalloc) fn want_records(&self, wanted: usize) -> usize {
        let mut records = self.records.lock();
        let before = core::mem::replace(&mut records.wanted, wanted);
        self.note_records(&records);
        before
    }

    /// Takes records until as many are kept as are wanted.
    ///
    /// # Errors
    /// `NoMemory`; those taken stay until they are trimmed.
    pub(in crate::vmalloc) fn fill_records(&self, memory: &Memory<P, B>) -> Result<(), AllocError> {
        while self.records.lock().is_short() {
            let id = memory.area_take()?;
            let mut records = self.records.lock();
            records.keep(memory, id);
            self.note_records(&records);
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
