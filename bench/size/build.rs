//! The linker scripts of cortex-m-rt, with the memory of the board the programs run on.

use std::path::PathBuf;
use std::{env, fs};

const MEMORY: &str = "../../boards/mps2-an385/memory.x";

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::copy(MEMORY, out.join("memory.x")).expect("the board's memory.x is there");
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rerun-if-changed={MEMORY}");
    println!("cargo::rerun-if-changed=build.rs");
}
