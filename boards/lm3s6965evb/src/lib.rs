//! QEMU's `lm3s6965evb`: a Cortex-M3 with 64 KiB of RAM and 256 KiB of flash.
//!
//! Programs run from flash; what their data and the stack leave of the RAM is managed, in small pages.
#![no_std]

mod counter;
mod memory;
mod mm;
pub mod timer;

pub use board_cortex_m::in_interrupt;
pub use board_semihosting::{ExitCode, GuestFile, args, bugs, exit, expect_fault, file, last_bug, say};
pub use counter::instructions;
pub use memory::{init, mmio, reserved};
pub use mm::{Backend, BoardPlatform, IoMapping, KBox, KMap, Kernel, MM, Pages, VmArea};

#[doc(hidden)]
pub use board_cortex_m::entry_with;

/// The board's name, as `xtask` and the features call it.
pub const NAME: &str = "lm3s6965evb";

/// Defines the program's entry: brings the board up, runs `main: fn()`, and ends with a pass.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        $crate::entry_with!($crate::init, $main);
    };
}
