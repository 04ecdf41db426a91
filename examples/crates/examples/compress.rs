//! `miniz_oxide` compresses a file and expands it again, in memory of the manager.
//!
//! The runner compresses the same file and compares lengths and CRC-32.
#![no_std]
#![no_main]

extern crate alloc;

use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use rtmm_examples_crates::board::{self, say};
use rtmm_examples_crates::{input, job};

/// As much of a file as is compressed.
const MOST: usize = 256 << 10;
/// zlib's usual level.
const LEVEL: u8 = 6;

board::entry!(main);

fn main() {
    job::run("compress", work);
}

fn work() -> Result<(), &'static str> {
    let plain = input::read(MOST)?;
    let packed = compress_to_vec_zlib(&plain, LEVEL);
    say!("LENGTH packed {}", packed.len());
    say!("CRC32 packed {:08x}", crc32fast::hash(&packed));
    job::tell("with both in memory");
    let unpacked = decompress_to_vec_zlib_with_limit(&packed, plain.len()).map_err(|_| "it could not be expanded")?;
    say!("LENGTH unpacked {}", unpacked.len());
    say!("CRC32 unpacked {:08x}", crc32fast::hash(&unpacked));
    if unpacked == plain { Ok(()) } else { Err("what was expanded is not what was compressed") }
}
