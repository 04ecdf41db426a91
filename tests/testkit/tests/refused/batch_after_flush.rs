//! A batch that was flushed is gone, and one cannot outlive its manager.
use backend_mmu_x86::X86;
use mm_core::{FreeBatch, Mm};
use rtmm_testkit::{SimMachine, TestPlatform};

fn after(mm: &Mm<TestPlatform, X86<SimMachine>>, area: *const u8) {
    let mut batch = mm.free_batch();
    batch.flush();
    let _ = batch.vfree(area);
}

fn areas(batch: FreeBatch<'_, TestPlatform, X86<SimMachine>>) {
    let _ = batch.list;
}

fn main() {}
