//! The bare x86 machine's share of the protocol, over two functions of the board.

use crate::TestOutcome;

/// `process::abort` of the `semihosting` crate exits with this, so every board does.
const FAILED: i32 = 134;

unsafe extern "Rust" {
    safe fn rtmm_board_args() -> &'static str;
    safe fn rtmm_board_exit(code: i32) -> !;
    // The suite's function, or the default below: the linker script `embedded-test.x` chooses.
    safe fn _embedded_test_setup();
}

/// Ends the machine with the result of a test.
pub fn check_outcome<T: TestOutcome>(outcome: T) -> ! {
    rtmm_board_exit(if outcome.is_success() { 0 } else { FAILED })
}

#[unsafe(no_mangle)]
extern "C" fn __embedded_test_start() -> ! {
    _embedded_test_setup();
    let mut words = rtmm_board_args().split_ascii_whitespace();
    let address = words.find(|word| *word == "run_addr").and_then(|_| words.next()).and_then(|word| word.parse().ok());
    let Some(address) = address.filter(|address| *address != 0usize) else { rtmm_board_exit(FAILED) };
    // SAFETY: the runner read this address from the `.embedded_test` section of this very image, where the macros
    // put nothing but `fn() -> !`.
    let test: fn() -> ! = unsafe { core::mem::transmute::<usize, fn() -> !>(address) };
    test()
}

/// Where the board's start code goes. The script's symbol is undefined when the script was left out of the link.
#[unsafe(export_name = "main")]
extern "C" fn entry() -> ! {
    unsafe extern "C" {
        safe fn embedded_test_linker_file_not_added_to_rustflags() -> !;
    }
    embedded_test_linker_file_not_added_to_rustflags()
}

#[unsafe(export_name = "__embedded_test_default_setup")]
fn default_setup() {}

/// The version of the protocol, for runners.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".embedded_test.meta")]
static EMBEDDED_TEST_VERSION: usize = 1;
