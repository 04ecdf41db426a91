//! Reports of processor exceptions. Nothing here takes a lock or trusts what the interrupted code was doing.

use crate::console::urgent;
use crate::exit::{ExitCode, exit};
use crate::place::Place;
use crate::traps::Frame;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use x86::irq::{EXCEPTIONS, PAGE_FAULT_VECTOR, PageFaultError};

/// Says that the program is about to fault: the runner then wants a report that holds `text`, and exit status 101.
pub fn expect_fault(text: &str) {
    urgent(format_args!("EXPECT-FAULT: {text}"));
}

/// Prints what happened and where, and ends the program.
pub(crate) fn report(frame: &Frame) -> ! {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    if REPORTING.swap(true, Relaxed) {
        urgent(format_args!("FAULT: a fault while reporting a fault"));
        exit(ExitCode::Fault);
    }
    if frame.vector() == PAGE_FAULT_VECTOR {
        // SAFETY: reading CR2 has no effect.
        let address = unsafe { x86::controlregs::cr2() };
        let error = PageFaultError::from_bits_truncate(frame.error as u32);
        let access = if error.contains(PageFaultError::ID) {
            "execute"
        } else if error.contains(PageFaultError::WR) {
            "write"
        } else {
            "read"
        };
        let present = if error.contains(PageFaultError::P) { "present" } else { "not present" };
        urgent(format_args!("FAULT: page fault at {address:#x} ({access}, {present}) in {}", Place::of(address)));
    } else {
        let what = EXCEPTIONS.get(frame.vector() as usize).map_or("?", |exception| exception.description);
        urgent(format_args!("FAULT: {what} (vector {}, error {:#x})", frame.vector(), frame.error));
    }
    urgent(format_args!("  at rip {:#x}, rsp {:#x} in {}", frame.rip, frame.rsp, Place::of(frame.rsp as usize)));
    exit(ExitCode::Fault)
}
