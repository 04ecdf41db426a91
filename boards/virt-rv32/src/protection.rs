//! The hart's memory protection, where it can be changed again: its physical memory protection with Smepmp.

use crate::traps;
use riscv::register::{Permission, Range, mseccfg, pmpaddr14, pmpaddr15, pmpcfg3};
use rtmm::backend::{Pmp, RuleLocking};

/// Entries that are the manager's: the others of the sixteen (target/riscv/cpu.h, MAX_RISCV_PMPS) say what is code.
pub(crate) const GUARD_ENTRIES: usize = 14;

unsafe extern "C" {
    // Bounds of the code, from riscv-rt's linker script; only their addresses mean anything.
    safe static __stext: u8;
    safe static __etext: u8;
}

/// Lets entries be taken back that bind machine mode, if the hart has Smepmp; else those that are set stay until reset.
pub(crate) fn start(pmp: &Pmp) {
    let has_smepmp = traps::survives(|| {
        mseccfg::read();
    });
    // SAFETY: the register was just read.
    if !has_smepmp || unsafe { pmp.enable() } == RuleLocking::UntilReset {
        return;
    }
    // QEMU 7.2 leaves locked entries out of account in machine mode while locks can be bypassed (target/riscv/pmp.c,
    // pmp_is_locked), against Smepmp, unless machine-mode lockdown is on. With it machine mode executes only what an
    // entry says is code.
    let (start, end) = (&raw const __stext as usize, &raw const __etext as usize);
    let mut lockdown = mseccfg::read();
    lockdown.set_mml(true);
    // SAFETY: from its first byte to its end the code is read and executed only, and nothing else is executed. Both
    // ends are multiples of four.
    unsafe {
        pmpaddr14::write(start >> 2);
        pmpaddr15::write(end >> 2);
        pmpcfg3::set_pmp(3, Range::TOR, Permission::RX, true);
        mseccfg::write(lockdown);
    }
}
