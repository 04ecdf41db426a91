//! The other CPUs: their start, and work for them.
//!
//! They begin in real mode in a page below 1 MiB, which is reserved for that, and pass to the high half on the tables
//! the first CPU was started with: only those map that page to be executed. Then they take the final tables, a stack of
//! an area with guards, and wait for work.

use crate::mm::MM;
use crate::traps;
use board_x86_qemu::cpus;
use core::arch::{global_asm, naked_asm};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use rtmm::backend::{Hw, kernel};
use rtmm::{Backend, Pfn};

pub use board_x86_qemu::cpus::{CPUS, number as cpu};

/// The page CPUs begin in, inside the first MiB, which the manager never gets.
const AP_PAGE: u8 = 8;
/// Bytes of a CPU's stack.
const STACK: usize = crate::start::STACK_SIZE;

global_asm!(
    include_str!("ap.s"),
    begin = sym begin,
    page = const (AP_PAGE as usize) << 12,
    options(att_syntax)
);

unsafe extern "C" {
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
}

/// For the CPU that is being started: the root table, its stack, its number; and the last that is up.
static ROOT: AtomicUsize = AtomicUsize::new(0);
static STACK_TOP: AtomicUsize = AtomicUsize::new(0);
static NUMBER: AtomicUsize = AtomicUsize::new(0);
static UP: AtomicUsize = AtomicUsize::new(0);

/// What each CPU is to run: a `fn()`, or null.
static WORK: [AtomicPtr<()>; CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; CPUS];

/// Starts the other CPUs, one after the other. Called once, when the manager is up and interrupts are on.
pub(crate) fn start(root: Pfn) {
    // SAFETY: the one call, on the starting CPU.
    unsafe { cpus::on_wait(|| MM.poll_shootdown()) };
    cpus::find_apics(|base| MM.ioremap(base, 4096).expect("the APICs' registers can be mapped").as_ptr());
    ROOT.store(root.0 as usize, Relaxed);
    let (start, end) = (&raw const ap_trampoline, &raw const ap_trampoline_end);
    // SAFETY: the page is RAM that is reserved for this; the trampoline is shorter, and is read by the address it is
    // linked at plus the direct map, since the final tables do not map it there.
    unsafe {
        let code = MM.backend().direct_ptr(start.addr());
        MM.backend().with_frame(Pfn(AP_PAGE.into()), |page| {
            page.copy_from_nonoverlapping(code, end.addr() - start.addr());
        });
    }
    for number in 1..CPUS {
        let stack = MM.vmalloc(STACK).expect("there is memory for a stack");
        STACK_TOP.store(stack.as_ptr().addr() + STACK, Relaxed);
        NUMBER.store(number, Release);
        // SAFETY: it was not started yet, and the code is there.
        unsafe { cpus::start_cpu(number, AP_PAGE) };
        while UP.load(Acquire) != number {
            cpus::relax();
        }
    }
}

/// Where a CPU comes to in the kernel's text, on the boot tables and a stack that others need too.
#[unsafe(naked)]
unsafe extern "C" fn begin() -> ! {
    naked_asm!(
        "call {activate}",
        "mov rsp, rax",
        "call {main}",
        "ud2",
        activate = sym activate,
        main = sym ap_main,
    )
}

/// On a CPU that starts, on the boot tables: takes the final ones. Returns where its stack begins.
extern "C" fn activate() -> usize {
    // SAFETY: the first CPU runs on these tables; the boot tables use neither no-execute nor read-only entries.
    unsafe { kernel::activate(&Hw, Pfn(ROOT.load(Relaxed) as u32)) }.expect("all CPUs are alike");
    STACK_TOP.load(Relaxed)
}

/// A CPU that has its stack: becomes one of the manager's, and runs what it is given.
extern "C" fn ap_main() -> ! {
    let number = NUMBER.load(Acquire);
    // SAFETY: its first steps, with interrupts off.
    unsafe {
        cpus::be(number);
        traps::init(number);
    }
    cpus::turn_apic_on();
    MM.cpu_up();
    // SAFETY: handlers for what can come are in place.
    unsafe { x86::irq::enable() };
    UP.store(number, Release);
    loop {
        let work = WORK[number].load(Acquire);
        if work.is_null() {
            // SAFETY: an interrupt that comes between the test and the halt would be slept over: so the flag is set by
            // the instruction right before the halt, which the processor runs without an interrupt between.
            unsafe {
                x86::irq::disable();
                if WORK[number].load(Acquire).is_null() {
                    core::arch::asm!("sti", "hlt", options(nomem, nostack));
                } else {
                    x86::irq::enable();
                }
            }
            continue;
        }
        // SAFETY: only `on_cpu` stores there, and it stores a `fn()`.
        let work = unsafe { core::mem::transmute::<*mut (), fn()>(work) };
        work();
        WORK[number].store(core::ptr::null_mut(), Release);
    }
}

/// Has CPU `cpu`, not this one, run `work`, as a task. One work at a time.
///
/// # Panics
/// When it has work already.
pub fn on_cpu(cpu: usize, work: fn()) {
    assert!(cpu != cpus::number() && cpu < CPUS, "CPU {cpu} is this one or none");
    let before = WORK[cpu].swap(work as *mut (), Release);
    assert!(before.is_null(), "CPU {cpu} has work already");
    cpus::send_ipi(cpu);
}

/// Waits until CPU `cpu` has done its work.
pub fn wait_for(cpu: usize) {
    while !WORK[cpu].load(Acquire).is_null() {
        cpus::relax();
    }
}

/// Runs `work` on all CPUs at once, this one included, and waits for all.
pub fn on_all(work: fn()) {
    let me = cpus::number();
    (0..CPUS).filter(|&cpu| cpu != me).for_each(|cpu| on_cpu(cpu, work));
    work();
    (0..CPUS).filter(|&cpu| cpu != me).for_each(wait_for);
}

/// What else CPUs do when they are interrupted: a `fn()`, or null.
static ALSO: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Makes `answer` what CPUs run behind `MM.handle_ipi()` when they are interrupted: for another manager of theirs.
pub fn also_on_ipi(answer: fn()) {
    ALSO.store(answer as *mut (), Release);
}

/// In the handler of the interrupt that CPUs send each other.
pub(crate) fn interrupted() {
    cpus::acknowledge();
    MM.handle_ipi();
    let also = ALSO.load(Acquire);
    if !also.is_null() {
        // SAFETY: only `also_on_ipi` stores there, and it stores a `fn()`.
        unsafe { core::mem::transmute::<*mut (), fn()>(also)() };
    }
}
