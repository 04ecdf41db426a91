//! From riscv-rt's start code to the program's `main`.

use core::sync::atomic::{AtomicUsize, Ordering};

/// What the firmware left in a1: the device tree's address.
static DEVICE_TREE: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    // The test harness or `entry!` defines it; nothing about calling it once is unsafe.
    safe fn main() -> !;
}

/// What riscv-rt calls in the place of `main` when it exists, with memory initialised and the arguments of reset.
#[unsafe(no_mangle)]
extern "C" fn hal_main(_hart: usize, device_tree: usize) -> ! {
    DEVICE_TREE.store(device_tree, Ordering::Relaxed);
    main()
}

/// Where the device tree lies.
pub(crate) fn device_tree() -> usize {
    DEVICE_TREE.load(Ordering::Relaxed)
}
