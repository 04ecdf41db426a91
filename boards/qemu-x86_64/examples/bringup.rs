//! Shows that the board comes up: what the firmware said, the contexts, the file. Arguments name faults to raise.
#![no_std]
#![no_main]

use board_qemu_x86_64 as board;
use board_qemu_x86_64::MM;
use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use rtmm::backend::{Hw, Machine, kernel};
use rtmm::{Context, Platform};

board::entry!(main);

const DIRECT_MAP: usize = 0xffff_8880_0000_0000;
const KERNEL_BASE: usize = 0xffff_ffff_8000_0000;

static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);

fn handler() {
    assert_eq!(board::BoardPlatform.context(), Context::Atomic);
    INTERRUPTS.fetch_add(1, Relaxed);
    if INTERRUPTS.load(Relaxed) == 1 {
        board::in_interrupt(handler);
        assert_eq!(board::BoardPlatform.context(), Context::Atomic, "back in the outer handler");
    }
}

/// Never ends. A frame is larger than the guard page, so only the compiler's stack probes can hit it.
#[inline(never)]
fn overflow(depth: usize) -> usize {
    let frame = black_box([depth; 2048]);
    if depth == usize::MAX { frame[0] } else { overflow(depth + 1) + black_box(&frame)[63] }
}

fn main() {
    board::say!("{}: args '{}'", board::NAME, board::args());

    assert_eq!(board::BoardPlatform.context(), Context::Task);
    board::in_interrupt(handler);
    assert_eq!(INTERRUPTS.load(Relaxed), 2);
    assert_eq!(board::BoardPlatform.context(), Context::Task, "interrupts are on again");
    critical_section::with(|_| assert_eq!(board::BoardPlatform.context(), Context::Atomic));
    assert_eq!(board::BoardPlatform.context(), Context::Task);

    let before = board::instructions();
    assert!(board::instructions() > before);

    if let Some(file) = board::file() {
        let (mut sum, mut at, mut buffer) = (0u64, 0, [0; 256]);
        loop {
            match file.read_at(at, &mut buffer) {
                0 => break,
                count => {
                    at += count;
                    sum += buffer[..count].iter().map(|&byte| u64::from(byte)).sum::<u64>();
                }
            }
        }
        assert_eq!(at, file.len());
        board::say!("file: {at} bytes, sum {sum}");
    }

    let (hw, root) = (Hw, Hw.root());
    // SAFETY: the live root, and nothing changes tables meanwhile.
    assert_eq!(unsafe { kernel::writable_and_executable(&hw, root) }, None, "a frame that is writable and executable");
    let (mut low, mut ram) = (0usize, 0u64);
    // SAFETY: as above.
    unsafe {
        kernel::for_each_mapping(&hw, root, |virt, _, bytes, _, _| {
            low += usize::from(virt < 1 << 47);
            ram += if virt < DIRECT_MAP + (64 << 40) { bytes } else { 0 };
        });
    }
    assert_eq!(low, 0, "the boot tables' identity map is gone");
    board::say!("direct map: {} KiB", ram >> 10);

    let free = MM.free_page_count();
    assert_eq!(MM.vfree(area() as *const u8), Ok(()));
    MM.drain();
    assert_eq!(MM.free_page_count(), free);
    MM.check().expect("the manager is consistent");
    board::say!("{}\n{}", MM.meminfo(), MM.zoneinfo());
    assert_eq!(board::bugs(), 0, "{:?}", board::last_bug());

    for word in board::args().split_ascii_whitespace() {
        fault(word);
    }
}

/// An area that can be used.
fn area() -> usize {
    let area = MM.vmalloc(100_000).expect("there is memory");
    // SAFETY: the area has that many bytes.
    unsafe {
        area.write_bytes(0xa5, 100_000);
        assert_eq!(area.add(99_999).read(), 0xa5);
    }
    area.addr().get()
}

/// Raises the fault called `word`, if there is one.
fn fault(word: &str) {
    let text = main as *const () as usize;
    let (address, place) = match word {
        "null" => (8, "(read, not present) in the null page"),
        "text" => (text, "(write, present) in kernel text"),
        "alias" => (text - KERNEL_BASE + DIRECT_MAP, "(write, present) in the direct map of kernel text"),
        "rodata" => (board::NAME.as_ptr().addr(), "(write, present) in kernel rodata"),
        "data" => (INTERRUPTS.as_ptr().addr(), "(execute, present) in kernel data"),
        "device" => (DIRECT_MAP + board::mmio().0.0 as usize, "(write, not present) in the direct map"),
        "guard" => (area().wrapping_sub(1), "(write, not present) in guard before area"),
        "freed" => {
            let address = area();
            assert_eq!(MM.vfree(address as *const u8), Ok(()));
            (address, "(write, not present) in freed area")
        }
        "area" => (area(), "(execute, present) in area"),
        "stack" => (0, "(write, not present) in the guard page below the kernel stack"),
        "invalid" => (0, "Invalid Opcode"),
        "noncanonical" => (0x8000_0000_0000_0000, "General Protection"),
        "double" => (0x8000_0000_0000_0000, "Double Fault"),
        "panic" => panic!("as asked"),
        _ => return,
    };
    board::expect_fault(place);
    // SAFETY: nothing is touched: each of these faults before it does anything.
    unsafe {
        match word {
            "null" | "noncanonical" => {
                (address as *const u8).read_volatile();
            }
            "data" | "area" => core::mem::transmute::<usize, fn()>(address)(),
            "invalid" => core::arch::asm!("ud2"),
            // The stack fault finds no stack to be taken on.
            "double" => core::arch::asm!("mov rsp, {}", "push rax", in(reg) address, options(noreturn)),
            "stack" => {
                overflow(0);
            }
            _ => (address as *mut u8).write_volatile(0),
        }
    }
    panic!("no fault");
}
