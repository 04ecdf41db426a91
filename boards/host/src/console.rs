//! Text, arguments and the end of the program.
//!
//! Standard output carries the program's text, as defmt frames when feature `defmt` is on; standard error is always
//! plain text and carries what a runner reads: announced faults, fault reports, panics.

use std::fmt;
use std::io::Write;
use std::process;
use std::sync::LazyLock;

/// The result a program hands to its runner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitCode {
    /// All is well.
    Pass,
    /// A panic or a failed test.
    Fail,
    /// A memory fault.
    Fault,
}

/// What a board's fault handler exits with.
const FAULT: i32 = 101;

/// Ends the process: status 0, an abort (SIGABRT), or status 101.
pub fn exit(code: ExitCode) -> ! {
    match code {
        ExitCode::Pass => process::exit(0),
        ExitCode::Fail => process::abort(),
        ExitCode::Fault => process::exit(FAULT),
    }
}

/// Prints a line of text on the console.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::write_line(::core::format_args!($($text)*)) };
}

/// Prints a line of text on the console; [`say!`] is the short form.
pub fn write_line(text: fmt::Arguments<'_>) {
    #[cfg(feature = "defmt")]
    defmt::println!("{}", defmt::Display2Format(&text));
    // A closed pipe must not become a panic: whoever closed it does not want the text.
    #[cfg(not(feature = "defmt"))]
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Announces that this test ends in a fault whose report holds `text`.
pub fn expect_fault(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "EXPECT-FAULT: {text}");
}

/// The program's arguments, parted by blanks.
pub fn args() -> &'static str {
    static ARGS: LazyLock<String> = LazyLock::new(|| {
        let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    });
    &ARGS
}

/// A line put together without allocating or locking, for a signal handler.
pub(crate) struct RawLine {
    text: [u8; 512],
    filled: usize,
}

impl RawLine {
    pub(crate) const fn new() -> Self {
        RawLine { text: [0; 512], filled: 0 }
    }

    /// Writes the line to standard error and ends the process as after a fault.
    pub(crate) fn print_and_die(mut self) -> ! {
        // The last byte is kept free for this.
        self.text[self.filled] = b'\n';
        let mut rest = &self.text[..=self.filled];
        while !rest.is_empty() {
            // SAFETY: the pointer and length are those of a live slice; `write` is safe in a signal handler.
            let written = unsafe { libc::write(libc::STDERR_FILENO, rest.as_ptr().cast(), rest.len()) };
            match usize::try_from(written) {
                Ok(written) if written > 0 => rest = &rest[written..],
                _ => break,
            }
        }
        // SAFETY: ends the process at once, which a signal handler may do.
        unsafe { libc::_exit(FAULT) }
    }
}

impl fmt::Write for RawLine {
    /// Text past the line's end is cut, not refused: half a report is better than none.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.text.len() - 1 - self.filled;
        let count = text.len().min(room);
        self.text[self.filled..][..count].copy_from_slice(&text.as_bytes()[..count]);
        self.filled += count;
        Ok(())
    }
}
