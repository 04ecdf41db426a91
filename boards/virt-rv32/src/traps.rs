//! The report of a hardware fault.

use board_semihosting::write_fault;
use riscv::register::{mcause, mepc, mtval};

/// Called by riscv-rt for every exception.
#[unsafe(no_mangle)]
extern "C" fn ExceptionHandler(_: &riscv_rt::TrapFrame) -> ! {
    let (cause, address, pc) = (mcause::read().code(), mtval::read(), mepc::read());
    // Privileged architecture, table of mcause values.
    let access = match cause {
        1 => "execution of",
        4 | 5 => "read of",
        6 | 7 => "write to",
        _ => write_fault(format_args!("exception {cause} at pc {pc:#010x}, mtval {address:#010x}")),
    };
    write_fault(format_args!("{access} {address:#010x} at pc {pc:#010x}, mcause {cause}"))
}
