//! Frames, tables and addresses cannot be taken out of what was not flushed.
use backend_mmu_x86::X86;
use mm_core::vmalloc::Unflushed;
use rtmm_testkit::{SimMachine, TestPlatform};

type Held<'a> = Unflushed<'a, TestPlatform, X86<SimMachine>>;

fn frames(held: Held<'_>) {
    let _ = held.blocks;
}

fn tables(held: Held<'_>) {
    let Unflushed { tables, .. } = held;
}

fn addresses(held: &mut Held<'_>) {
    held.range.start = 0;
}

fn twice(held: &Held<'_>) -> Held<'static> {
    held.clone()
}

fn main() {}
