//! Hands the linker the scripts a bare board needs; the host needs none.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    // cortex-m-rt brings link.x (which includes the board's memory.x); the other boards bring a whole script.
    let script = if has("BOARD_MPS2_AN385") { "link.x" } else { "board.x" };
    println!("cargo::rustc-link-arg-examples=-T{script}");
    if has("DEFMT") {
        println!("cargo::rustc-link-arg-examples=-Tdefmt.x");
    }
}

/// True when the package's feature of that name is on.
fn has(feature: &str) -> bool {
    env::var_os(format!("CARGO_FEATURE_{feature}")).is_some()
}
