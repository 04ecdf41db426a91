//! On-target suites: one source for every board, and what they share.
//!
//! Each file in `tests/` is a suite, each function of it a promise, run in a boot (on the host: a process) of its own
//! by `cargo xtask test`. The feature `board-...` chooses the board.
#![no_std]

#[cfg(feature = "board-host")]
pub use board_host as board;
#[cfg(feature = "board-lm3s6965evb")]
pub use board_lm3s6965evb as board;
#[cfg(feature = "board-mps2-an385")]
pub use board_mps2_an385 as board;
#[cfg(feature = "board-qemu-i586")]
pub use board_qemu_i586 as board;
#[cfg(feature = "board-qemu-x86_64")]
pub use board_qemu_x86_64 as board;
#[cfg(feature = "board-virt-aarch64")]
pub use board_virt_aarch64 as board;
#[cfg(feature = "board-virt-rv32")]
pub use board_virt_rv32 as board;

mod bytes;
mod hoard;
mod lost;
#[cfg(feature = "timer")]
pub mod sweep;
#[cfg(feature = "mmu")]
mod tables;

pub use bytes::Bytes;
pub use hoard::{Hoard, fragment};
pub use lost::{Counts, NothingLost};

/// Panics when slots of the register of memory types mean something else than the page tables do by them.
///
/// # Panics
/// See above.
pub fn check_pat(pat: u64) {
    // By slot: write-back, write-through, (not used), uncached, and write-combining (Intel SDM vol. 3, table 12-10).
    for (slot, kind) in [(0, 6), (1, 4), (3, 0), (6, 1)] {
        assert_eq!(pat >> (8 * slot) & 0xff, kind, "slot {slot} of {pat:#x}");
    }
}

/// The page size of the board.
pub const PAGE: usize = <board::Backend as rtmm::Backend>::PAGE_SIZE;
/// True when the board has page tables.
pub const HAS_MMU: bool = <board::Backend as rtmm::Backend>::HAS_MMU;
/// The largest order of the buddy.
pub const MAX_ORDER: usize = <board::Backend as rtmm::Backend>::MAX_ORDER;
/// Bytes of the largest block.
pub const LARGEST: usize = PAGE << MAX_ORDER;

/// Bytes of a large area or block: 1 MiB where there is room for it, and what a small board has instead.
pub const BIG: usize = if LARGEST / 2 < 1 << 20 { LARGEST / 2 } else { 1 << 20 };
/// How many blocks of some pages can be live at the same time: 64, or what a small board has room for.
pub const MANY: usize = if LARGEST / PAGE / 2 < 64 { LARGEST / PAGE / 2 } else { 64 };

/// Defines the setup function of a suite: it brings the board and the manager up.
#[macro_export]
macro_rules! setup {
    () => {
        #[embedded_test::setup]
        fn setup() {
            #[cfg(feature = "debug")]
            assert_eq!($crate::board::MM.page_poisoning_enable(), Ok(()));
            $crate::board::init();
        }
    };
}
