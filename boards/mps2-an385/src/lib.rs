//! QEMU's `mps2-an385`: a Cortex-M3 with 16 MiB of PSRAM and no MMU.
//!
//! Programs are linked into the SSRAM by `cortex-m-rt`; the PSRAM is what the manager manages.
#![no_std]

mod faults;
mod interrupt;
mod memory;
mod mm;
mod platform;
mod timer;

pub use board_semihosting::{ExitCode, GuestFile, args, bugs, exit, expect_fault, file, last_bug, say};
pub use interrupt::in_interrupt;
pub use memory::{init, mmio};
pub use mm::{Backend, IoMapping, KBox, KMap, Kernel, MM, Pages, VmArea};
pub use platform::BoardPlatform;
pub use timer::instructions;

/// The board's name, as `xtask` and the features call it.
pub const NAME: &str = "mps2-an385";

/// Defines the program's entry: brings the board up, runs `main: fn()`, and ends with a pass.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // `cortex-m-rt` jumps to the symbol `main` once memory is initialised.
        #[unsafe(export_name = "main")]
        extern "C" fn __board_entry() -> ! {
            $crate::init();
            let main: fn() = $main;
            main();
            $crate::exit($crate::ExitCode::Pass)
        }
    };
}
