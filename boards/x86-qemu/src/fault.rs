//! Reports of processor exceptions. Nothing here takes a lock or trusts what the interrupted code was doing.

use crate::console::urgent;
use crate::exit::{ExitCode, exit};
use crate::place::Layout;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use x86::irq::{EXCEPTIONS, PAGE_FAULT_VECTOR, PageFaultError};

/// Says that the program is about to fault: the runner then wants a report that holds `text`, and exit status 101.
pub fn expect_fault(text: &str) {
    urgent(format_args!("EXPECT-FAULT: {text}"));
}

/// An exception, as the processor told of it.
#[derive(Clone, Copy)]
pub struct Trap {
    /// Which exception.
    pub vector: u8,
    /// Its error code, or 0.
    pub error: usize,
    /// Where it was taken.
    pub ip: usize,
    /// The stack pointer at that moment.
    pub sp: usize,
}

/// Prints what happened and where, and ends the program.
pub fn report(trap: Trap, layout: &Layout) -> ! {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    if REPORTING.swap(true, Relaxed) {
        urgent(format_args!("FAULT: a fault while reporting a fault"));
        exit(ExitCode::Fault);
    }
    if trap.vector == PAGE_FAULT_VECTOR {
        // SAFETY: reading CR2 has no effect.
        let address = unsafe { x86::controlregs::cr2() };
        let error = PageFaultError::from_bits_truncate(trap.error as u32);
        let access = if error.contains(PageFaultError::ID) {
            "execute"
        } else if error.contains(PageFaultError::WR) {
            "write"
        } else {
            "read"
        };
        let present = if error.contains(PageFaultError::P) { "present" } else { "not present" };
        urgent(format_args!("FAULT: page fault at {address:#x} ({access}, {present}) in {}", layout.place(address)));
    } else {
        let what = EXCEPTIONS.get(trap.vector as usize).map_or("?", |exception| exception.description);
        urgent(format_args!("FAULT: {what} (vector {}, error {:#x})", trap.vector, trap.error));
    }
    urgent(format_args!("  at ip {:#x}, sp {:#x} in {}", trap.ip, trap.sp, layout.place(trap.sp)));
    exit(ExitCode::Fault)
}
