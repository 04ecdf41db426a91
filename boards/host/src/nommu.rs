//! The manager without an MMU: addresses are where the memory is.

use crate::fault;
use crate::layout::{self, Memory};
use crate::platform::BoardPlatform;
use crate::regions::Regions;
use rtmm::backend::Arena;
use rtmm::{Backend as _, Config, Mm, VirtRange};
use std::ptr;

/// The machine's side of the manager: memory of this process, at physical addresses that are its own, with regions that
/// guard areas.
pub type Backend = Arena<10, Regions>;

rtmm::global_mm! {
    /// The board's manager.
    pub static MM: Mm<BoardPlatform, Backend> = Mm::new(BoardPlatform, Arena::guarded_by(Regions::new()));
}

/// Brings the machine and the manager up. Called once, by the suite's setup or by `entry!`.
///
/// # Panics
/// When the process cannot be such a machine, or was one already.
pub fn init() {
    layout::power_on(Memory::Private);
    // SAFETY: RAM was mapped there just now, is never unmapped, and is told of in the boot map only.
    unsafe { MM.backend().place(ptr::with_exposed_provenance_mut(layout::BASE), layout::BASE) };
    let mut ram = layout::boot_map(Backend::PAGE_SHIFT, Backend::PHYS_BITS).expect("the boot map is sound");
    fault::install();
    let vmalloc = VirtRange { start: 0, end: 0 };
    let config = Config { zones: layout::ZONES, vmalloc, tuning: layout::TUNING };
    // SAFETY: the map leaves out what the image, the firmware and the early tables use.
    unsafe { MM.init(&mut ram, &config) }.expect("the manager comes up");
    BoardPlatform.boot_is_over();
}

/// Without translation there is nothing an address could be mapped to; what is not memory is not present.
pub(crate) fn is_mapped(_addr: usize) -> bool {
    false
}
