//! Hands the linker what the chosen board's programs need.

include!("../boards/link.rs");

fn main() {
    link_args("examples", std::env::var_os("CARGO_FEATURE_DEFMT").is_some());
}
