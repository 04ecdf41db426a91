//! Descriptor tables and the way into trap handlers.
//!
//! Exceptions end the program with a report. Page faults, double faults and NMIs run on stacks of their own, so that a
//! stack that has run into its guard page can still be reported.

use crate::memory::LAYOUT;
#[cfg(feature = "smp")]
use board_x86_qemu::cpus::{CPUS, IPI_VECTOR};
use board_x86_qemu::{BootCell, SPURIOUS_VECTOR, TIMER_VECTOR, Trap, in_interrupt_handler, report, timer};
use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::mem::transmute;
use x86::Ring;
use x86::bits64::segmentation::{Descriptor64, load_cs};
use x86::bits64::task::TaskStateSegment;
use x86::dtables::{DescriptorTablePointer, lgdt, lidt};
use x86::irq;
use x86::segmentation::{
    BuildDescriptor, CodeSegmentType, DataSegmentType, Descriptor, DescriptorBuilder, GateDescriptorBuilder,
    SegmentDescriptorBuilder, SegmentSelector, load_ds, load_es, load_ss,
};
use x86::task::load_tr;

/// Vectors the processor keeps for itself.
const EXCEPTIONS: usize = 32;
/// The interrupt that [`in_interrupt`] raises.
const SOFTWARE_VECTOR: usize = 0x40;
/// Vectors the table has room for.
const VECTORS: usize = SPURIOUS_VECTOR + 1;
/// Exceptions that push an error code (Intel SDM volume 3, table 6-1; AMD APM volume 2, section 8.4): 8, 10 to 14, 17,
/// 21, 29, 30.
const PUSHES_ERROR: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

/// Reporting walks the manager's area list and formats text; a debug build needs some KiB for it.
const TRAP_STACK: usize = 32 << 10;

#[repr(C, align(16))]
struct TrapStacks(UnsafeCell<[[[u8; TRAP_STACK]; 3]; CPUS]>);
// SAFETY: only the processors use it, as stacks, each its own.
unsafe impl Sync for TrapStacks {}
static TRAP_STACKS: TrapStacks = TrapStacks(UnsafeCell::new([[[0; TRAP_STACK]; 3]; CPUS]));

#[cfg(not(feature = "smp"))]
const CPUS: usize = 1;

/// By CPU. The processor writes to both.
static TSS: [BootCell<TaskStateSegment>; CPUS] = [const { BootCell::new() }; CPUS];
/// Null, code, data, and the TSS's two words.
static GDT: [BootCell<[u64; 5]>; CPUS] = [const { BootCell::new() }; CPUS];
/// For all CPUs.
static IDT: BootCell<[Descriptor64; VECTORS]> = BootCell::new();

const CODE: SegmentSelector = SegmentSelector::new(1, Ring::Ring0);
const DATA: SegmentSelector = SegmentSelector::new(2, Ring::Ring0);
const TASK: SegmentSelector = SegmentSelector::new(3, Ring::Ring0);

/// What a stub leaves on the stack.
#[repr(C)]
struct Frame {
    registers: [u64; 15],
    vector: u64,
    /// The error code, or 0.
    error: u64,
    /// Where the trap was taken.
    rip: u64,
    cs: u64,
    rflags: u64,
    /// The stack pointer at that moment.
    rsp: u64,
    ss: u64,
}

impl Frame {
    /// RDI, by the order in which `common` pushes.
    fn rdi(&self) -> u64 {
        self.registers[9]
    }
}

/// The entry of one vector: makes all frames alike.
#[unsafe(naked)]
unsafe extern "C" fn stub<const VECTOR: usize>() {
    naked_asm!(
        ".if {has_error} == 0",
        "push 0",
        ".endif",
        "push {vector}",
        "jmp {common}",
        has_error = const if VECTOR < EXCEPTIONS { PUSHES_ERROR >> VECTOR & 1 } else { 0 },
        vector = const VECTOR,
        common = sym common,
    )
}

/// Saves the registers, calls `trap`, and goes back. The processor aligned the stack to 16 bytes; 22 words keep that.
#[unsafe(naked)]
unsafe extern "C" fn common() {
    naked_asm!(
        "push rax",
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rbp",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "cld",
        "mov rdi, rsp",
        "call {trap}",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rbp",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "add rsp, 16",
        "iretq",
        trap = sym trap,
    )
}

extern "C" fn trap(frame: &Frame) {
    let vector = frame.vector as usize;
    match vector {
        // SAFETY: only `in_interrupt` raises this vector, with its argument in RDI.
        SOFTWARE_VECTOR => in_interrupt_handler(unsafe { transmute::<usize, fn()>(frame.rdi() as usize) }),
        #[cfg(feature = "smp")]
        IPI_VECTOR => in_interrupt_handler(crate::cpus::interrupted),
        TIMER_VECTOR => in_interrupt_handler(|| timer::fired(frame.rip as usize)),
        // Nothing asked for it, and it wants no acknowledgement.
        SPURIOUS_VECTOR => {}
        _ => {
            let [error, ip, sp] = [frame.error, frame.rip, frame.rsp].map(|word| word as usize);
            report(Trap { vector: vector as u8, error, ip, sp }, &LAYOUT)
        }
    }
}

/// Raises a software interrupt and runs `f` in its handler, with interrupts off. Returns when the handler has.
pub fn in_interrupt(f: fn()) {
    // SAFETY: the handler saves every general register and calls `f`, an ordinary function; this target's code uses no
    // other registers.
    unsafe { asm!("int {vector}", vector = const SOFTWARE_VECTOR, in("rdi") f) };
}

macro_rules! exception_stubs {
    ($($vector:literal)*) => { [$(stub::<$vector> as unsafe extern "C" fn()),*] };
}

/// Loads the GDT, the TSS with its stacks, and the IDT, of CPU `cpu`, which is this one.
///
/// # Safety
/// Called once by each CPU with interrupts off, by the starting one, which is number 0, first.
pub(crate) unsafe fn init(cpu: usize) {
    let mut tss = TaskStateSegment::new();
    for i in 0..3 {
        tss.set_ist(i, TRAP_STACKS.0.get() as u64 + ((cpu * 3 + i + 1) * TRAP_STACK) as u64);
    }
    // SAFETY: the one call.
    let tss = unsafe { TSS[cpu].set(tss) };

    let code: Descriptor =
        DescriptorBuilder::code_descriptor(0, 0xf_ffff, CodeSegmentType::ExecuteRead).present().l().finish();
    let data: Descriptor =
        DescriptorBuilder::data_descriptor(0, 0xf_ffff, DataSegmentType::ReadWrite).present().db().finish();
    let task: Descriptor64 = <DescriptorBuilder as GateDescriptorBuilder<u64>>::tss_descriptor(
        tss as *const _ as u64,
        size_of::<TaskStateSegment>() as u64 - 1,
        true,
    )
    .present()
    .finish();
    // SAFETY: both are 16 bytes without padding.
    let [task_low, task_high] = unsafe { transmute::<Descriptor64, [u64; 2]>(task) };
    // SAFETY: the one call.
    let gdt = unsafe { GDT[cpu].set([0, code.as_u64(), data.as_u64(), task_low, task_high]) };

    // SAFETY: the starting CPU calls first, and once.
    let idt = IDT.get().unwrap_or_else(|| unsafe { IDT.set(interrupts()) });

    // SAFETY: the tables live for good, and the selectors name the entries built above.
    unsafe {
        lgdt(&DescriptorTablePointer::new(gdt));
        load_cs(CODE);
        load_ss(DATA);
        load_ds(DATA);
        load_es(DATA);
        load_tr(TASK);
        lidt(&DescriptorTablePointer::new(idt));
    }
}

/// The handlers of all interrupts.
fn interrupts() -> [Descriptor64; VECTORS] {
    const STUBS: [unsafe extern "C" fn(); EXCEPTIONS] =
        exception_stubs!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    let mut idt = [Descriptor64::NULL; VECTORS];
    for (vector, &entry) in STUBS.iter().enumerate() {
        let stack = match vector as u8 {
            irq::PAGE_FAULT_VECTOR => 1,
            irq::DOUBLE_FAULT_VECTOR => 2,
            irq::NONMASKABLE_INTERRUPT_VECTOR => 3,
            _ => 0,
        };
        idt[vector] = gate(entry, stack);
    }
    idt[SOFTWARE_VECTOR] = gate(stub::<SOFTWARE_VECTOR>, 0);
    #[cfg(feature = "smp")]
    {
        idt[IPI_VECTOR] = gate(stub::<IPI_VECTOR>, 0);
    }
    idt[TIMER_VECTOR] = gate(stub::<TIMER_VECTOR>, 0);
    idt[SPURIOUS_VECTOR] = gate(stub::<SPURIOUS_VECTOR>, 0);
    idt
}

fn gate(entry: unsafe extern "C" fn(), stack: u8) -> Descriptor64 {
    <DescriptorBuilder as GateDescriptorBuilder<u64>>::interrupt_descriptor(CODE, entry as usize as u64)
        .present()
        .dpl(Ring::Ring0)
        .ist(stack)
        .finish()
}
