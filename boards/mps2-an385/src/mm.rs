//! The global manager.

use crate::platform::BoardPlatform;
use rtmm::backend::NoMmu;

/// Contiguous memory, with addresses that are physical ones.
pub type Backend = NoMmu;

rtmm::global_mm! {
    /// The board's memory manager; [`init`](crate::init) brings it up.
    pub static MM: Mm<BoardPlatform, Backend> = rtmm::Mm::new(BoardPlatform, NoMmu::new());
    #[global_allocator]
}
