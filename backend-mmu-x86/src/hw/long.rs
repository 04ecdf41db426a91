//! The address space of 64-bit mode: room for all RAM.

use crate::machine::Levels;
use mm_core::VirtRange;

pub(super) const LEVELS: Levels = Levels::LONG;
/// As in Linux's 4-level layout.
pub(super) const DIRECT_MAP: usize = 0xffff_8880_0000_0000;
pub(super) const LOWMEM_END: u64 = u64::MAX;
pub(super) const WINDOWS: VirtRange = VirtRange { start: 0, end: 0 };

#[inline(always)]
pub(super) fn direct_frame(addr: usize) -> usize {
    addr.wrapping_sub(DIRECT_MAP) >> 12
}
