//! From the reset vector to the program's `main`.

use core::sync::atomic::{AtomicUsize, Ordering};

core::arch::global_asm!(include_str!("start.s"));

/// What QEMU left in x0: the device tree's address, or 0 for an ELF image.
static DEVICE_TREE: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    // The test harness or `entry!` defines it; nothing about calling it once is unsafe.
    safe fn main() -> !;
}

/// Called by the assembly with a stack, zeroed `.bss` and vectors in place.
#[unsafe(no_mangle)]
extern "C" fn board_start(device_tree: usize) -> ! {
    DEVICE_TREE.store(device_tree, Ordering::Relaxed);
    main()
}

/// What QEMU left in x0.
pub(crate) fn device_tree_hint() -> usize {
    DEVICE_TREE.load(Ordering::Relaxed)
}
