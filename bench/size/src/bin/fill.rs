//! Fills the arena with objects of one size, allocator after allocator, and says how many fitted.
#![no_std]
#![no_main]

use rtmm_size::{
    ARENA, BuddySystem, EmbeddedLlff, EmbeddedTlsf, LinkedList, Rlsf, RtmmKmalloc, Subject, Talc, cortex_m_rt as _,
};

/// Sizes of objects, in bytes.
const SIZES: [usize; 3] = [24, 64, 200];

#[unsafe(export_name = "main")]
extern "C" fn main() -> ! {
    fill::<RtmmKmalloc>();
    semihosting::println!("FILL rtmm_page 4096 {} {}", RtmmKmalloc::kept() / 4096, ARENA.len());
    fill::<LinkedList>();
    fill::<Talc>();
    fill::<Rlsf>();
    fill::<BuddySystem>();
    fill::<EmbeddedTlsf>();
    fill::<EmbeddedLlff>();
    semihosting::process::exit(0)
}

/// Fills it with one size after another; all objects are freed in between, the first one last.
fn fill<S: Subject>() {
    // SAFETY: each allocator has the arena after the one before was done with it, and it is no part of the image.
    unsafe { S::setup(ARENA) };
    for size in SIZES {
        let mut last: *mut u8 = core::ptr::null_mut();
        let mut count = 0usize;
        loop {
            let object = S::allocate(size);
            if object.is_null() {
                break;
            }
            // A chain through the objects themselves: what they hold is the caller's.
            // SAFETY: ours, aligned to 8, and longer than a pointer.
            unsafe { object.cast::<*mut u8>().write(last) };
            last = object;
            count += 1;
        }
        semihosting::println!("FILL {} {} {} {}", S::NAME, size, count, ARENA.len() - S::kept());
        while !last.is_null() {
            // SAFETY: written above; each object is freed once.
            unsafe {
                let next = last.cast::<*mut u8>().read();
                S::free(last, size);
                last = next;
            }
        }
    }
}
