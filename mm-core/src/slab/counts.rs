//! How full a cache is.

/// How full a cache is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SlabCounts {
    /// Objects in the hands of callers.
    pub active: usize,
    /// Objects in all slabs.
    pub objects: usize,
    /// Slabs.
    pub slabs: usize,
}
