//! Compiles the drivers and the suites in C for the target, and hands on the linker arguments of programs.

include!("../../boards/link.rs");

use std::path::PathBuf;

/// The C files, as found from this folder.
const SOURCES: [&str; 8] = [
    "scull/device.c",
    "scull/memory.c",
    "support/printk.c",
    "../../capi/tests/calls.c",
    "../../capi/tests/areas.c",
    "../../capi/tests/caches.c",
    "../../capi/tests/short.c",
    "../../capi/tests/setup.c",
];
/// Folders of headers.
const INCLUDES: [&str; 3] = ["scull", "../../capi/include", "../../capi/tests"];

fn main() {
    // The framework's macros ask for it.
    println!("cargo::rustc-check-cfg=cfg(rust_analyzer)");
    println!("cargo::rerun-if-changed=../../boards/link.rs");
    let defmt = std::env::var_os("CARGO_FEATURE_DEFMT").is_some();
    link_args("tests", defmt);
    link_args("examples", defmt);

    let mut build = cc::Build::new();
    choose(&mut build);
    // The drivers have the board's page size as a constant; programs compare it with the manager's.
    if std::env::var_os("CARGO_FEATURE_BOARD_LM3S6965EVB").is_some() {
        build.define("RTMM_PAGE_SHIFT", "9");
    }
    build.std("c99").warnings(true).extra_warnings(true).warnings_into_errors(true).flag("-Wpedantic");
    build.opt_level(2).includes(INCLUDES).files(SOURCES).compile("rtmm_examples_c");
    for folder in INCLUDES.iter().chain(&["support"]) {
        println!("cargo::rerun-if-changed={folder}");
    }
    for list in ["calls", "setup"] {
        suite(list);
    }
}

/// The compiler and the flags that go with how Rust's code for the target is made. `CC_<target>` says otherwise.
fn choose(build: &mut cc::Build) {
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let (target, arch) = (env("TARGET"), env("CARGO_CFG_TARGET_ARCH"));
    let (compiler, flags): (&str, &[&str]) = match arch.as_str() {
        _ if target == env("HOST") => return,
        "x86_64" => ("gcc", &["-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only", "-fno-stack-protector"]),
        "x86" => ("gcc", &["-m32", "-march=i586", "-mgeneral-regs-only", "-fno-stack-protector"]),
        "arm" => ("arm-none-eabi-gcc", &[]),
        "aarch64" => ("aarch64-linux-gnu-gcc", &["-mstrict-align", "-mgeneral-regs-only", "-fno-stack-protector"]),
        "riscv32" => ("riscv64-unknown-elf-gcc", &["-march=rv32imac", "-mabi=ilp32"]),
        _ => return,
    };
    let underscored = target.replace('-', "_");
    if ["CC", &format!("CC_{target}"), &format!("CC_{underscored}")].iter().all(|name| env(name).is_empty()) {
        build.compiler(compiler);
    }
    build.pic(false).flag("-fno-pic").flag("-ffreestanding").flag("-fno-asynchronous-unwind-tables");
    for flag in flags {
        build.flag(flag);
    }
}

/// Writes the suite that runs each test of a list of `TEST(name)` by itself.
fn suite(list: &str) {
    let text = std::fs::read_to_string(format!("../../capi/tests/{list}.inc")).expect("the list of tests is there");
    let names = || text.lines().filter_map(|line| line.strip_prefix("TEST(")?.strip_suffix(')'));
    let mut suite = String::from("unsafe extern \"C\" {\n");
    for name in names() {
        suite += &format!("    fn {name}();\n");
    }
    suite += "}\n\n#[embedded_test::tests(default_timeout = 60)]\nmod tests {\n";
    for name in names() {
        suite += &format!(
            "    #[test]\n    fn {name}() {{\n        // SAFETY: a test takes nothing and gives nothing.\n        \
             unsafe {{ super::{name}() }}\n    }}\n"
        );
    }
    suite += "}\n";
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join(format!("{list}.rs")), suite).expect("OUT_DIR is writable");
}
