//! QEMU 32-bit x86 (microvm, q35, pc): PAE page tables, no-execute and HIGHMEM.
//!
//! The kernel is an ELF file for QEMU's `-kernel`, entered by the PVH protocol. A program links with `-Tboard.x`, which
//! this package's build script puts on the linker's path, and defines its entry by [`entry!`] or by the test harness.
//!
//! The target is `i586-unknown-linux-gnu`, of which only the code generator and `core` are used: there is no bare
//! 32-bit x86 target in a stable toolchain, and this one needs neither SSE nor an operating system. What its libraries
//! would bring otherwise is in `runtime`.
#![no_std]

mod memory;
mod mm;
mod runtime;
mod start;
pub mod timer;
mod traps;

pub use board_x86_qemu::{
    BoardPlatform, Display, ExitCode, GuestFile, args, bugs, display, exit, expect_fault, file, instructions, last_bug,
    mmio, pat, say,
};
pub use memory::{init, reserved};
pub use mm::{Backend, IoMapping, KBox, KMap, Kernel, MM, Pages, VmArea};
pub use traps::in_interrupt;

/// The board's name, as on the command line of the task runner.
pub const NAME: &str = "qemu-i586";

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
