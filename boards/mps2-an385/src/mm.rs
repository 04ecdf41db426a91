//! The global manager.

use board_cortex_m::CortexM;
use board_semihosting::SingleCore;
use rtmm::backend::{NoMmu, Pmsav7};

/// A single core, whose critical section masks interrupts.
pub type BoardPlatform = SingleCore<CortexM>;

/// Contiguous memory, with addresses that are physical ones; areas that ask for guards get regions of the MPU, all
/// eight of which are the manager's.
pub type Backend = NoMmu<12, 10, Pmsav7>;

rtmm::global_mm! {
    /// The board's memory manager; [`init`](crate::init) brings it up.
    pub static MM: Mm<BoardPlatform, Backend> =
        rtmm::Mm::new(SingleCore::new(), NoMmu::guarded_by(Pmsav7::from_region(0)));
    #[global_allocator]
}
