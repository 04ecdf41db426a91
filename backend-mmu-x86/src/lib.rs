//! x86 page tables for rtmm: what an entry looks like, how tables are walked and changed, and the registers.
//!
//! No policy lives here: which address, which frames, which lock and when to flush is decided by `mm-core`.
#![no_std]

#[cfg(test)]
extern crate std;

mod backend;
mod change;
mod direct;
mod entry;
#[cfg(any(all(target_os = "none", target_arch = "x86_64"), target_arch = "x86"))]
mod hw;
pub mod kernel;
mod leaf;
mod machine;
mod table;
mod walker;
mod window;

pub use backend::X86;
#[cfg(any(all(target_os = "none", target_arch = "x86_64"), target_arch = "x86"))]
pub use hw::Hw;
pub use machine::{Levels, Machine};
