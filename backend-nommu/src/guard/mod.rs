//! Guards and protections by regions: what an MPU or PMP can do for an area where there are no page tables.

mod areas;
#[cfg(all(feature = "pmp", target_arch = "riscv32"))]
mod pmp;
#[cfg(all(feature = "pmsav7", target_arch = "arm", target_os = "none"))]
mod pmsav7;
mod slots;

#[cfg(all(feature = "pmp", target_arch = "riscv32"))]
pub use pmp::{Pmp, RuleLocking};
#[cfg(all(feature = "pmsav7", target_arch = "arm", target_os = "none"))]
pub use pmsav7::Pmsav7;
pub(crate) use slots::{Clear, Covers, Regions};

use core::fmt;
use mm_core::{Backend, NIL};

/// Pages of a guard.
pub(crate) const GUARD: usize = 1;

/// What a region lets through; nothing is ever written through one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allows {
    /// No access: a guard.
    Nothing,
    /// Loads.
    Reads,
    /// Loads and instruction fetches.
    Fetches,
}

/// What a region is in use for.
#[derive(Clone, Copy)]
pub struct Slot {
    /// The record of its area, or `NIL`.
    pub(crate) record: u32,
    /// Which part of the area it covers.
    pub(crate) covers: Covers,
    pub(crate) allows: Allows,
}

impl Slot {
    /// In use for nothing.
    pub const FREE: Slot = Slot { record: NIL, covers: Covers::Whole, allows: Allows::Nothing };
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.record == NIL { "free" } else { "in use" })
    }
}

/// Regions of memory that a processor can be told to keep accesses out of, and nothing else: which of them is whose is
/// kept by the family of areas, under its lock.
///
/// # Safety
/// From the return of `set` to the next `set` or `clear` of that slot, privileged code that touches the region in a way
/// it does not allow faults, and no other access does; `clear` ends that. One processor is meant, the one that calls.
pub unsafe trait RegionGuard: Send + Sync + 'static {
    /// One for each slot there can be.
    type Slots: AsRef<[Slot]> + AsMut<[Slot]> + Send;
    /// All of them free.
    const FREE: Self::Slots;
    /// False where there are none at all, and everything about them is left out of the program.
    const ANY: bool = true;

    /// How many the family may use: those from 0 on, at most as many as `Slots` has.
    fn slots(&self) -> usize;

    /// False when a region that was set stays until reset. Then only areas that are never freed get one.
    fn clears(&self) -> bool {
        true
    }

    /// Makes the region of `slot` the `bytes` bytes at `start`, a power of two of at least 256, which `start` is a
    /// multiple of.
    ///
    /// # Safety
    /// Nothing that runs makes the accesses it does not allow. `slot` is one of the family's, whose lock is held, and
    /// is free, or [`clears`](Self::clears) is true.
    unsafe fn set(&self, slot: usize, start: usize, bytes: usize, allows: Allows);

    /// The region of `slot` is none any more.
    ///
    /// # Safety
    /// `slot` is one of the family's, whose lock is held, and [`clears`](Self::clears) is true.
    unsafe fn clear(&self, slot: usize);
}

/// A machine without such regions, or whose RTOS needs them all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unguarded;

// SAFETY: it has no slot, so neither function is called.
unsafe impl RegionGuard for Unguarded {
    type Slots = [Slot; 0];
    const FREE: [Slot; 0] = [];
    const ANY: bool = false;

    fn slots(&self) -> usize {
        0
    }

    unsafe fn set(&self, _slot: usize, _start: usize, _bytes: usize, _allows: Allows) {}

    unsafe fn clear(&self, _slot: usize) {}
}

/// A backend over contiguous memory, and its regions.
pub trait Guarded: Backend {
    /// What guards areas that ask for it.
    type Regions: RegionGuard;

    /// It.
    fn regions(&self) -> &Self::Regions;
}
