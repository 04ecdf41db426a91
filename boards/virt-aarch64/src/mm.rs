//! The global manager.

use crate::processor::Core;
use board_semihosting::SingleCore;
use rtmm::backend::NoMmu;

/// A single core, whose critical section masks interrupts.
pub type BoardPlatform = SingleCore<Core>;

/// Contiguous memory, with addresses that are physical ones.
#[cfg(not(feature = "max-order-13"))]
pub type Backend = NoMmu;
/// Contiguous memory, with addresses that are physical ones, in blocks of up to 32 MiB.
#[cfg(feature = "max-order-13")]
pub type Backend = NoMmu<12, 13>;

rtmm::global_mm! {
    /// The board's memory manager; [`init`](crate::init) brings it up.
    pub static MM: Mm<BoardPlatform, Backend> = rtmm::Mm::new(SingleCore::new(), NoMmu::new());
    #[global_allocator]
}
