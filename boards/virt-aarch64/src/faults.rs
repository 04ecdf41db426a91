//! The report of a hardware fault.

use cortex_a::registers::{ELR_EL1, ESR_EL1, FAR_EL1, Readable};

/// Called by the assembly for every exception but the interrupt.
#[unsafe(no_mangle)]
extern "C" fn board_fault() -> ! {
    let (syndrome, address, pc) = (ESR_EL1.get(), FAR_EL1.get(), ELR_EL1.get());
    // WnR, bit 6 of a data abort's syndrome (Arm ARM, D13.2.37).
    let access = if syndrome & 1 << 6 != 0 { "write to" } else { "read of" };
    match ESR_EL1.read_as_enum(ESR_EL1::EC) {
        Some(ESR_EL1::EC::Value::DataAbortCurrentEL) => board_semihosting::write_fault(format_args!(
            "{access} {address:#018x} at pc {pc:#018x}, ESR {syndrome:#010x}"
        )),
        Some(ESR_EL1::EC::Value::InstrAbortCurrentEL) => board_semihosting::write_fault(format_args!(
            "execution of {address:#018x} at pc {pc:#018x}, ESR {syndrome:#010x}"
        )),
        _ => board_semihosting::write_fault(format_args!("exception at pc {pc:#018x}, ESR {syndrome:#010x}")),
    }
}
