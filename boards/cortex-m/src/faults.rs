//! The report of a hardware fault.

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};

/// CFSR bits that say the address register beside them is valid (Armv7-M ARM, B3.2.15).
const BFARVALID: u32 = 1 << 15;
const MMARVALID: u32 = 1 << 7;

// SAFETY: it only reads fault registers, and never returns to the faulting code.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    // SAFETY: the registers are only read, and nothing runs after this.
    let scb = unsafe { &*SCB::PTR };
    let cfsr = scb.cfsr.read();
    let address = if cfsr & BFARVALID != 0 {
        Some(scb.bfar.read())
    } else if cfsr & MMARVALID != 0 {
        Some(scb.mmfar.read())
    } else {
        None
    };
    report(cfsr, address, frame.pc())
}

fn report(cfsr: u32, address: Option<u32>, pc: u32) -> ! {
    match address {
        Some(address) => board_semihosting::write_fault(format_args!(
            "access to {address:#010x} at pc {pc:#010x}, CFSR {cfsr:#010x}"
        )),
        None => board_semihosting::write_fault(format_args!("at pc {pc:#010x}, CFSR {cfsr:#010x}")),
    }
}
