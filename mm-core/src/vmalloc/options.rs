//! How an area is to be made, where `vmalloc` would not do.

use super::area::AreaUses;
use super::{AreaRequest, Entries};
#[cfg(doc)]
use crate::error::{AllocError, FreeError};
use crate::gfp::{GFP_KERNEL, Gfp};
use crate::prot::Prot;
use core::panic::Location;

/// What [`Mm::vmalloc_with`](crate::Mm::vmalloc_with) takes: flags, protection, alignment and entries, as Linux's
/// `__vmalloc_node_range` has them.
///
/// ```
/// use mm_core::{AreaOptions, GFP_KERNEL, Prot};
///
/// let options = AreaOptions::new().flags(GFP_KERNEL).prot(Prot::Read).align(1 << 16);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "options do nothing by themselves"]
pub struct AreaOptions {
    flags: Gfp,
    prot: Prot,
    align: usize,
    entries: Entries,
    uses: AreaUses,
}

/// Which guards an area has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum AreaGuards {
    /// What every area has: with an MMU a page that nothing is mapped to on each side, without one none.
    #[default]
    Usual,
    /// A page on each side to which every access faults, or [`AllocError::NoGuard`].
    ///
    /// Without an MMU they are pages of memory, which the area takes and gives back with its own, under two regions of
    /// an MPU or PMP. What an area asks for does not end at its last byte but at its last page.
    Asked,
    /// As `Asked`, for an area that is never freed: all that a machine can give whose regions stay set until reset, as
    /// those of a PMP without rule locking bypass do. There `vfree` refuses the area, as [`FreeError::Reserved`].
    Kept,
}

/// How long an area lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum AreaLife {
    /// Nobody knows.
    #[default]
    Any,
    /// As long as the system runs, or about. Without an MMU it is taken from the high end of memory, and everything
    /// else from the low end, so that what stays and what comes and goes do not mix. With one it means nothing.
    Long,
}

impl AreaOptions {
    /// What `vmalloc` has: may wait, HIGHMEM will do, read-write, page-aligned, the largest entries that fit.
    pub const fn new() -> Self {
        AreaOptions {
            flags: GFP_KERNEL.union(Gfp::HIGHMEM),
            prot: Prot::ReadWrite,
            align: 1,
            entries: Entries::Largest,
            uses: AreaUses::empty(),
        }
    }

    /// Where the frames may come from, and whether they are zeroed.
    pub const fn flags(self, flags: Gfp) -> Self {
        AreaOptions { flags, ..self }
    }

    /// What the mapping allows at first. Without an MMU only `ReadWrite` is possible, unless a region of an MPU or PMP
    /// covers the area exactly, as for [`Mm::set_memory`](crate::Mm::set_memory).
    pub const fn prot(self, prot: Prot) -> Self {
        AreaOptions { prot, ..self }
    }

    /// What the first byte's address is a multiple of: a power of two, up to the largest block. Areas are always
    /// aligned to a page.
    pub const fn align(self, align: usize) -> Self {
        AreaOptions { align, ..self }
    }

    /// Which page-table entries map it.
    pub const fn entries(self, entries: Entries) -> Self {
        AreaOptions { entries, ..self }
    }

    /// Which guards it has.
    pub const fn guards(self, guards: AreaGuards) -> Self {
        let uses = self.uses.difference(AreaUses::GUARDED.union(AreaUses::KEPT));
        let uses = match guards {
            AreaGuards::Usual => uses,
            AreaGuards::Asked => uses.union(AreaUses::GUARDED),
            AreaGuards::Kept => uses.union(AreaUses::GUARDED).union(AreaUses::KEPT),
        };
        AreaOptions { uses, ..self }
    }

    /// How long it lives. One that is [`Kept`](AreaGuards::Kept) lives long.
    pub const fn life(self, life: AreaLife) -> Self {
        let uses = match life {
            AreaLife::Any => self.uses.difference(AreaUses::LONG),
            AreaLife::Long => self.uses.union(AreaUses::LONG),
        };
        AreaOptions { uses, ..self }
    }

    /// Zeroed, and may be mapped for users: what [`Mm::vmalloc_user`](crate::Mm::vmalloc_user) makes.
    pub(super) const fn user(self) -> Self {
        AreaOptions { flags: self.flags.union(Gfp::ZERO), uses: self.uses.union(AreaUses::USER), ..self }
    }

    #[inline(always)]
    pub(super) const fn request(
        &self,
        size: usize,
        flags: Gfp,
        caller: &'static Location<'static>,
    ) -> AreaRequest<'static> {
        AreaRequest {
            size,
            flags,
            prot: self.prot,
            align: self.align,
            entries: self.entries,
            uses: self.uses,
            patience: None,
            caller,
        }
    }

    pub(super) const fn alignment(&self) -> usize {
        self.align
    }

    pub(crate) const fn gfp(&self) -> Gfp {
        self.flags
    }

    pub(super) const fn protection(&self) -> Prot {
        self.prot
    }
}

impl Default for AreaOptions {
    fn default() -> Self {
        Self::new()
    }
}
