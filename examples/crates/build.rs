//! Hands the linker what the chosen board's programs need.

include!("../../boards/link.rs");

fn main() {
    println!("cargo::rerun-if-changed=../../boards/link.rs");
    link_args("examples", std::env::var_os("CARGO_FEATURE_DEFMT").is_some());
}
