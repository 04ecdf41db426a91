//! `librtmm.a`: the manager of a kernel in C, over the callbacks that kernel brings.
#![no_std]

use rtmm::Mm;
use rtmm_capi::platform::CallbackPlatform;

#[cfg(not(feature = "mmu"))]
type Backend = rtmm::backend::NoMmu;
#[cfg(not(feature = "mmu"))]
static MM: Mm<CallbackPlatform, Backend> = Mm::new(CallbackPlatform, Backend::new());

#[cfg(feature = "mmu")]
type Backend = rtmm::backend::X86<rtmm::backend::Hw>;
#[cfg(feature = "mmu")]
static MM: Mm<CallbackPlatform, Backend> = Mm::new(CallbackPlatform, Backend::new(rtmm::backend::Hw));

rtmm_capi::export_c!(&MM);
rtmm_capi::export_setup!(&MM);

/// No input leads here; if something does, the kernel is told, and this context goes no further.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    rtmm_capi::platform::tell_of_panic();
    loop {
        core::hint::spin_loop();
    }
}
