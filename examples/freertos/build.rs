//! Compiles FreeRTOS and the application in C for the board that runs them, and hands on the linker arguments.

include!("../../boards/link.rs");

use std::path::PathBuf;

/// The application, and what stands between FreeRTOS and the manager.
const OURS: [&str; 3] = ["app/demo.c", "app/heap.c", "app/rtmm_port.c"];
/// FreeRTOS, without any of its heaps.
const KERNEL: [&str; 5] = ["list.c", "queue.c", "tasks.c", "timers.c", "portable/GCC/ARM_CM3/port.c"];
/// Where FreeRTOS has headers.
const KERNEL_INCLUDES: [&str; 2] = ["include", "portable/GCC/ARM_CM3"];

fn main() {
    println!("cargo::rerun-if-changed=../../boards/link.rs");
    link_args("examples", std::env::var_os("CARGO_FEATURE_DEFMT").is_some());
    if std::env::var_os("CARGO_FEATURE_BOARD_MPS2_AN385").is_none() {
        return;
    }
    // Told by the build script of the crate `freertos-next`, which ships the source.
    let kernel = PathBuf::from(std::env::var_os("DEP_FREERTOS_KERNEL").expect("freertos-next says where FreeRTOS is"));
    let mut build = compiler();
    build.includes(KERNEL_INCLUDES.map(|folder| kernel.join(folder))).includes(["app", "libc"]);
    build.warnings(false).files(KERNEL.map(|file| kernel.join(file))).compile("freertos_kernel");

    let mut build = compiler();
    build.std("c99").warnings(true).extra_warnings(true).warnings_into_errors(true).flag("-Wpedantic");
    for folder in KERNEL_INCLUDES {
        // Of the kernel's headers no warnings are wanted.
        build.flag("-isystem").flag(kernel.join(folder));
    }
    build.includes(["app", "libc", "../../capi/include"]).files(OURS).compile("rtmm_examples_rtos");
    for folder in ["app", "libc", "../../capi/include"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}

/// The compiler of the board's target; `CC_<target>` says otherwise.
fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    let is_chosen = |name: &str| std::env::var_os(name).is_some();
    if !is_chosen("CC_thumbv7m_none_eabi") && !is_chosen("CC_thumbv7m-none-eabi") && !is_chosen("CC") {
        build.compiler("arm-none-eabi-gcc");
    }
    build.pic(false).flag("-fno-pic").flag("-ffreestanding").flag("-fno-asynchronous-unwind-tables").opt_level(2);
    build
}
