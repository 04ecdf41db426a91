//! A value that holds something back is not dropped on the floor.
#![deny(unused_must_use)]
use backend_mmu_x86::X86;
use mm_core::vmalloc::Unflushed;
use mm_core::{AreaOptions, Mm};
use rtmm_testkit::{SimMachine, TestPlatform};

fn unflushed<'a>(give: impl Fn() -> Unflushed<'a, TestPlatform, X86<SimMachine>>) {
    give();
}

fn batch(mm: &Mm<TestPlatform, X86<SimMachine>>) {
    mm.free_batch();
    AreaOptions::new();
}

fn main() {}
