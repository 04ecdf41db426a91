//! The ways out: `exit`, the panic handler, and what the test harness calls.

use crate::console::urgent;
use core::panic::PanicInfo;
use x86::io::outl;

/// QEMU's `isa-debug-exit`; a written `v` ends QEMU with status `v << 1 | 1`.
const EXIT_PORT: u16 = 0xf4;

/// How a program ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitCode {
    /// All is well; status 33.
    Pass,
    /// A check failed or the program panicked; status 35.
    Fail,
    /// A processor exception was reported; status 101.
    Fault,
}

/// Ends the machine.
pub fn exit(code: ExitCode) -> ! {
    let value = match code {
        ExitCode::Pass => 0x10,
        ExitCode::Fail => 0x11,
        ExitCode::Fault => 0x32,
    };
    // SAFETY: the port of a device that ends QEMU; elsewhere nobody listens and the CPU sleeps for good.
    unsafe {
        outl(EXIT_PORT, value);
        loop {
            x86::irq::disable();
            x86::halt();
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    urgent(format_args!("PANIC: {info}"));
    exit(ExitCode::Fail)
}

/// The test harness asks for the command line by this name.
#[unsafe(no_mangle)]
fn rtmm_board_args() -> &'static str {
    crate::args()
}

/// The test harness ends a test by this name: 0 is a pass.
#[unsafe(no_mangle)]
fn rtmm_board_exit(code: i32) -> ! {
    exit(if code == 0 { ExitCode::Pass } else { ExitCode::Fail })
}
