//! The report of a hardware fault.

use board_semihosting::{Place, write_fault};
use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};

/// CFSR bits that say the address register beside them is valid (Armv7-M ARM, B3.2.15).
const BFARVALID: u32 = 1 << 15;
const MMARVALID: u32 = 1 << 7;
/// CFSR: a fault of the memory protection unit, by a fetch or by a load or store.
const IACCVIOL: u32 = 1;
const DACCVIOL: u32 = 1 << 1;

// SAFETY: it only reads fault registers, and never returns to the faulting code.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    report("fault", frame)
}

/// The handler of memory faults, where a board turns the protection unit on. `cortex-m-rt` hands it no frame.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn MemoryManagement() {
    core::arch::naked_asm!("mov r0, sp", "b {report}", report = sym memory_fault)
}

extern "C" fn memory_fault(frame: &ExceptionFrame) -> ! {
    report("MemManage fault", frame)
}

fn report(what: &str, frame: &ExceptionFrame) -> ! {
    // SAFETY: the registers are only read, and nothing runs after this.
    let scb = unsafe { &*SCB::PTR };
    let (cfsr, pc) = (scb.cfsr.read(), frame.pc());
    let address = if cfsr & BFARVALID != 0 {
        Some(scb.bfar.read())
    } else if cfsr & MMARVALID != 0 {
        Some(scb.mmfar.read())
    } else if cfsr & IACCVIOL != 0 {
        Some(pc)
    } else {
        None
    };
    let access = match cfsr & (IACCVIOL | DACCVIOL) {
        IACCVIOL => "execution of",
        _ => "access to",
    };
    match address {
        Some(address) => write_fault(format_args!(
            "{what}: {access} {address:#010x}{} at pc {pc:#010x}, CFSR {cfsr:#010x}",
            Place(address as usize)
        )),
        None => write_fault(format_args!("{what} at pc {pc:#010x}, CFSR {cfsr:#010x}")),
    }
}
