//! The smallest programs that allocate and free, one per allocator, for a Cortex-M3 (`mps2-an385`).
//!
//! Each program does the same: it sets the allocator up (feature `setup`), then allocates and frees what it reads from
//! a cell the compiler cannot see through. What a program is larger than [`baseline`](program!), which does neither,
//! is what the allocator takes. Every allocator is behind the same lock: a critical section.
#![no_std]

mod ours;
mod peers;
mod subject;

pub use ours::{RtmmKmalloc, RtmmNommu};
pub use peers::{BuddySystem, EmbeddedLlff, EmbeddedTlsf, LinkedList, Rlsf, Talc};
pub use subject::{ARENA, Nothing, Subject};

#[doc(hidden)]
pub use cortex_m_rt;

/// What a panic takes is the same everywhere: nothing.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        cortex_m::asm::bkpt();
    }
}

/// A peer links `alloc` without using it; Rust's allocator it wants for that is never called, and not linked either.
struct Never;

// SAFETY: null is always a right answer.
unsafe impl core::alloc::GlobalAlloc for Never {
    unsafe fn alloc(&self, _: core::alloc::Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: core::alloc::Layout) {}
}

#[global_allocator]
static NEVER: Never = Never;
