//! The fixed workloads, version 1: the same seeded calls for every allocator and on every machine.
//!
//! A workload draws its requests from a seeded generator and makes its calls through [`Calls`]; what a call does
//! beside allocating (count instructions, read a clock, look for overlap) is the caller's. A change of what is called
//! is a new [`VERSION`], and older figures do not compare with it.
//!
//! | workload | set-up, not counted | counted |
//! |---|---|---|
//! | W1, P1 | 16 pairs | pairs of one request |
//! | W1w | W3's set-up | pairs of 64 bytes |
//! | W2l, W2f, W2r, P2 | none | batches of one request, freed last first, first first, shuffled |
//! | W3, W4, W4p, P3 | live objects, then warm replaces | replaces: a random object is freed, another allocated |
//! | WC | none | everything allocated, everything freed shuffled |
//! | W5 | | memory filled with holes in it, then churned: how much of it is in use |
//! | P5 | | single pages churned: how many large blocks are left |
//! | W6 | | large areas that stay, small objects that come and go: how much of memory is in use |
//! | kernel mixed | live objects | replaces of small objects, as on a kernel |
#![no_std]

#[cfg(test)]
extern crate std;

mod areas;
mod calls;
mod draw;
mod frag;
mod hunt;
mod pfrag;
mod rng;
mod run;
mod vmalloc;

pub use areas::{AreaFrag, Mixed, areas};
pub use calls::{Bytes, Calls, Order, Phase};
pub use draw::{KERNEL_LIVE, KernelMix, order, size_large, size_small};
pub use frag::{Frag, FragUse, frag};
pub use hunt::{Hunted, hunt_bytes, hunt_exact, hunt_pages};
pub use pfrag::{PageFrag, page_frag};
pub use rng::{SplitMix64, XorShift32};
pub use run::{FreeOrder, batches, cold, kernel_mixed, pairs, replaces, replaces_then_pairs};
pub use vmalloc::{VMALLOC_ROWS, VmallocRow, vmalloc_churn};

/// Which set of workloads this is.
pub const VERSION: u32 = 1;
/// The seed of every workload that does not name another.
pub const SEED: u64 = 0x5EED_0001;
/// Pairs that go before W1 and P1.
pub const PAIRS_BEFORE: usize = 16;
/// Pairs or replaces counted in W1, W1w, W3 and P1.
pub const MANY: usize = 1_000_000;
/// Objects of a batch of W2 and of P2.
pub const BATCH: (usize, usize) = (1000, 1024);
/// Batches counted in W2 and P2.
pub const BATCHES: usize = 300;
/// Live objects of W3, W1w and WC.
pub const SMALL_LIVE: usize = 10_000;
/// Warm replaces of W3 and W1w.
pub const SMALL_WARM: usize = 50_000;
/// Live objects of W4 and W4p.
pub const LARGE_LIVE: usize = 256;
/// Replaces of W4 and W4p, warm and counted.
pub const LARGE: (usize, usize) = (5_000, 50_000);
/// Live blocks of P3.
pub const BLOCKS_LIVE: usize = 1024;
/// Replaces of P3, warm and counted.
pub const BLOCKS: (usize, usize) = (10_000, 100_000);
/// Frames of the page workloads: 1 GiB of 4 KiB.
pub const FRAMES: usize = 262_144;
