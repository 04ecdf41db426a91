//! What may be done with a mapping, and how the processor caches it.

/// What a mapping allows. Writable and executable together cannot be said.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Prot {
    /// Read only.
    Read,
    /// Read and write; the default of `vmalloc`.
    ReadWrite,
    /// Read and execute.
    ReadExecute,
}

impl Prot {
    /// True when stores are allowed.
    #[inline]
    pub const fn writable(self) -> bool {
        matches!(self, Prot::ReadWrite)
    }

    /// True when instruction fetches are allowed.
    #[inline]
    pub const fn executable(self) -> bool {
        matches!(self, Prot::ReadExecute)
    }
}

/// How the processor caches a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CacheMode {
    /// Write-back: ordinary memory.
    WriteBack,
    /// Write-through.
    WriteThrough,
    /// Write-combining: framebuffers.
    WriteCombining,
    /// Uncached: device registers; the default of `ioremap`.
    Uncached,
}
