//! Puts the linker script where the linker finds it.

use std::path::PathBuf;
use std::{env, fs};

const SCRIPT: &str = "board.x";

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join(SCRIPT), include_bytes!("board.x")).expect("OUT_DIR is writable");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rerun-if-changed={SCRIPT}");
    println!("cargo::rerun-if-changed=build.rs");
}
