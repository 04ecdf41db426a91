//! The host: the same manager in a process.
//!
//! The machine is made up: RAM and holes laid out like a small PC's, at a fixed address of the
//! process. Without feature `mmu` the manager runs on that memory as it is. With it, the manager keeps real x86 page
//! tables in that memory, and the process's own mappings play the TLB: a first touch of a vmalloc address is a page
//! fault of the process, the fault handler walks the tables as the processor would, and mirrors the entry it finds by
//! `mmap`. Until the manager flushes, the mirror stays: a forgotten flush is as visible as on a real machine.
//!
//! What is not like a machine: system calls see only mirrored pages (an address not touched yet gives `EFAULT`), and
//! [`instructions`] counts nothing.

#[cfg(not(all(unix, target_pointer_width = "64")))]
compile_error!("the host board needs a 64-bit Unix: it lays its RAM out by mmap at a fixed address");

#[cfg(all(feature = "mmu", not(all(target_os = "linux", target_arch = "x86_64"))))]
compile_error!(
    "feature `mmu` of the host board needs Linux on x86-64: it mirrors x86 page tables by memfd, mmap and the error \
     code of a page fault; build without `mmu` here"
);

mod bugs;
mod console;
mod fault;
mod file;
mod interrupt;
mod layout;
#[cfg(feature = "defmt")]
mod logger;
#[cfg(feature = "mmu")]
mod mirror;
#[cfg(feature = "mmu")]
mod mmu;
#[cfg(not(feature = "mmu"))]
mod nommu;
mod platform;
#[cfg(not(feature = "mmu"))]
mod regions;
mod task;

pub use bugs::{bugs, last_bug};
pub use console::{ExitCode, args, exit, expect_fault, write_line};
pub use file::{GuestFile, file};
pub use interrupt::in_interrupt;
pub use layout::{mmio, reserved};
#[cfg(feature = "mmu")]
use mmu::is_mapped;
#[cfg(feature = "mmu")]
pub use mmu::{Backend, IoMapping, KBox, KMap, Kernel, MM, Pages, VmArea, init};
#[cfg(not(feature = "mmu"))]
use nommu::is_mapped;
#[cfg(not(feature = "mmu"))]
pub use nommu::{Backend, IoMapping, KBox, KMap, Kernel, MM, Pages, VmArea, init};
pub use platform::BoardPlatform;

/// The board's name, as `xtask` and the features call it.
pub const NAME: &str = "host";

/// Always 0: a process has no counter that repeats. Callers that calibrate see that it stands still.
pub fn instructions() -> u64 {
    0
}

/// Defines the program's entry: brings the board up, runs `main: fn()`, and ends with a pass.
///
/// For programs that are `#![no_main]`, as they are on every board.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // What the C runtime calls.
        #[unsafe(export_name = "main")]
        extern "C" fn __board_entry(_: ::core::ffi::c_int, _: *const *const ::core::ffi::c_char) -> ::core::ffi::c_int {
            $crate::run($main)
        }
    };
}

/// What [`entry!`] does once the process runs.
#[doc(hidden)]
pub fn run(main: fn()) -> ! {
    file::default_to_executable();
    init();
    main();
    exit(ExitCode::Pass)
}
