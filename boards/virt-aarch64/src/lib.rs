//! QEMU's `virt` machine with a Cortex-A53 whose MMU stays off: 64 bits without an MMU.
//!
//! RAM is what the device tree says, minus the device tree and the image.
#![no_std]

mod counter;
mod faults;
mod interrupt;
mod memory;
mod mm;
mod processor;
mod start;
pub mod timer;

pub use board_semihosting::{ExitCode, GuestFile, args, bugs, exit, expect_fault, file, last_bug, say};
pub use counter::instructions;
pub use interrupt::in_interrupt;
pub use memory::{FW_CFG, init, mmio, reserved};
pub use mm::{Backend, BoardPlatform, IoMapping, KBox, KMap, Kernel, MM, Pages, VmArea};

#[doc(hidden)]
pub use board_semihosting::run;

/// The board's name, as `xtask` and the features call it.
pub const NAME: &str = "virt-aarch64";

/// Defines the program's entry: brings the board up, runs `main: fn()`, and ends with a pass.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // The start code jumps to the symbol `main` once there is a stack.
        #[unsafe(export_name = "main")]
        extern "C" fn __board_entry() -> ! {
            $crate::run($crate::init, $main)
        }
    };
}
