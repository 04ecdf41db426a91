//! What firmware and linker script say of memory, as it comes.

use super::ram::{CutReport, RamMap};
use super::set::ByteSet;
use crate::error::{MmError, PackedFrame};
use heapless::Vec;

/// Collects regions of RAM and reservations, in any order and quality.
///
/// Regions may overlap, touch, be empty, unaligned, wrap past 2^64 or pass the physical address width. A page is free
/// in the result when every byte of it is RAM and no byte of it is reserved; the order of the calls does not matter.
/// `N` bounds the separate pieces of RAM, of reservations, and of what remains free, each.
///
/// ```
/// use mm_core::BootMap;
///
/// let mut map: BootMap = BootMap::new();
/// map.add_ram(0x10_0000, 0x70_0000)?;
/// map.add_ram(0, 0x9_fc00)?;
/// map.reserve(0x10_0000, 0x4_2001)?; // the kernel's image
/// let ram = map.finish(12, 46)?;
/// assert_eq!(ram.spans()[0].end, 0x9_f000);
/// assert_eq!(ram.free()[1].start, 0x14_3000);
/// # Ok::<(), mm_core::MmError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BootMap<const N: usize = 32> {
    ram: ByteSet<N>,
    reserved: ByteSet<N>,
    overflowed: bool,
}

impl<const N: usize> BootMap<N> {
    /// An empty map.
    pub const fn new() -> Self {
        BootMap { ram: ByteSet::new(), reserved: ByteSet::new(), overflowed: false }
    }

    /// Adds `len` bytes of RAM from physical address `base` on. A length of zero adds nothing.
    ///
    /// # Errors
    /// [`MmError::TooManyRegions`] when it would be the `N + 1`-th separate piece; [`finish`](BootMap::finish) then
    /// refuses too, so that an ignored error cannot lose a region.
    pub fn add_ram(&mut self, base: u64, len: u64) -> Result<(), MmError> {
        self.ram.insert(base, len).inspect_err(|_| self.overflowed = true)
    }

    /// Withholds `len` bytes from physical address `base` on, RAM or not: the kernel's image, boot tables, a device
    /// tree. A reservation wins over RAM. A length of zero withholds nothing.
    ///
    /// # Errors
    /// As for [`add_ram`](BootMap::add_ram).
    pub fn reserve(&mut self, base: u64, len: u64) -> Result<(), MmError> {
        self.reserved.insert(base, len).inspect_err(|_| self.overflowed = true)
    }

    /// Cuts RAM to whole pages of `1 << page_shift` bytes below `1 << phys_bits`, and takes the reservations out.
    ///
    /// RAM that a 32-bit frame number cannot reach is cut as well. [`RamMap::cut`] tells what was cut; the bytes lost
    /// to page alignment are not counted there.
    ///
    /// # Errors
    /// - [`MmError::Inval`]: a page of 4 GiB or more.
    /// - [`MmError::TooManyRegions`]: an earlier call was refused, or the free memory is in more than `N` pieces.
    /// - [`MmError::NoUsableMemory`]: no page is free.
    pub fn finish(&self, page_shift: u32, phys_bits: u32) -> Result<RamMap<N>, MmError> {
        if page_shift >= 32 {
            return Err(MmError::Inval);
        }
        if self.overflowed {
            return Err(MmError::TooManyRegions);
        }
        // Fewer than the number can say: the end of a range of frames is a frame number too, and so are errors.
        let reach = u64::from(PackedFrame::END) << page_shift;
        let width = 1u64.checked_shl(phys_bits).unwrap_or(u64::MAX);
        let limit = width.min(reach);

        let mask = (1u64 << page_shift) - 1;
        let mut spans = Vec::new();
        for r in self.ram.ranges() {
            // Both ends stay below 2^63, so neither rounding can overflow.
            let start = r.first.min(limit).next_multiple_of(mask + 1);
            let end = (r.last.min(limit - 1) + 1) & !mask;
            RamMap::<N>::push(&mut spans, start, end)?;
        }

        let mut free = Vec::new();
        for span in &spans {
            let mut start = span.start;
            for r in self.reserved.ranges().iter().filter(|r| r.first < limit) {
                RamMap::<N>::push(&mut free, start, (r.first & !mask).min(span.end))?;
                start = start.max((r.last.min(limit - 1) | mask) + 1);
            }
            RamMap::<N>::push(&mut free, start, span.end)?;
        }
        if free.is_empty() {
            return Err(MmError::NoUsableMemory);
        }

        let (ram, reserved) = (self.ram.past(limit - 1), self.reserved.past(limit - 1));
        let cut = CutReport { regions: ram.0 + reserved.0, bytes: ram.1.saturating_add(reserved.1) };
        Ok(RamMap::new(spans, free, page_shift, cut))
    }
}

impl<const N: usize> Default for BootMap<N> {
    fn default() -> Self {
        Self::new()
    }
}
