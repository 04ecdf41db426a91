//! The global manager.

use board_x86_qemu::BoardPlatform;
use rtmm::backend::{Hw, X86};

/// Page tables of this CPU.
pub type Backend = X86<Hw>;

rtmm::global_mm! {
    /// The machine's memory manager; [`init`](crate::init) brings it up.
    pub static MM: Mm<BoardPlatform, Backend> = rtmm::Mm::new(BoardPlatform, X86::new(Hw));
}
