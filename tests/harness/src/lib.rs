//! The test framework of the suites, which import it under the name `embedded_test`.
//!
//! A suite is written once, with the attributes of the `embedded-test` crate, and runs on every board. What stands
//! behind the attributes differs:
//!
//! | target | behind the attributes | one test is run by | its result |
//! |---|---|---|---|
//! | bare metal with semihosting | `embedded-test` itself | command line `run_addr ADDRESS` | exit 0, or 134 |
//! | a bare x86 machine | the same macros, this crate's `export` | command line `run_addr ADDRESS` | through the board |
//! | the host | the same macros, this crate's `export` | arguments `run NAME` | exit 0, or SIGABRT |
//!
//! On bare metal the tests are found in the ELF section `.embedded_test`, each a symbol whose name is JSON and whose
//! value is `(fn() -> !, module_path)`; the address given to `run_addr` is the first word, in decimal. On the host
//! the argument `list` prints the tests as JSON, and no such argument runs them all, each in a process of its own.
//!
//! # What a bare x86 board defines
//! There is no semihosting on x86, and this crate knows no board, so the board defines two functions:
//! ```text
//! /// The command line given by the runner.
//! #[unsafe(no_mangle)]
//! fn rtmm_board_args() -> &'static str { .. }
//! /// Ends the machine: 0 is a pass, 134 a failure.
//! #[unsafe(no_mangle)]
//! fn rtmm_board_exit(code: i32) -> ! { .. }
//! ```
//! and its start code calls the C symbol `main` (`extern "C" fn() -> !`), which this crate exports. The suite's setup
//! function has not run by then; it is what calls `board::init()`.
//!
//! # Tests that expect a fault
//! A test whose name starts with `fault_` may end in a hardware fault: it prints `EXPECT-FAULT: text` first, and the
//! board's fault handler prints a line `FAULT: ...` and exits with 101. The test passes when that line holds `text`,
//! or, where the fault does not exist, when nothing was announced and the test returned.
#![cfg_attr(not(feature = "host"), no_std)]

#[cfg(not(any(feature = "host", feature = "x86")))]
pub use real::*;

#[cfg(any(feature = "host", feature = "x86"))]
mod outcome;
#[cfg(any(feature = "host", feature = "x86"))]
pub use embedded_test_macros::{setup, tests};
#[cfg(any(feature = "host", feature = "x86"))]
pub use outcome::TestOutcome;

/// What the macros' output names; not for suites.
#[doc(hidden)]
#[cfg(all(feature = "x86", not(feature = "host")))]
#[path = "x86.rs"]
pub mod export;

/// What the macros' output names; not for suites.
#[doc(hidden)]
#[cfg(feature = "host")]
#[path = "host.rs"]
pub mod export;

#[cfg(feature = "host")]
mod children;
