//! Rust's allocator is the board's manager.
//!
//! The boards on Arm and RISC-V say so themselves, where they make the manager. Those on x86 leave it to the program.
//! In a process the standard library allocates before the manager is up, so there it is the allocator from [`begin`] to
//! [`end`], and a free goes to whom the address belongs.

#[cfg(any(feature = "board-qemu-x86_64", feature = "board-qemu-i586"))]
#[global_allocator]
static HEAP: crate::board::Kernel = crate::board::Kernel;

#[cfg(all(not(target_os = "none"), not(feature = "board-qemu-i586")))]
mod process {
    extern crate std;

    use crate::board::{Kernel, MM};
    use core::alloc::{GlobalAlloc, Layout};
    use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::alloc::System;

    /// The manager while a job runs, and the process's own allocator before and after.
    pub struct Heap {
        pub running: AtomicBool,
    }

    #[global_allocator]
    pub static HEAP: Heap = Heap { running: AtomicBool::new(false) };

    impl Heap {
        /// Whether an object is the manager's: it alone knows the size of what it gave.
        fn is_managed(object: *mut u8) -> bool {
            MM.ksize(object).is_ok()
        }
    }

    // SAFETY: both keep the contract, and an object goes back to the one that gave it.
    unsafe impl GlobalAlloc for Heap {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's contract is the same.
            unsafe { if self.running.load(Relaxed) { Kernel.alloc(layout) } else { System.alloc(layout) } }
        }

        unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
            // SAFETY: as above.
            unsafe {
                if Heap::is_managed(object) { Kernel.dealloc(object, layout) } else { System.dealloc(object, layout) }
            }
        }

        unsafe fn realloc(&self, object: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // SAFETY: as above.
            unsafe {
                if Heap::is_managed(object) {
                    Kernel.realloc(object, layout, size)
                } else {
                    System.realloc(object, layout, size)
                }
            }
        }
    }
}

/// From here on the manager serves Rust's allocations.
pub fn begin() {
    #[cfg(all(not(target_os = "none"), not(feature = "board-qemu-i586")))]
    process::HEAP.running.store(true, core::sync::atomic::Ordering::Relaxed);
}

/// The job is over: what comes now is the program's own.
pub fn end() {
    #[cfg(all(not(target_os = "none"), not(feature = "board-qemu-i586")))]
    process::HEAP.running.store(false, core::sync::atomic::Ordering::Relaxed);
}
