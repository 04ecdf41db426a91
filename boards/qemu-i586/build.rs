//! Puts the linker script `board.x` where the linker of every package above this one finds it.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=board.x");
    println!("cargo::rerun-if-changed=src/boot.s");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::copy("board.x", out.join("board.x")).expect("the linker script can be copied");
    println!("cargo::rustc-link-search={}", out.display());
}
