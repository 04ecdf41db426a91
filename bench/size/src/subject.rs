//! What every allocator is asked for, and the program around it.

use core::ops::Range;

/// The RAM they serve: the board's PSRAM (AN385, memory map), as far as the smallest program wants it.
pub const ARENA: Range<usize> = 0x2100_0000..0x2110_0000;

/// One allocator, in a static of its own.
pub trait Subject {
    /// Its name in the table.
    const NAME: &'static str;

    /// Hands it the arena.
    ///
    /// # Safety
    /// Called once, before the others; nothing else uses the arena.
    unsafe fn setup(arena: Range<usize>);

    /// Allocates `size` bytes aligned to 8; null when there are none.
    fn allocate(size: usize) -> *mut u8;

    /// Frees what `allocate` gave.
    ///
    /// # Safety
    /// `ptr` came from `allocate(size)` and was not freed since.
    unsafe fn free(ptr: *mut u8, size: usize);

    /// What a larger interface offers beyond the two; `size` is not known when it is compiled.
    fn rest(size: usize) {
        let _ = size;
    }

    /// Bytes of the arena it still has but keeps for others than the caller.
    fn kept() -> usize {
        0
    }
}

/// No allocator: the program that the others are compared with.
#[derive(Debug)]
pub struct Nothing;

impl Subject for Nothing {
    const NAME: &'static str = "baseline";

    unsafe fn setup(_: Range<usize>) {}

    #[inline(always)]
    fn allocate(_: usize) -> *mut u8 {
        core::ptr::null_mut()
    }

    #[inline(always)]
    unsafe fn free(_: *mut u8, _: usize) {}
}

/// Defines the program of one [`Subject`].
#[macro_export]
macro_rules! program {
    ($subject:ty) => {
        static SIZE: ::core::sync::atomic::AtomicUsize = ::core::sync::atomic::AtomicUsize::new(64);

        #[unsafe(export_name = "main")]
        extern "C" fn main() -> ! {
            use $crate::Subject;
            // SAFETY: the only call, and the arena is no part of the image.
            #[cfg(feature = "setup")]
            unsafe {
                <$subject>::setup($crate::ARENA)
            };
            loop {
                // The cell's address is shown to the optimiser's blind spot: its value can be anything.
                let size = ::core::hint::black_box(&SIZE).load(::core::sync::atomic::Ordering::Relaxed);
                let object = ::core::hint::black_box(<$subject>::allocate(size));
                // SAFETY: just allocated.
                unsafe { <$subject>::free(object, size) };
                <$subject>::rest(size);
            }
        }

        use $crate::cortex_m_rt as _;
    };
}
