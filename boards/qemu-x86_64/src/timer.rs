//! A timer whose interrupt comes after a given number of instructions: the local APIC's.

use crate::mm::MM;
use board_x86_qemu::timer;

pub use board_x86_qemu::timer::{cancel, fire_after};

/// Makes `handler` what the timer's interrupt runs; it is given the address of the interrupted instruction. The first
/// call maps the APIC's registers, for good.
///
/// # Panics
/// When the manager cannot map them.
pub fn start(handler: timer::Handler) {
    timer::start(handler, |base| MM.ioremap(base, 4096).expect("the APIC's registers can be mapped").as_ptr());
}
