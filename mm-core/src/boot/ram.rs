//! Clean, ordered RAM, and the allocations made before there is an allocator.

use super::set::{insert, remove};
use crate::addr::PhysRange;
use crate::error::MmError;
use core::fmt;
use heapless::Vec;

/// What had to be cut from the boot map's regions, RAM and reservations alike.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CutReport {
    /// How many regions, merged, passed the physical address width or wrapped past 2^64.
    pub regions: usize,
    /// How many bytes of them were past it.
    pub bytes: u64,
}

/// The machine's RAM in whole pages, and what of it is free.
#[derive(Clone, Debug)]
pub struct RamMap<const N: usize = 32> {
    spans: Vec<PhysRange, N>,
    free: Vec<PhysRange, N>,
    page_shift: u32,
    cut: CutReport,
}

impl<const N: usize> RamMap<N> {
    pub(super) fn new(spans: Vec<PhysRange, N>, free: Vec<PhysRange, N>, page_shift: u32, cut: CutReport) -> Self {
        RamMap { spans, free, page_shift, cut }
    }

    /// Appends a range unless it is empty.
    pub(super) fn push(list: &mut Vec<PhysRange, N>, start: u64, end: u64) -> Result<(), MmError> {
        if start >= end {
            return Ok(());
        }
        list.push(PhysRange { start, end }).map_err(|_| MmError::TooManyRegions)
    }

    /// RAM, reserved or free: whole pages, ascending, with a hole between each two.
    pub fn spans(&self) -> &[PhysRange] {
        &self.spans
    }

    /// What of it is free: whole pages, ascending, no two ranges touch.
    pub fn free(&self) -> &[PhysRange] {
        &self.free
    }

    /// Bytes of RAM.
    pub fn total_bytes(&self) -> u64 {
        self.spans.iter().map(|r| r.len()).sum()
    }

    /// Bytes of free RAM.
    pub fn free_bytes(&self) -> u64 {
        self.free.iter().map(|r| r.len()).sum()
    }

    /// log2 of the page size it was trimmed to.
    pub fn page_shift(&self) -> u32 {
        self.page_shift
    }

    /// What was cut off because no address reaches it.
    pub fn cut(&self) -> CutReport {
        self.cut
    }

    /// Takes `bytes`, rounded up to pages, aligned to `align` and to a page, at the highest free address that ends at
    /// or before `below`. It is never given back.
    ///
    /// `None`, with nothing taken, when no free range has room, `bytes` is zero, `align` is no power of two, or the
    /// list of free ranges has no place left for what would remain.
    ///
    /// ```
    /// let mut map: mm_core::BootMap = mm_core::BootMap::new();
    /// map.add_ram(0x2000_0000, 0x1_0000)?;
    /// let mut ram = map.finish(12, 32)?;
    /// let table = ram.alloc_top(5000, 1, u64::MAX).unwrap();
    /// assert_eq!((table.start, table.end), (0x2000_e000, 0x2001_0000));
    /// assert_eq!(ram.free_bytes(), 0xe000);
    /// # Ok::<(), mm_core::MmError>(())
    /// ```
    pub fn alloc_top(&mut self, bytes: u64, align: u64, below: u64) -> Option<PhysRange> {
        let page = 1u64 << self.page_shift;
        if bytes == 0 || !align.is_power_of_two() {
            return None;
        }
        let bytes = bytes.checked_next_multiple_of(page)?;
        let mask = !(align.max(page) - 1);
        for i in (0..self.free.len()).rev() {
            let room = self.free[i];
            let Some(start) = room.end.min(below).checked_sub(bytes) else { continue };
            let taken = PhysRange { start: start & mask, end: (start & mask) + bytes };
            if taken.start >= room.start && self.carve(i, taken).is_ok() {
                return Some(taken);
            }
        }
        None
    }

    /// Takes `taken` out of the free range `i` that holds it.
    fn carve(&mut self, i: usize, taken: PhysRange) -> Result<(), MmError> {
        let low = PhysRange { start: self.free[i].start, end: taken.start };
        let high = PhysRange { start: taken.end, end: self.free[i].end };
        match (low.is_empty(), high.is_empty()) {
            (true, true) => remove(&mut self.free, i),
            (true, false) => self.free[i] = high,
            (false, true) => self.free[i] = low,
            (false, false) => {
                insert(&mut self.free, i + 1, high)?;
                self.free[i] = low;
            }
        }
        Ok(())
    }

    fn line(f: &mut fmt::Formatter<'_>, start: u64, end: u64, kind: &str) -> fmt::Result {
        if start < end {
            writeln!(f, "[mem {:#018x}-{:#018x}] {kind}", start, end - 1)?;
        }
        Ok(())
    }
}

/// One line per range, with the last address as the end, as Linux prints the firmware's map.
impl<const N: usize> fmt::Display for RamMap<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for span in &self.spans {
            let mut start = span.start;
            for free in self.free.iter().filter(|r| span.overlaps(**r)) {
                Self::line(f, start, free.start, "reserved")?;
                Self::line(f, free.start, free.end, "usable")?;
                start = free.end;
            }
            Self::line(f, start, span.end, "reserved")?;
        }
        if self.cut.regions > 0 {
            writeln!(f, "cut off {} bytes of {} regions that no address reaches", self.cut.bytes, self.cut.regions)?;
        }
        write!(f, "memory: {}K/{}K available", self.free_bytes() >> 10, self.total_bytes() >> 10)
    }
}
