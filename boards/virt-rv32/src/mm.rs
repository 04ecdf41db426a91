//! The global manager.

use crate::processor::Hart;
use crate::protection::GUARD_ENTRIES;
use board_semihosting::SingleCore;
use rtmm::backend::{NoMmu, Pmp};

/// A single core, whose critical section masks interrupts.
pub type BoardPlatform = SingleCore<Hart>;

/// Contiguous memory, with addresses that are physical ones; areas that ask for guards get entries of the PMP.
pub type Backend = NoMmu<12, 10, Pmp>;

rtmm::global_mm! {
    /// The board's memory manager; [`init`](crate::init) brings it up.
    pub static MM: Mm<BoardPlatform, Backend> =
        rtmm::Mm::new(SingleCore::new(), NoMmu::guarded_by(Pmp::of_entries(GUARD_ENTRIES)));
    #[global_allocator]
}
