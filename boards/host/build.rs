//! Puts the linker script of defmt's messages where the linker of every package above this one finds it.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=defmt-host.x");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::copy("defmt-host.x", out.join("defmt-host.x")).expect("the linker script can be copied");
    println!("cargo::rustc-link-search={}", out.display());
}
