//! What the C files of this package need of the board: a console, an end, and what the tests ask.
#![no_std]

pub mod check;
pub mod scull;

pub use rtmm_examples::{board, measure, tables};

use core::ffi::{CStr, c_char, c_int};

/// Prints a line for C.
///
/// # Safety
/// `text` is good for reads of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn console_write_line(text: *const c_char, length: usize) {
    // SAFETY: by the caller.
    let bytes = unsafe { core::slice::from_raw_parts(text.cast::<u8>(), length) };
    board::say!("{}", core::str::from_utf8(bytes).unwrap_or("a line that is not text"));
}

/// `BUG()` of the headers.
///
/// # Safety
/// `file` is a string ended by a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn rtmm_host_panic(file: *const c_char, line: c_int) -> ! {
    // SAFETY: by the caller.
    let file = unsafe { CStr::from_ptr(file) }.to_str().unwrap_or("?");
    board::say!("FAILED: BUG() at {file}:{line}");
    board::exit(board::ExitCode::Fail)
}
