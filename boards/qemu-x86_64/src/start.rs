//! The first Rust code: reads what the loader left, sets up traps, and calls the program's `main`.

use crate::memory::LOADER;
use crate::traps;
use board_x86_qemu::{init_console, read_start_info};
use core::arch::global_asm;

/// Bytes of the kernel's stack, above its guard page. Formatting and full scans in debug builds are the deepest
/// users.
pub(crate) const STACK_SIZE: usize = 128 << 10;

global_asm!(
    include_str!("boot.s"),
    start = sym start,
    stack_size = const STACK_SIZE,
    options(att_syntax)
);

unsafe extern "C" {
    /// The program: `entry!` or the test harness defines it.
    safe fn main() -> !;
}

/// Called once by `boot.s`, on the boot tables and the kernel's stack, with interrupts off.
extern "C" fn start(start_info: usize) -> ! {
    init_console();
    // SAFETY: this is the one call, before anything else runs; traps come right after.
    unsafe {
        #[cfg(feature = "smp")]
        board_x86_qemu::cpus::be(0);
        traps::init(0);
    }
    // SAFETY: the boot tables map the first 4 GiB, where the loader put all it hands over, and this is the one call.
    unsafe { read_start_info(start_info, LOADER) };
    main()
}
