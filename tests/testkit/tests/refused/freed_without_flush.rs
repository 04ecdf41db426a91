//! There is no way to free it but the flush, which takes it.
use backend_mmu_x86::X86;
use mm_core::vmalloc::Unflushed;
use rtmm_testkit::{SimMachine, TestPlatform};

type Held<'a> = Unflushed<'a, TestPlatform, X86<SimMachine>>;

fn released(mut held: Held<'_>) {
    held.release();
}

fn made_up() -> Held<'static> {
    Unflushed::new()
}

fn flushed_twice(held: Held<'_>) {
    held.flush();
    held.flush();
}

fn main() {}
