//! What boards with Arm semihosting share: console, arguments, exit, files and the log of reports.
//!
//! Semihosting has two streams. Standard output carries the program's text, as defmt frames when feature `defmt` is
//! on; standard error is always plain text and carries what a runner reads: announced faults, fault reports, panics.
#![no_std]

mod args;
mod bugs;
mod console;
mod exit;
mod file;

pub use args::args;
pub use bugs::{bugs, last_bug, record_bug};
pub use console::{expect_fault, write_fault, write_line};
pub use exit::{ExitCode, exit};
pub use file::{GuestFile, file};

#[cfg(feature = "defmt")]
use defmt_semihosting as _;
