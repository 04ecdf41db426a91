//! A manager set up from C by `rtmm_init`, on memory the board's manager gives.
//!
//! Each test of `capi/tests/setup.c` has a boot of its own.
#![no_std]
#![no_main]

use rtmm::Mm;
use rtmm_capi::platform::CallbackPlatform;
use rtmm_examples_c::{board, check};

/// As in `librtmm.a`: this processor's page tables, or contiguous memory at its physical address; on the host the same
/// over a part of the process's memory.
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
type Backend = board::Backend;
/// The regions that a board may have are those of the board's own manager.
#[cfg(all(target_os = "none", not(target_arch = "x86_64")))]
type Backend = rtmm::backend::NoMmu<
    { <board::Backend as rtmm::Backend>::PAGE_SHIFT },
    { <board::Backend as rtmm::Backend>::MAX_ORDER },
>;
#[cfg(not(target_os = "none"))]
type Backend = backend_nommu::Arena;

#[cfg(not(all(target_os = "none", target_arch = "x86_64")))]
static MM: Mm<CallbackPlatform, Backend> = Mm::new(CallbackPlatform, Backend::new());
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
static MM: Mm<CallbackPlatform, Backend> = Mm::new(CallbackPlatform, Backend::new(rtmm::backend::Hw));

rtmm_capi::export_c!(&MM);
rtmm_capi::export_setup!(&MM);

#[embedded_test::setup]
fn setup() {
    board::init();
    let (_at, _phys) = check::lend_memory();
    // SAFETY: both are multiples of the block's size; the memory is this manager's alone and is never given back.
    #[cfg(not(target_os = "none"))]
    unsafe {
        MM.backend().place(_at, _phys as usize)
    };
}

include!(concat!(env!("OUT_DIR"), "/setup.rs"));
