//! What the programs with registry crates share: Rust's allocator, the account of memory, the file.
#![no_std]

extern crate alloc;

pub mod heap;
pub mod input;
pub mod job;
pub mod named;

pub use rtmm_examples::board;
