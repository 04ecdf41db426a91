//! QEMU's `virt` machine with a 32-bit RISC-V in machine mode: no MMU.
//!
//! RAM is what the device tree says, minus the device tree, the image and the stack.
#![no_std]

mod interrupt;
mod memory;
mod mm;
mod processor;
mod protection;
mod start;
pub mod timer;
mod traps;

pub use board_semihosting::{ExitCode, GuestFile, args, bugs, exit, expect_fault, file, last_bug, say};
pub use interrupt::in_interrupt;
pub use memory::{init, mmio, reserved};
pub use mm::{Backend, BoardPlatform, IoMapping, KBox, KMap, Kernel, MM, Pages, VmArea};
pub use processor::instructions;

#[doc(hidden)]
pub use board_semihosting::run;

/// The board's name, as `xtask` and the features call it.
pub const NAME: &str = "virt-rv32";

/// Defines the program's entry: brings the board up, runs `main: fn()`, and ends with a pass.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // The start code jumps to the symbol `main` once memory is initialised.
        #[unsafe(export_name = "main")]
        extern "C" fn __board_entry() -> ! {
            $crate::run($crate::init, $main)
        }
    };
}
