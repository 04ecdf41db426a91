//! The linker arguments of the suites.

include!("../boards/link.rs");

fn main() {
    // The framework's macros ask for it.
    println!("cargo::rustc-check-cfg=cfg(rust_analyzer)");
    println!("cargo::rerun-if-changed=../boards/link.rs");
    link_args("tests", std::env::var_os("CARGO_FEATURE_DEFMT").is_some());
}
