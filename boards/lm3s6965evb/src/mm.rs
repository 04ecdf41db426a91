//! The global manager.

use board_cortex_m::CortexM;
use board_semihosting::SingleCore;
use rtmm::backend::NoMmu;

/// A single core, whose critical section masks interrupts.
pub type BoardPlatform = SingleCore<CortexM>;

/// log2 of the page size. Objects of random sizes up to 256 bytes fill 31 KB of 46 in pages of 512 bytes, 29 KB in
/// pages of 1 KiB, and 30 KB in pages of 256, whose tables take 768 bytes more.
const PAGE_SHIFT: u32 = 9;
/// Blocks of up to 16 KiB: no larger one fits beside the image, aligned to itself.
const MAX_ORDER: usize = 5;

/// Contiguous memory in small pages, with addresses that are physical ones.
pub type Backend = NoMmu<PAGE_SHIFT, MAX_ORDER>;

rtmm::global_mm! {
    /// The board's memory manager; [`init`](crate::init) brings it up.
    pub static MM: Mm<BoardPlatform, Backend> = rtmm::Mm::new(SingleCore::new(), NoMmu::new());
    #[global_allocator]
}
