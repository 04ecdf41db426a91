//! What boards with semihosting share: console, arguments, exit, files, the log of reports, and the platform of a
//! single core.
//!
//! Semihosting is Arm's protocol, which RISC-V took over.
//!
//! Semihosting has two streams. Standard output carries the program's text, as defmt frames when feature `defmt` is
//! on; standard error is always plain text and carries what a runner reads: announced faults, fault reports, panics.
#![no_std]

mod args;
mod bugs;
mod console;
mod exit;
mod file;
mod interrupt;
mod place;
mod platform;

pub use args::args;
pub use bugs::{bugs, last_bug, record_bug};
pub use console::{expect_fault, write_fault, write_line};
pub use exit::{ExitCode, exit};
pub use file::{GuestFile, file};
pub use interrupt::{run_in_interrupt, run_job, set_timer_handler, timer_fired};
pub use place::{Place, name_areas_by};
pub use platform::{Processor, SingleCore};

#[cfg(feature = "defmt")]
use defmt_semihosting as _;

/// Defines a board's `entry!`, which makes `main: fn()` the program: the board's `init()` before it, a pass after it.
#[doc(hidden)]
pub fn run(init: fn(), main: fn()) -> ! {
    init();
    main();
    exit(ExitCode::Pass)
}
