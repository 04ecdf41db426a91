//! The CPU this program runs on.

#[cfg_attr(target_pointer_width = "64", path = "hw/long.rs")]
#[cfg_attr(target_pointer_width = "32", path = "hw/pae.rs")]
mod layout;

use crate::machine::{Levels, Machine};
use core::arch::asm;
use mm_core::{MmError, Pfn, VirtRange};
use x86::controlregs::{self, Cr0, Cr4};
use x86::{irq, msr, tlb};

/// EFER.NXE: bit 63 of an entry forbids execution instead of being reserved.
const NO_EXECUTE_ENABLE: u64 = 1 << 11;
const GLOBAL_PAGES: usize = Cr4::CR4_ENABLE_GLOBAL_PAGES.bits();
/// The interrupt flag.
const INTERRUPTS: usize = 1 << 9;

/// The real machine, in ring 0.
///
/// | | 64-bit mode | 32-bit mode, with PAE |
/// |---|---|---|
/// | direct map | all RAM, at 0xffff_8880_0000_0000 | the first 896 MiB, at 0xc000_0000 |
/// | windows for other RAM | none | 0xffc0_0000 to 0xffe0_0000 |
///
/// The boot code's tables must map the direct map there already, as far up as the frames that
/// [`kernel::build`](crate::kernel::build) is given. One CPU uses the windows.
#[derive(Clone, Copy, Default, Debug)]
pub struct Hw;

impl Hw {
    /// Where the direct map starts.
    pub const DIRECT_MAP: usize = layout::DIRECT_MAP;
    /// Where the direct map ends at the latest, as a physical address.
    pub const LOWMEM_END: u64 = layout::LOWMEM_END;
}

// SAFETY: the direct map is linear, so one address is one frame; other addresses give numbers past 32 bits, or wrap
// to such, or in 32-bit mode the one number that no frame has. The instructions do as the trait says in ring 0, where a
// kernel runs.
unsafe impl Machine for Hw {
    const LEVELS: Levels = layout::LEVELS;
    // The base is a constant of 64 bits there, and of 32 in 32-bit mode, which addresses hold.
    const DIRECT_IS_LINEAR: bool = cfg!(target_pointer_width = "64");

    #[inline(always)]
    fn direct_ptr(&self, phys: usize) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(layout::DIRECT_MAP.wrapping_add(phys))
    }

    #[inline(always)]
    fn direct_frame(&self, addr: usize) -> usize {
        layout::direct_frame(addr)
    }

    #[inline(always)]
    fn direct_base(&self) -> usize {
        layout::DIRECT_MAP
    }

    #[inline(always)]
    fn lowmem_end(&self) -> u64 {
        layout::LOWMEM_END
    }

    #[inline(always)]
    fn windows(&self) -> VirtRange {
        layout::WINDOWS
    }

    #[inline]
    fn masked<R>(&self, f: impl FnOnce() -> R) -> R {
        let flags: usize;
        // SAFETY: ring 0. The flags go over the stack and back; masking interrupts keeps others from running.
        unsafe {
            // Of a whole word: the plain name is one of 16 bits in 32-bit mode.
            #[cfg(target_pointer_width = "64")]
            asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags));
            #[cfg(target_pointer_width = "32")]
            asm!("pushfd", "pop {}", out(reg) flags, options(preserves_flags));
            irq::disable();
        }
        let result = f();
        if flags & INTERRUPTS != 0 {
            // SAFETY: they were on before.
            unsafe { irq::enable() };
        }
        result
    }

    fn phys_bits(&self) -> u32 {
        // 36 is what a CPU has that does not tell (SDM 3A, 4.1.4).
        extended(0x8000_0008).map_or(36, |[width, ..]| width & 0xff)
    }

    #[inline(always)]
    fn flush_page(&self, virt: usize) {
        // SAFETY: ring 0; dropping a translation changes no memory.
        unsafe { tlb::flush(virt) }
    }

    #[inline(always)]
    fn flush_eight(&self, virt: usize) {
        // In one piece, so that the distance is part of each instruction.
        // SAFETY: as above.
        unsafe {
            asm!(
                "invlpg [{0}]",
                "invlpg [{0} + 0x1000]",
                "invlpg [{0} + 0x2000]",
                "invlpg [{0} + 0x3000]",
                "invlpg [{0} + 0x4000]",
                "invlpg [{0} + 0x5000]",
                "invlpg [{0} + 0x6000]",
                "invlpg [{0} + 0x7000]",
                in(reg) virt,
                options(nostack, preserves_flags)
            );
        }
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
        // Leaf 1, EDX: PGE and PAT; leaf 0x8000_0001, EDX: NX (SDM 2A, CPUID).
        let basics = cpuid(1)[3] & (1 << 13 | 1 << 16) == (1 << 13 | 1 << 16);
        let no_execute = extended(0x8000_0001).is_some_and(|words| words[3] & 1 << 20 != 0);
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

/// What CPUID says of `leaf`: EAX, EBX, ECX, EDX. (The `x86` crate asks only CPUs with SSE.)
#[allow(unused_unsafe, reason = "the intrinsic became safe in later versions of Rust")]
fn cpuid(leaf: u32) -> [u32; 4] {
    #[cfg(target_arch = "x86")]
    use core::arch::x86::__cpuid;
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::__cpuid;
    // SAFETY: a CPU with PAE has the instruction.
    let words = unsafe { __cpuid(leaf) };
    [words.eax, words.ebx, words.ecx, words.edx]
}

/// The same of an extended leaf, if the CPU has it.
fn extended(leaf: u32) -> Option<[u32; 4]> {
    (cpuid(0x8000_0000)[0] >= leaf).then(|| cpuid(leaf))
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
