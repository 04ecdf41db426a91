//! When a Cortex-M cannot wait.

use board_semihosting::Processor;
use cortex_m::peripheral::SCB;
use cortex_m::peripheral::scb::VectActive;
use cortex_m::register::primask;

/// A Cortex-M without a second core.
#[derive(Debug)]
pub struct CortexM;

impl Processor for CortexM {
    #[inline]
    fn is_atomic() -> bool {
        // The `cortex-m` crate calls exceptions inactive when PRIMASK masks them.
        SCB::vect_active() != VectActive::ThreadMode || primask::read().is_inactive()
    }
}
