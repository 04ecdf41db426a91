//! The report of a hardware fault.

use board_semihosting::{Place, write_fault};
use core::sync::atomic::{AtomicU8, Ordering};
use riscv::register::{mcause, mepc, mtval};

/// An instruction the hart does not have (privileged architecture, table of mcause values).
const ILLEGAL_INSTRUCTION: usize = 2;

/// No instruction is being tried; one is; it was refused.
const IDLE: u8 = 0;
const TRYING: u8 = 1;
const REFUSED: u8 = 2;

static TRIAL: AtomicU8 = AtomicU8::new(IDLE);

/// Runs `instruction`, which is four bytes long and may be one the hart does not have; returns whether it has it. For
/// start-up.
pub(crate) fn survives(instruction: impl FnOnce()) -> bool {
    TRIAL.store(TRYING, Ordering::Relaxed);
    instruction();
    TRIAL.swap(IDLE, Ordering::Relaxed) != REFUSED
}

/// Called by riscv-rt for every exception.
#[unsafe(no_mangle)]
extern "C" fn ExceptionHandler(_: &riscv_rt::TrapFrame) {
    let (cause, address, pc) = (mcause::read().code(), mtval::read(), mepc::read());
    if cause == ILLEGAL_INSTRUCTION && TRIAL.load(Ordering::Relaxed) == TRYING {
        TRIAL.store(REFUSED, Ordering::Relaxed);
        // SAFETY: behind the instruction, which `survives` says is four bytes long; what it was to read stays as it
        // was.
        unsafe { mepc::write(pc + 4) };
        return;
    }
    // Privileged architecture, table of mcause values.
    let access = match cause {
        1 => "execution of",
        4 | 5 => "read of",
        6 | 7 => "write to",
        _ => write_fault(format_args!("exception {cause} at pc {pc:#010x}, mtval {address:#010x}")),
    };
    write_fault(format_args!("{access} {address:#010x}{} at pc {pc:#010x}, mcause {cause}", Place(address)))
}
