//! The physical memory protection of RISC-V (PMP), over the registers of the `riscv` crate, in machine mode.
//!
//! An entry binds machine mode only when it is locked, and a locked one stays until reset, unless the hart has Smepmp
//! and its rule locking bypass is on (RISC-V Smepmp 1.0, 2.2).

use super::{Allows, RegionGuard, Slot};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use riscv::register::{self, Permission, Range, mseccfg, pmpcfg0, pmpcfg1, pmpcfg2, pmpcfg3};

/// Entries this knows to set: those of the four configuration registers that RV32 has at least, if it has any.
const MOST: usize = 16;
/// Entries of a configuration register of RV32.
const PER_REGISTER: usize = 4;

/// Whether the hart can take back an entry that binds machine mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleLocking {
    /// It has Smepmp and can bypass the locks.
    Bypassed,
    /// What is set stays until reset.
    UntilReset,
}

/// The first entries of the physical memory protection. A lower one counts before a higher one (privileged
/// architecture, 3.7.1), so the guards hold whatever entries behind them let through.
#[derive(Debug)]
pub struct Pmp {
    entries: usize,
    bypassed: AtomicBool,
}

impl Default for Pmp {
    /// No entry.
    fn default() -> Self {
        Pmp::of_entries(0)
    }
}

impl Pmp {
    /// The first `entries` entries, at most 16, whose locks stay until [`enable`](Self::enable) says otherwise. The
    /// hart has as many, and none of them is set.
    pub const fn of_entries(entries: usize) -> Self {
        Pmp { entries: if entries < MOST { entries } else { MOST }, bypassed: AtomicBool::new(false) }
    }

    /// Turns rule locking bypass on; returns whether entries can be taken back now. For the board's start-up, in
    /// machine mode.
    ///
    /// # Safety
    /// The hart has Smepmp, and with it the register `mseccfg`.
    pub unsafe fn enable(&self) -> RuleLocking {
        let mut bits = mseccfg::read();
        bits.set_rlb(true);
        // SAFETY: the register is there, by the caller; locks are loosened, none is set.
        unsafe { mseccfg::write(bits) };
        // The bit stays 0 when an entry was locked before (Smepmp 1.0, 2.2).
        let bypassed = mseccfg::read().rlb();
        self.bypassed.store(bypassed, Relaxed);
        if bypassed { RuleLocking::Bypassed } else { RuleLocking::UntilReset }
    }
}

/// Writes the address register of an entry.
///
/// # Safety
/// The entry is off, or the bypass is on.
unsafe fn set_address(entry: usize, value: usize) {
    macro_rules! address {
        ($($number:literal $register:ident)*) => {
            match entry {
                // SAFETY: by the caller.
                $($number => unsafe { register::$register::write(value) },)*
                _ => {}
            }
        };
    }
    address!(0 pmpaddr0 1 pmpaddr1 2 pmpaddr2 3 pmpaddr3 4 pmpaddr4 5 pmpaddr5 6 pmpaddr6 7 pmpaddr7
        8 pmpaddr8 9 pmpaddr9 10 pmpaddr10 11 pmpaddr11 12 pmpaddr12 13 pmpaddr13 14 pmpaddr14 15 pmpaddr15);
}

/// Writes the configuration of an entry. What was fetched or stored before is not affected.
///
/// # Safety
/// What the entry covers is nobody's who needs more than `permission`.
unsafe fn configure(entry: usize, range: Range, permission: Permission, locked: bool) {
    let index = entry % PER_REGISTER;
    // SAFETY: by the caller.
    unsafe {
        match entry / PER_REGISTER {
            0 => pmpcfg0::set_pmp(index, range, permission, locked),
            1 => pmpcfg1::set_pmp(index, range, permission, locked),
            2 => pmpcfg2::set_pmp(index, range, permission, locked),
            _ => pmpcfg3::set_pmp(index, range, permission, locked),
        }
    }
}

// SAFETY: by the privileged architecture (3.7.1) the lowest entry that covers an access decides, in machine mode too
// when it is locked, and one whose range is off covers nothing.
unsafe impl RegionGuard for Pmp {
    type Slots = [Slot; MOST];
    const FREE: [Slot; MOST] = [Slot::FREE; MOST];

    fn slots(&self) -> usize {
        self.entries
    }

    fn clears(&self) -> bool {
        self.bypassed.load(Relaxed)
    }

    unsafe fn set(&self, slot: usize, start: usize, bytes: usize, allows: Allows) {
        let permission = match allows {
            Allows::Nothing => Permission::NONE,
            Allows::Reads => Permission::R,
            Allows::Fetches => Permission::RX,
        };
        // A naturally aligned power of two: as many ones at the end as it has doublings of eight bytes (3.7.1).
        let address = start >> 2 | ((bytes >> 3) - 1);
        // SAFETY: the caller says that the region is nobody's who would be hindered. Where locks stay the entry is off
        // and was never set; elsewhere it is turned off while it is half set.
        unsafe {
            if self.clears() {
                configure(slot, Range::OFF, Permission::NONE, false);
            }
            set_address(slot, address);
            configure(slot, Range::NAPOT, permission, true);
        }
    }

    unsafe fn clear(&self, slot: usize) {
        // SAFETY: an entry that is off hinders nobody.
        unsafe { configure(slot, Range::OFF, Permission::NONE, false) };
    }
}
