//! The address space of 32-bit mode, as Linux divides it: the kernel has the upper gigabyte, whose first 896 MiB are
//! the direct map. The rest is for areas and windows.

use crate::machine::Levels;
use mm_core::VirtRange;

pub(super) const LEVELS: Levels = Levels::PAE;
/// Linux's PAGE_OFFSET.
pub(super) const DIRECT_MAP: usize = 0xc000_0000;
/// Leaves 128 MiB above the direct map.
pub(super) const LOWMEM_END: u64 = 896 << 20;
/// What one lowest table reaches. The last such piece of the address space stays empty, so that a step below address 0
/// faults.
pub(super) const WINDOWS: VirtRange = VirtRange { start: 0xffc0_0000, end: 0xffe0_0000 };

#[inline(always)]
pub(super) fn direct_frame(addr: usize) -> usize {
    let offset = addr.wrapping_sub(DIRECT_MAP);
    // Frames past the direct map have numbers that an address elsewhere would wrap to.
    if offset < LOWMEM_END as usize { offset >> 12 } else { usize::MAX }
}
