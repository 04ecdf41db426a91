//! QEMU's `mps2-an385`: a Cortex-M3 with 16 MiB of PSRAM and no MMU.
//!
//! Programs are linked into the SSRAM by `cortex-m-rt`; the PSRAM is what the manager manages.
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
pub const NAME: &str = "mps2-an385";

/// Defines the program's entry: brings the board up, runs `main: fn()`, and ends with a pass.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        $crate::entry_with!($crate::init, $main);
    };
}
