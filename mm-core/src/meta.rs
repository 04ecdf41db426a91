//! Descriptors: small fixed-size records for slabs, areas and caches, in pages that are never handed out.
//!
//! A page of descriptors begins with a bitmap of its free ones. A descriptor is named by a 32-bit id: its physical
//! address in units of [`UNIT`] bytes, so that a frame record can hold it.

#[cfg(not(feature = "small"))]
mod pools;
#[cfg(feature = "small")]
mod small;

#[cfg(not(feature = "small"))]
pub use pools::MetaPools;
#[cfg(feature = "small")]
pub use small::MetaPools;

use crate::backend::Backend;
use crate::memory::Memory;
use crate::platform::Platform;

/// Bytes per unit of a descriptor id.
pub const UNIT: usize = 32;
const UNIT_SHIFT: u32 = UNIT.trailing_zeros();
/// One past the last physical address an id can name, less a page for `NIL`.
pub const META_REACH: u64 = ((u32::MAX as u64 + 1) << UNIT_SHIFT) - 0x1_0000;
/// No descriptor, no frame.
pub const NIL: u32 = u32::MAX;

/// The count in the record of a page of descriptors.
pub const MARK: u32 = if cfg!(feature = "small") { 0 } else { 1 };

/// The sizes of descriptors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MetaSize {
    /// 32 bytes: slabs of up to 64 objects, 96 where addresses have 32 bits. With feature `small` 64 bytes where addresses
    /// have 64, for slabs of up to 192.
    Small = 0,
    /// 96 bytes: slabs of up to 512 objects, areas. With feature `small` 128 where addresses have 64 bits.
    Large = 1,
    /// The control blocks of caches: 192 bytes, and 320 where their addresses are of 64 bits.
    Control = 2,
}

impl MetaSize {
    /// All.
    pub const ALL: [MetaSize; 3] = [MetaSize::Small, MetaSize::Large, MetaSize::Control];

    /// Bytes of one descriptor.
    pub const fn bytes(self) -> usize {
        // There the descriptor of a slab is of pointers.
        let wide = cfg!(feature = "small") && usize::BITS == 64;
        match self {
            MetaSize::Small if wide => 2 * UNIT,
            MetaSize::Small => UNIT,
            MetaSize::Large if wide => 4 * UNIT,
            MetaSize::Large => 3 * UNIT,
            MetaSize::Control if usize::BITS == 64 => 10 * UNIT,
            MetaSize::Control => 6 * UNIT,
        }
    }
}

impl<P: Platform, B: Backend> Memory<P, B> {
    /// The pointer to a live descriptor.
    #[inline(always)]
    pub(crate) fn meta_ptr<T>(&self, id: u32) -> *mut T {
        self.direct_ptr((id as usize) << UNIT_SHIFT).cast()
    }

    /// The id of the live descriptor at `addr`.
    #[inline(always)]
    pub(crate) fn meta_id_at(&self, addr: usize) -> u32 {
        let page = self.backend.direct_frame(addr) << (B::PAGE_SHIFT - UNIT_SHIFT);
        (page | (addr & (B::PAGE_SIZE - 1)) >> UNIT_SHIFT) as u32
    }
}
