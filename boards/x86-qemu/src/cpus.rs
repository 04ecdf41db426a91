//! Several CPUs: what each knows of itself, the interrupts they send each other, and the lock between them.

use crate::boot_cell::BootCell;
use crate::context::{INTERRUPTS, flags};
use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use critical_section::RawRestoreState;
use rtmm::{Interrupts, PhysAddr, TicketLock};
use x86::apic::{ApicId, DeliveryMode, DeliveryStatus, DestinationMode, DestinationShorthand, Icr, Level, TriggerMode};
use x86::msr::{IA32_APIC_BASE, IA32_GS_BASE, rdmsr, wrmsr};

/// How many CPUs the board runs on.
pub const CPUS: usize = 4;
/// The interrupt by which a CPU is asked to look at its mailbox.
pub const IPI_VECTOR: usize = 0x42;

/// What a CPU finds by GS.
#[repr(C, align(64))]
pub struct Cpu {
    /// Where it is itself.
    this: AtomicPtr<Cpu>,
    number: AtomicUsize,
    /// How many interrupt handlers are running on it.
    pub(crate) depth: AtomicUsize,
}

static ALL: [Cpu; CPUS] =
    [const { Cpu { this: AtomicPtr::new(ptr::null_mut()), number: AtomicUsize::new(0), depth: AtomicUsize::new(0) } };
        CPUS];

/// Makes this CPU number `number`.
///
/// # Safety
/// Called once by each CPU with interrupts off, with a number of its own, before it calls anything else of the board's.
pub unsafe fn be(number: usize) {
    let cpu = &ALL[number];
    cpu.number.store(number, Relaxed);
    cpu.this.store(ptr::from_ref(cpu).cast_mut(), Relaxed);
    // SAFETY: nothing else uses GS, and the value is for good.
    unsafe { wrmsr(IA32_GS_BASE, ptr::from_ref(cpu).addr() as u64) };
}

/// This CPU's.
#[inline(always)]
pub(crate) fn here() -> &'static Cpu {
    let this: *const Cpu;
    // SAFETY: `be` was called first, which set GS to a `Cpu` that begins with a pointer to itself.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) this, options(nostack, preserves_flags, pure, readonly));
        &*this
    }
}

/// The number of this CPU.
#[inline(always)]
pub fn number() -> usize {
    let number: usize;
    // SAFETY: as in `here`; the number is its second word.
    unsafe { asm!("mov {}, gs:[8]", out(reg) number, options(nostack, preserves_flags, pure, readonly)) };
    number
}

/// What a CPU does for the others while it waits with interrupts masked.
static POLL: BootCell<fn()> = BootCell::new();
/// The registers of the local APICs: each CPU reaches its own there.
static APIC: AtomicPtr<u32> = AtomicPtr::new(ptr::null_mut());

/// Offsets of registers (Intel SDM volume 3, table 10-1).
const EOI: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const ICR_LOW: usize = 0x300;
const ICR_HIGH: usize = 0x310;
/// In the low half of the interrupt command register: the last command is still on its way.
const PENDING: u32 = 1 << 12;

/// Makes `poll` what CPUs do for others while they wait.
///
/// # Safety
/// Called once, by the starting CPU.
pub unsafe fn on_wait(poll: fn()) {
    // SAFETY: the one call.
    unsafe { POLL.set(poll) };
}

/// Has the APICs' registers mapped by `map`, for good, and turns that of this CPU on.
pub fn find_apics(map: impl FnOnce(PhysAddr) -> *mut u8) {
    // SAFETY: every CPU these boards boot on has the register, and reading it has no effect.
    let base = PhysAddr(unsafe { rdmsr(IA32_APIC_BASE) } & crate::timer::BASE);
    APIC.store(map(base).cast(), Release);
    turn_apic_on();
}

/// Turns the local APIC of this CPU on.
pub fn turn_apic_on() {
    write(SPURIOUS, 1 << 8 | crate::SPURIOUS_VECTOR as u32);
}

fn register(offset: usize) -> *mut u32 {
    let registers = APIC.load(Acquire);
    assert!(!registers.is_null(), "the APICs were not found");
    registers.wrapping_byte_add(offset)
}

/// Writes to a register of this CPU's APIC.
fn write(offset: usize, value: u32) {
    // SAFETY: a register of the page that `find_apics` had mapped, for good. It is a device's: no reference to it is
    // ever made, here or in `timer`, which has the page by another address; and what other CPUs reach by this one is
    // theirs.
    unsafe { register(offset).write_volatile(value) };
}

/// Has this CPU's APIC send a command, and waits until it is on its way.
fn send(command: Icr) {
    // The command is two registers: a handler that sends one between them would change whom it goes to.
    let masked = Cli::mask();
    write(ICR_HIGH, command.upper());
    write(ICR_LOW, command.lower());
    // SAFETY: as for `write`; reading it has no effect.
    while unsafe { register(ICR_LOW).read_volatile() } & PENDING != 0 {
        core::hint::spin_loop();
    }
    // SAFETY: of the `mask` above.
    unsafe { Cli::restore(masked) };
}

/// A command for CPU `cpu`. CPUs are numbered as their APICs are.
fn command(cpu: usize, vector: u8, mode: DeliveryMode, trigger: TriggerMode) -> Icr {
    let (one, physical) = (DestinationShorthand::NoShorthand, DestinationMode::Physical);
    Icr::for_xapic(vector, ApicId::XApic(cpu as u8), one, mode, physical, DeliveryStatus::Idle, Level::Assert, trigger)
}

/// Interrupts CPU `cpu`, which has a handler for it before its APIC is on.
pub fn send_ipi(cpu: usize) {
    send(command(cpu, IPI_VECTOR as u8, DeliveryMode::Fixed, TriggerMode::Edge));
}

/// Resets CPU `cpu` and has it start in real mode at the beginning of physical page `page`, by INIT and SIPI.
///
/// # Safety
/// The CPU was not started yet, and the page holds code that can begin there.
pub unsafe fn start_cpu(cpu: usize, page: u8) {
    // Since the Pentium 4 no APIC knows the command that takes INIT back; and a second SIPI is for CPUs that lost the
    // first: those of QEMU lose none.
    send(command(cpu, 0, DeliveryMode::Init, TriggerMode::Level));
    send(command(cpu, page, DeliveryMode::StartUp, TriggerMode::Edge));
}

/// In a handler: acknowledges the interrupt to this CPU's APIC.
pub fn acknowledge() {
    write(EOI, 0);
}

/// One turn of a loop that waits for another CPU.
pub fn relax() {
    if let Some(poll) = POLL.get() {
        poll();
    }
    core::hint::spin_loop();
}

/// Interrupts of this CPU, by its flag.
pub struct Cli;

// SAFETY: with the flag clear this CPU takes no interrupt and goes on with what it does; `restore` sets it only where
// it was set, so that pairs nest.
unsafe impl Interrupts for Cli {
    type State = usize;

    #[inline(always)]
    fn mask() -> usize {
        let found = flags();
        // SAFETY: the kernel may mask interrupts.
        unsafe { crate::context::mask() };
        found
    }

    #[inline(always)]
    unsafe fn restore(found: usize) {
        if found & INTERRUPTS != 0 {
            // SAFETY: they were on before the matching `mask`.
            unsafe { crate::context::unmask() };
        }
    }

    #[inline(always)]
    fn was_masked(found: usize) -> Option<bool> {
        Some(found & INTERRUPTS == 0)
    }

    fn relax() {
        relax();
    }
}

/// The lock of each structure.
pub type CpusLock = TicketLock<Cli>;

/// Who is in a critical section: the number of the CPU + 1, or 0.
static OWNER: AtomicUsize = AtomicUsize::new(0);
/// How many sections stand in each other. The owner's.
static NESTED: AtomicUsize = AtomicUsize::new(0);

struct OneCpuAtATime;
critical_section::set_impl!(OneCpuAtATime);

// SAFETY: only the CPU whose number is in `OWNER` is in a section, with its interrupts off, and it leaves with the last
// of its sections.
unsafe impl critical_section::Impl for OneCpuAtATime {
    unsafe fn acquire() -> RawRestoreState {
        let found = Cli::mask();
        let me = number() + 1;
        if OWNER.load(Relaxed) != me {
            while OWNER.compare_exchange(0, me, Acquire, Relaxed).is_err() {
                relax();
            }
        }
        NESTED.store(NESTED.load(Relaxed) + 1, Relaxed);
        found & INTERRUPTS != 0
    }

    unsafe fn release(on: RawRestoreState) {
        let left = NESTED.load(Relaxed) - 1;
        NESTED.store(left, Relaxed);
        if left == 0 {
            OWNER.store(0, Release);
        }
        if on {
            // SAFETY: they were on before the matching `acquire`.
            unsafe { x86::irq::enable() };
        }
    }
}
