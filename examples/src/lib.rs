//! What the example programs share: the board they are built for, the drivers, the tables, the measuring.
//!
//! A board is chosen by one feature per call of cargo, and is reached as [`board`] whatever its name.
#![no_std]

#[cfg(test)]
extern crate std;

#[cfg(any(feature = "board-qemu-x86_64", feature = "board-qemu-i586", feature = "board-virt-aarch64"))]
pub mod framebuffer;
pub mod highmem;
pub mod measure;
pub mod scull;
pub mod tables;
pub mod vmalloc_rows;

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

// The default, where no real board is chosen.
#[cfg(all(feature = "board-host", not(target_os = "none"), not(feature = "board-qemu-i586")))]
pub use board_host as board;
