//! Descriptor tables and the way into trap handlers.
//!
//! Exceptions end the program with a report. Page faults, double faults and NMIs are tasks of the processor, each with
//! a stack of its own, so that a stack that has run into its guard page can still be reported: in 32 bits a gate cannot
//! change the stack without changing the privilege, but a task switch can.

use crate::memory::LAYOUT;
use board_x86_qemu::{BootCell, SPURIOUS_VECTOR, TIMER_VECTOR, Trap, in_interrupt_handler, report, timer};
use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::mem::transmute;
use x86::Ring;
use x86::controlregs::cr3;
use x86::dtables::{DescriptorTablePointer, lgdt, lidt};
use x86::irq;
use x86::segmentation::SegmentSelector;
use x86::task::load_tr;

/// Vectors the processor keeps for itself.
const EXCEPTIONS: usize = 32;
/// The interrupt that [`in_interrupt`] raises.
const SOFTWARE_VECTOR: usize = 0x40;
/// Vectors the table has room for.
const VECTORS: usize = SPURIOUS_VECTOR + 1;
/// Exceptions that push an error code (Intel SDM volume 3, table 6-1): 8, 10 to 14, 17, 21.
const PUSHES_ERROR: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21;
/// The exceptions that are tasks.
const FAULT_TASKS: [u8; 3] = [irq::PAGE_FAULT_VECTOR, irq::DOUBLE_FAULT_VECTOR, irq::NONMASKABLE_INTERRUPT_VECTOR];

/// Reporting walks the manager's area list and formats text; a debug build needs some KiB for it.
const TRAP_STACK: usize = 32 << 10;

/// Selectors of the boot code's GDT, too, with the same meaning: no segment register has to be loaded anew.
const CODE: u32 = 1 << 3;
const DATA: u32 = 2 << 3;
/// The task that everything but faults runs in; those of [`FAULT_TASKS`] follow.
const MAIN_TASK: u16 = 3;

/// Flat segments of 4 GiB, privilege 0, 32 bits, already marked as accessed: code, data.
const FLAT: [u64; 2] = [0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// A task-state segment as the processor reads and writes it (Intel SDM volume 3, figure 8-2).
#[repr(C)]
#[derive(Clone, Copy)]
struct TaskState {
    link: u32,
    stacks: [u32; 6],
    cr3: u32,
    eip: u32,
    eflags: u32,
    /// EAX, ECX, EDX, EBX.
    general: [u32; 4],
    esp: u32,
    /// EBP, ESI, EDI.
    pointers: [u32; 3],
    es: u32,
    cs: u32,
    ss: u32,
    ds: u32,
    /// FS, GS, LDT: null.
    others: [u32; 3],
    /// No trap on entry, and no map of I/O ports.
    map: u32,
}

const _: () = assert!(size_of::<TaskState>() == 104);

impl TaskState {
    const EMPTY: TaskState = TaskState {
        link: 0,
        stacks: [0; 6],
        cr3: 0,
        eip: 0,
        // Bit 1 is always set; interrupts are off.
        eflags: 2,
        general: [0; 4],
        esp: 0,
        pointers: [0; 3],
        es: DATA,
        cs: CODE,
        ss: DATA,
        ds: DATA,
        others: [0; 3],
        map: (size_of::<TaskState>() as u32) << 16,
    };
}

/// What the processor writes to: the main task's state, those of the fault tasks, and their stacks.
#[repr(C, align(16))]
struct Tasks {
    states: UnsafeCell<[TaskState; 4]>,
    stacks: UnsafeCell<[[u8; TRAP_STACK]; 3]>,
}
// SAFETY: the processor uses it at task switches; this program writes to it with interrupts off while it starts, and
// reads it in a fault task, which never ends.
unsafe impl Sync for Tasks {}
static TASKS: Tasks =
    Tasks { states: UnsafeCell::new([TaskState::EMPTY; 4]), stacks: UnsafeCell::new([[0; TRAP_STACK]; 3]) };

/// The processor marks the descriptors of tasks as busy.
#[repr(align(8))]
struct Gdt(UnsafeCell<[u64; 7]>);
// SAFETY: as for `Tasks`.
unsafe impl Sync for Gdt {}
static GDT: Gdt = Gdt(UnsafeCell::new([0; 7]));
static IDT: BootCell<[u64; VECTORS]> = BootCell::new();

/// What a stub leaves on the stack.
#[repr(C)]
struct Frame {
    /// EDI, ESI, EBP, ESP before PUSHAD, EBX, EDX, ECX, EAX.
    registers: [u32; 8],
    vector: u32,
    /// The error code, or 0.
    error: u32,
    /// Where the trap was taken.
    eip: u32,
    cs: u32,
    eflags: u32,
}

impl Frame {
    fn eax(&self) -> u32 {
        self.registers[7]
    }

    /// The stack pointer at that moment: the privilege did not change, so the processor pushed nothing of it.
    fn esp(&self) -> usize {
        (&raw const *self).addr() + size_of::<Frame>()
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

/// Saves the registers, calls `trap` with the stack aligned as the calling convention wants it, and goes back.
#[unsafe(naked)]
unsafe extern "C" fn common() {
    naked_asm!(
        "pushad",
        "cld",
        "mov ebp, esp",
        "and esp, -16",
        "sub esp, 12",
        "push ebp",
        "call {trap}",
        "mov esp, ebp",
        "popad",
        "add esp, 8",
        "iretd",
        trap = sym trap,
    )
}

extern "C" fn trap(frame: &Frame) {
    let vector = frame.vector as usize;
    match vector {
        // SAFETY: only `in_interrupt` raises this vector, with its argument in EAX.
        SOFTWARE_VECTOR => in_interrupt_handler(unsafe { transmute::<usize, fn()>(frame.eax() as usize) }),
        TIMER_VECTOR => in_interrupt_handler(|| timer::fired(frame.eip as usize)),
        // Nothing asked for it, and it wants no acknowledgement.
        SPURIOUS_VECTOR => {}
        _ => {
            let [error, ip] = [frame.error, frame.eip].map(|word| word as usize);
            report(Trap { vector: vector as u8, error, ip, sp: frame.esp() }, &LAYOUT)
        }
    }
}

/// Where a fault task begins, on its own stack, with the error code on it when there is one.
#[unsafe(naked)]
unsafe extern "C" fn fault_entry<const VECTOR: usize>() {
    naked_asm!(
        ".if {has_error} == 0",
        "push 0",
        ".endif",
        "mov eax, [esp]",
        "and esp, -16",
        "sub esp, 8",
        "push eax",
        "push {vector}",
        "call {fault}",
        has_error = const PUSHES_ERROR >> VECTOR & 1,
        vector = const VECTOR,
        fault = sym fault,
    )
}

extern "C" fn fault(vector: u32, error: u32) -> ! {
    // SAFETY: the switch to this task wrote the state of the main one, and nothing runs there any more. Where a fault
    // task was interrupted the state is an older one; the report then is that a report failed.
    let main = unsafe { TASKS.states.get().cast::<TaskState>().read_volatile() };
    let [error, ip, sp] = [error, main.eip, main.esp].map(|word| word as usize);
    report(Trap { vector: vector as u8, error, ip, sp }, &LAYOUT)
}

/// Raises a software interrupt and runs `f` in its handler, with interrupts off. Returns when the handler has.
pub fn in_interrupt(f: fn()) {
    // SAFETY: the handler saves every general register and calls `f`, an ordinary function. This program's only other
    // registers are those of the x87, which functions leave empty for their callers.
    unsafe { asm!("int {vector}", vector = const SOFTWARE_VECTOR, in("eax") f) };
}

macro_rules! exception_stubs {
    ($($vector:literal)*) => { [$(stub::<$vector> as unsafe extern "C" fn()),*] };
}

/// Loads the GDT, the tasks with their stacks, and the IDT.
///
/// # Safety
/// Called once, by the starting CPU with interrupts off.
pub(crate) unsafe fn init() {
    let entries = [
        fault_entry::<{ irq::PAGE_FAULT_VECTOR as usize }> as unsafe extern "C" fn(),
        fault_entry::<{ irq::DOUBLE_FAULT_VECTOR as usize }>,
        fault_entry::<{ irq::NONMASKABLE_INTERRUPT_VECTOR as usize }>,
    ];
    let states = TASKS.states.get().cast::<TaskState>();
    let mut gdt = [0, FLAT[0], FLAT[1], 0, 0, 0, 0];
    for task in 0..=FAULT_TASKS.len() {
        let state = states.wrapping_add(task);
        if let Some(fault) = task.checked_sub(1) {
            let esp = (TASKS.stacks.get().addr() + (fault + 1) * TRAP_STACK) as u32;
            let eip = entries[fault] as usize as u32;
            // SAFETY: in the array, and the task register is not loaded yet.
            unsafe { state.write(TaskState { eip, esp, ..TaskState::EMPTY }) };
        }
        gdt[MAIN_TASK as usize + task] = task_descriptor(state.addr() as u32);
    }
    tables_changed();

    const STUBS: [unsafe extern "C" fn(); EXCEPTIONS] =
        exception_stubs!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    let mut idt = [0; VECTORS];
    for (vector, &entry) in STUBS.iter().enumerate() {
        idt[vector] = interrupt_gate(entry);
    }
    for (number, &vector) in FAULT_TASKS.iter().enumerate() {
        idt[vector as usize] = task_gate(MAIN_TASK + 1 + number as u16);
    }
    idt[SOFTWARE_VECTOR] = interrupt_gate(stub::<SOFTWARE_VECTOR>);
    idt[TIMER_VECTOR] = interrupt_gate(stub::<TIMER_VECTOR>);
    idt[SPURIOUS_VECTOR] = interrupt_gate(stub::<SPURIOUS_VECTOR>);

    // SAFETY: the one call; the tables live for good, and the selectors name the entries built above.
    unsafe {
        GDT.0.get().write(gdt);
        lgdt(&DescriptorTablePointer::new(&*GDT.0.get()));
        load_tr(SegmentSelector::new(MAIN_TASK, Ring::Ring0));
        lidt(&DescriptorTablePointer::new(IDT.set(idt)));
    }
}

/// Tells the fault tasks which page tables are in use: a task switch loads them.
pub(crate) fn tables_changed() {
    // SAFETY: ring 0; reading has no effect.
    let root = unsafe { cr3() } as u32;
    for task in 1..=FAULT_TASKS.len() {
        // SAFETY: in the array; the processor reads the field at a fault, which comes before or after this store.
        unsafe { (&raw mut (*TASKS.states.get())[task].cr3).write_volatile(root) };
    }
}

/// An available 32-bit task, privilege 0 (Intel SDM volume 3, figure 8-3).
fn task_descriptor(base: u32) -> u64 {
    let (limit, base) = (size_of::<TaskState>() as u64 - 1, u64::from(base));
    limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24) << 56
}

/// A gate that masks interrupts (Intel SDM volume 3, figure 6-2).
fn interrupt_gate(entry: unsafe extern "C" fn()) -> u64 {
    let entry = entry as usize as u64;
    entry & 0xffff | u64::from(CODE) << 16 | 0x8e << 40 | (entry >> 16) << 48
}

/// A gate that switches to the task of this descriptor.
fn task_gate(descriptor: u16) -> u64 {
    u64::from(descriptor) << 3 << 16 | 0x85 << 40
}
