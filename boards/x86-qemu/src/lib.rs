//! What the x86 boards of QEMU share, in 32 and in 64 bits: console, exit, what the firmware hands over, interrupts,
//! fault reports.
//!
//! A board adds its start code, its descriptor tables and its address space, which [`Layout`] describes.
#![no_std]

mod boot_cell;
mod console;
mod context;
#[cfg(feature = "smp")]
pub mod cpus;
mod exit;
mod fault;
mod fw;
mod image;
mod pci;
mod place;
mod platform;
pub mod timer;

pub use boot_cell::BootCell;
pub use console::{init as init_console, line, urgent};
#[cfg(not(feature = "smp"))]
pub use context::InterruptLock;
pub use context::{begin_task, in_handler, in_interrupt_handler, start_tasks};
pub use exit::{ExitCode, exit};
pub use fault::{Trap, expect_fault, report};
pub use fw::{Firmware, GuestFile, Loader, args, boot_map, file, firmware, read_start_info, reserved};
pub use image::Image;
pub use pci::{Display, display};
pub use place::{Layout, Place};
pub use platform::{BoardPlatform, bugs, instructions, last_bug};
pub use timer::{SPURIOUS_VECTOR, TIMER_VECTOR};

use rtmm::PhysAddr;

/// The register of memory types that entries of page tables choose from.
pub fn pat() -> u64 {
    // SAFETY: every CPU with page tables of 64 bits that QEMU has knows it, and reading it has no effect.
    unsafe { x86::msr::rdmsr(x86::msr::IA32_PAT) }
}

/// A device's registers that `ioremap` may map: the I/O APIC, which all machines have at its usual address.
pub fn mmio() -> (PhysAddr, usize) {
    (PhysAddr(0xfec0_0000), 4096)
}
