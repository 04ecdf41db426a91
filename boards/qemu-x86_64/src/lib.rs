//! QEMU x86-64 (microvm, q35, pc): real page tables.
//!
//! The kernel is an ELF file for QEMU's `-kernel`, entered by the PVH protocol. A program links with `-Tboard.x`, which
//! this package's build script puts on the linker's path, and defines its entry by [`entry!`] or by the test harness.
#![no_std]

#[cfg(feature = "smp")]
mod cpus;
mod memory;
mod mm;
mod start;
pub mod timer;
mod traps;

pub use board_x86_qemu::{
    BoardPlatform, Display, ExitCode, GuestFile, args, begin_task, bugs, display, exit, expect_fault, file,
    instructions, last_bug, mmio, pat, say,
};
#[cfg(feature = "smp")]
pub use cpus::{CPUS, also_on_ipi, cpu, on_all, on_cpu, wait_for};
pub use memory::{init, reserved};
pub use mm::{Backend, IoMapping, KBox, KMap, Kernel, MM, Pages, VmArea};
pub use traps::in_interrupt;

/// The board's name, as on the command line of the task runner.
pub const NAME: &str = if cfg!(feature = "smp") { "qemu-x86_64-smp4" } else { "qemu-x86_64" };

/// Makes `main`, a `fn()`, the program: the manager is brought up before, and the machine ends with a pass after.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(export_name = "main")]
        extern "C" fn board_entry() -> ! {
            $crate::init();
            let main: fn() = $main;
            main();
            $crate::exit($crate::ExitCode::Pass)
        }
    };
}
