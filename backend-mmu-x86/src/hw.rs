//! The CPU this program runs on.

use crate::machine::{Levels, Machine};
use core::arch::asm;
use mm_core::{MmError, Pfn};
use x86::controlregs::{self, Cr0, Cr4};
use x86::cpuid::CpuId;
use x86::{msr, tlb};

/// Where the direct map starts, as in Linux's 4-level layout.
const DIRECT_MAP: usize = 0xffff_8880_0000_0000;
/// EFER.NXE: bit 63 of an entry forbids execution instead of being reserved.
const NO_EXECUTE_ENABLE: u64 = 1 << 11;
const GLOBAL_PAGES: usize = Cr4::CR4_ENABLE_GLOBAL_PAGES.bits();

/// The real machine, in ring 0, with a direct map at 0xffff_8880_0000_0000.
///
/// The boot code's tables must map the direct map there already, as far up as the frames that
/// [`kernel::build`](crate::kernel::build) is given.
#[derive(Clone, Copy, Default, Debug)]
pub struct Hw;

// SAFETY: the direct map is linear, so one address is one frame; other addresses give numbers past 32 bits, or wrap
// to such. The instructions do as the trait says in ring 0, where a kernel runs.
unsafe impl Machine for Hw {
    const LEVELS: Levels = Levels::LONG;
    const DIRECT_IS_LINEAR: bool = true;

    #[inline(always)]
    fn direct_ptr(&self, phys: usize) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(DIRECT_MAP.wrapping_add(phys))
    }

    #[inline(always)]
    fn direct_frame(&self, addr: usize) -> usize {
        addr.wrapping_sub(DIRECT_MAP) >> 12
    }

    #[inline(always)]
    fn direct_base(&self) -> usize {
        DIRECT_MAP
    }

    fn phys_bits(&self) -> u32 {
        // 36 is what a CPU has that does not tell (SDM 3A, 4.1.4).
        CpuId::new().get_processor_capacity_feature_info().map_or(36, |info| u32::from(info.physical_address_bits()))
    }

    #[inline(always)]
    fn flush_page(&self, virt: usize) {
        // SAFETY: ring 0; dropping a translation changes no memory.
        unsafe { tlb::flush(virt) }
    }

    fn flush_all(&self) {
        // SAFETY: ring 0. Changing CR4.PGE drops all translations, global ones too (SDM 3A, 4.10.4.1), and the second
        // write restores it.
        unsafe {
            let cr4 = read_cr4();
            write_cr4(cr4 ^ GLOBAL_PAGES);
            write_cr4(cr4);
        }
    }

    #[inline(always)]
    fn root(&self) -> Pfn {
        // SAFETY: ring 0; reading has no effect.
        Pfn((unsafe { controlregs::cr3() } >> 12) as u32)
    }

    unsafe fn prepare(&self, pat: u64) -> Result<(), MmError> {
        let cpu = CpuId::new();
        let no_execute = cpu.get_extended_processor_and_feature_identifiers().is_some_and(|f| f.has_execute_disable());
        let basics = cpu.get_feature_info().is_some_and(|f| f.has_pge() && f.has_pat());
        if !no_execute || !basics {
            return Err(MmError::Unsupported);
        }
        // SAFETY: ring 0, the CPU has these features, and the caller vouches for its tables.
        unsafe {
            msr::wrmsr(msr::IA32_EFER, msr::rdmsr(msr::IA32_EFER) | NO_EXECUTE_ENABLE);
            msr::wrmsr(msr::IA32_PAT, pat);
            controlregs::cr0_write(controlregs::cr0() | Cr0::CR0_WRITE_PROTECT);
            write_cr4(read_cr4() | GLOBAL_PAGES);
        }
        Ok(())
    }

    #[inline]
    unsafe fn set_root(&self, root: Pfn) {
        // SAFETY: the caller vouches for the tables under `root`.
        unsafe { controlregs::cr3_write(u64::from(root.0) << 12) }
    }
}

/// CR4 as it is: the `x86` crate's `cr4()` drops the bits it does not know, and writing that back would clear them.
///
/// # Safety
/// Ring 0.
#[inline(always)]
unsafe fn read_cr4() -> usize {
    let value: usize;
    // SAFETY: ring 0 by the caller; reading has no effect.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// # Safety
/// Ring 0, and `value` differs from [`read_cr4`] only in bits this CPU has.
#[inline(always)]
unsafe fn write_cr4(value: usize) {
    // SAFETY: by the caller. It may drop translations, so the compiler must not move memory accesses across.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack, preserves_flags)) };
}
