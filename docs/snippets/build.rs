//! Takes the blocks of Rust out of each guide, one behind the other.

use std::path::Path;
use std::{env, fs};

/// The guides with Rust in them.
const GUIDES: [&str; 4] = ["features", "from-rtos", "from-rust", "porting"];

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for guide in GUIDES {
        let file = format!("../{guide}.md");
        println!("cargo::rerun-if-changed={file}");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let blocks = text.split("\n```rust\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
        let code: Vec<&str> = blocks.map(|(block, _)| block).collect();
        assert!(!code.is_empty(), "{file} holds no Rust");
        fs::write(Path::new(&out).join(format!("{guide}.rs")), code.join("\n\n") + "\n").expect("OUT_DIR is writable");
    }
}
