//! Hands the linker what the chosen board's programs need.

include!("../../boards/link.rs");

fn main() {
    link_args("bins", false);
}
