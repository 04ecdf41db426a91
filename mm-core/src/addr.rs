//! Addresses, frame numbers and ranges.

use core::fmt;

/// A physical address in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct PhysAddr(pub u64);

/// A kernel virtual address in bytes; without an MMU it equals the physical one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct VirtAddr(pub usize);

/// A page frame number: physical address divided by the backend's page size.
///
/// 32 bits reach 16 TiB with 4 KiB pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct Pfn(pub u32);

/// A run of physically contiguous frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PageRange {
    /// First frame.
    pub start: Pfn,
    /// Number of frames.
    pub count: u32,
}

/// A half-open range of physical addresses, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PhysRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// A half-open range of kernel virtual addresses, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VirtRange {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Pfn {
    /// The frame's physical address, for pages of `1 << page_shift` bytes.
    #[inline]
    pub const fn phys(self, page_shift: u32) -> PhysAddr {
        PhysAddr((self.0 as u64) << page_shift)
    }

    /// The frame that holds `phys`; `None` past 32 bits of frame number.
    #[inline]
    pub const fn containing(phys: PhysAddr, page_shift: u32) -> Option<Pfn> {
        let pfn = phys.0 >> page_shift;
        if pfn > u32::MAX as u64 { None } else { Some(Pfn(pfn as u32)) }
    }
}

impl PageRange {
    /// One past the last frame.
    #[inline]
    pub const fn end(self) -> u32 {
        self.start.0 + self.count
    }
}

impl PhysRange {
    /// Length in bytes.
    #[inline]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// True when the range holds no byte.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// True when the two ranges share a byte.
    #[inline]
    pub const fn overlaps(self, other: PhysRange) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl VirtRange {
    /// Length in bytes.
    #[inline]
    pub const fn len(self) -> usize {
        self.end - self.start
    }

    /// True when the range holds no byte.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// True when `addr` lies inside.
    #[inline]
    pub const fn contains(self, addr: usize) -> bool {
        self.start <= addr && addr < self.end
    }
}

macro_rules! hex_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    )*};
}
hex_debug!(PhysAddr, VirtAddr, Pfn);
