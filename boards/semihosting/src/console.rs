//! Lines of text for the host, and the panic handler.

use crate::exit::{ExitCode, exit};
use core::fmt;
use core::panic::PanicInfo;

/// Prints a line of text on the console.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::write_line(::core::format_args!($($text)*)) };
}

/// Prints a line of text on the console; [`say!`] is the short form.
pub fn write_line(text: fmt::Arguments<'_>) {
    #[cfg(feature = "defmt")]
    defmt::println!("{}", defmt::Display2Format(&text));
    #[cfg(not(feature = "defmt"))]
    semihosting::println!("{text}");
}

/// Announces that this test ends in a fault whose report holds `text`.
pub fn expect_fault(text: &str) {
    semihosting::eprintln!("EXPECT-FAULT: {text}");
}

/// Reports a hardware fault and stops the machine. Takes no lock, so any context may call it.
pub fn write_fault(text: fmt::Arguments<'_>) -> ! {
    semihosting::eprintln!("FAULT: {text}");
    exit(ExitCode::Fault)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    semihosting::eprintln!("{info}");
    exit(ExitCode::Fail)
}
