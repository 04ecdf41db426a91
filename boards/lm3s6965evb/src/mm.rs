//! The global manager.

use board_cortex_m::CortexM;
use board_semihosting::SingleCore;
use rtmm::backend::NoMmu;

/// A single core, whose critical section masks interrupts.
pub type BoardPlatform = SingleCore<CortexM>;

/// log2 of the page size. With pages of 512 bytes random objects fill 31 KB of 46 instead of 29, but the tables take
/// 512 bytes more, which is the difference between 3.0 KB and 3.5 KB for all that the manager keeps for itself.
const PAGE_SHIFT: u32 = 10;
/// Blocks of up to 16 KiB: no larger one fits beside the image, aligned to itself.
const MAX_ORDER: usize = 4;

/// Contiguous memory in small pages, with addresses that are physical ones.
pub type Backend = NoMmu<PAGE_SHIFT, MAX_ORDER>;

rtmm::global_mm! {
    /// The board's memory manager; [`init`](crate::init) brings it up.
    pub static MM: Mm<BoardPlatform, Backend> = rtmm::Mm::new(SingleCore::new(), NoMmu::new());
    #[global_allocator]
}
