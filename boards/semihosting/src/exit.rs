//! How a program ends.

/// The result a program hands to its runner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitCode {
    /// All is well.
    Pass,
    /// A panic or a failed test.
    Fail,
    /// A hardware fault.
    Fault,
}

/// Ends the machine; QEMU's exit status is 0, 134 or 101.
///
/// 134 is what `semihosting::process::abort` uses and `embedded-test` expects of a panic, so a fault must differ.
pub fn exit(code: ExitCode) -> ! {
    semihosting::process::exit(match code {
        ExitCode::Pass => 0,
        ExitCode::Fail => 134,
        ExitCode::Fault => 101,
    })
}
