//! Shows that the board comes up: what the firmware said, the contexts, the file. Arguments name faults to raise.
#![no_std]
#![no_main]

use board_qemu_x86_64 as board;
use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use rtmm::{Context, Platform};

board::entry!(main);

static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);

fn handler() {
    assert_eq!(board::BoardPlatform.context(), Context::Atomic);
    INTERRUPTS.fetch_add(1, Relaxed);
    if INTERRUPTS.load(Relaxed) == 1 {
        board::in_interrupt(handler);
        assert_eq!(board::BoardPlatform.context(), Context::Atomic, "back in the outer handler");
    }
}

#[inline(never)]
fn overflow(depth: usize) -> usize {
    let frame = black_box([depth; 64]);
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

    for word in board::args().split_ascii_whitespace() {
        match word {
            "null" => {
                board::expect_fault("the null page");
                // SAFETY: not safe at all: it faults, as the line above announces.
                unsafe { (black_box(8) as *const u8).read_volatile() };
            }
            "text" => {
                board::expect_fault("kernel text");
                // SAFETY: not safe at all: it faults, as the line above announces.
                unsafe { (main as *const () as *mut u8).write_volatile(0) };
            }
            "rodata" => {
                board::expect_fault("kernel rodata");
                // SAFETY: not safe at all: it faults, as the line above announces.
                unsafe { board::NAME.as_ptr().cast_mut().write_volatile(0) };
            }
            "stack" => {
                board::expect_fault("the guard page below the kernel stack");
                overflow(0);
            }
            "invalid" => {
                board::expect_fault("Invalid Opcode");
                // SAFETY: not safe at all: it faults, as the line above announces.
                unsafe { core::arch::asm!("ud2") };
            }
            "panic" => panic!("as asked"),
            _ => {}
        }
    }
}
