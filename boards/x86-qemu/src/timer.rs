//! A timer whose interrupt comes after a given number of instructions: the local APIC's.

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use critical_section::Mutex;
use rtmm::PhysAddr;
use x86::msr::{IA32_APIC_BASE, rdmsr};

/// The interrupt of the timer.
pub const TIMER_VECTOR: usize = 0x41;
/// What the local APIC sends when a request is gone before it is taken; its low four bits must be ones.
pub const SPURIOUS_VECTOR: usize = 0x4f;

/// Offsets of registers (Intel SDM volume 3, table 10-1).
const EOI: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const LVT_TIMER: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const DIVIDE: usize = 0x3e0;
/// In the spurious-interrupt register: the APIC is on.
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// In the divide register: count every cycle of the bus.
const EVERY_CYCLE: u32 = 0b1011;
/// The registers' page in IA32_APIC_BASE.
pub(crate) const BASE: u64 = 0x000f_ffff_ffff_f000;

/// What a timer's interrupt runs.
pub type Handler = fn(usize);

/// The mapped registers; null before the first [`start`].
static REGISTERS: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static HANDLER: Mutex<Cell<Option<Handler>>> = Mutex::new(Cell::new(None));

fn write(register: usize, value: u32) {
    let registers = REGISTERS.load(Relaxed);
    assert!(!registers.is_null(), "the timer was not started");
    // SAFETY: a register of the page that `start` had mapped, for good. It is a device's: no reference to it is ever
    // made, here or in `cpus`, which has the page by another address, for other registers and the same value in the one
    // both turn the APIC on by.
    unsafe { registers.add(register).cast::<u32>().write_volatile(value) };
}

/// Makes `handler` what the timer's interrupt runs; it is given the address of the interrupted instruction. The first
/// call has the page of the APIC's registers mapped by `map`, for good.
pub fn start(handler: Handler, map: fn(PhysAddr) -> *mut u8) {
    critical_section::with(|section| HANDLER.borrow(section).set(Some(handler)));
    if REGISTERS.load(Relaxed).is_null() {
        // SAFETY: every CPU with PAE and QEMU's machines has the register, and reading it has no effect.
        let base = PhysAddr(unsafe { rdmsr(IA32_APIC_BASE) } & BASE);
        REGISTERS.store(map(base), Relaxed);
    }
    write(SPURIOUS, SOFTWARE_ENABLE | SPURIOUS_VECTOR as u32);
    write(DIVIDE, EVERY_CYCLE);
    // One shot: bits 17 and 18 are zero.
    write(LVT_TIMER, TIMER_VECTOR as u32);
}

/// Raises the interrupt once, `instructions` (at least 1) after this call's last store: exact to an instruction under
/// `-icount shift=0,sleep=off`; without it, after 1 ns for each.
pub fn fire_after(instructions: u32) {
    // QEMU's APIC counts at 1 GHz.
    write(INITIAL_COUNT, instructions);
}

/// Stops the timer; an interrupt that is pending already still comes.
pub fn cancel() {
    write(INITIAL_COUNT, 0);
}

/// In the interrupt: acknowledges it and runs the handler.
pub fn fired(pc: usize) {
    write(EOI, 0);
    if let Some(handler) = critical_section::with(|section| HANDLER.borrow(section).get()) {
        handler(pc);
    }
}
