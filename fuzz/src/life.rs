//! Whole managers against a model of what is live: any calls in any order, wrong frees and failing steps among them.

// The model that the tests of whole managers use, and the machines it runs on.
#[path = "../../tests/testkit/tests/common/mod.rs"]
#[allow(unexpected_cfgs, missing_docs, reason = "the features are those of the tests' package")]
mod common;

use crate::number::Size;
use arbitrary::{Arbitrary, Unstructured};
use common::world::{CACHES, Reach, Step, World};
use mm_core::*;
use rtmm_testkit::rig::Rig;

/// Steps of a life at most; more make each slower than they make it richer.
const MOST: usize = 96;
/// The full scan comes after so many steps, and at the end.
const EACH: usize = 8;

#[derive(Debug, Arbitrary)]
enum Op {
    Kmalloc(Size, Flags),
    Dma(u8),
    Kcalloc(u8, u8),
    Layout(Size, u8),
    Block(u8, Flags),
    Exact(Size),
    Area(Size, bool),
    Device(u8, u8, u16),
    Cache(u8, Size, u8),
    Object(u8, Flags),
    Krealloc(u16, Size),
    Relayout(u16, Size),
    Free(u16),
    FreeAgain(u16),
    FreeWrong(u16, u8, Size),
    EndCache(u8),
    Drain,
    Fail(u8),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Flags {
    Kernel,
    Atomic,
    Zero,
    User,
    Nowait,
}

impl From<Flags> for Gfp {
    fn from(flags: Flags) -> Gfp {
        match flags {
            Flags::Kernel => GFP_KERNEL,
            Flags::Atomic => GFP_ATOMIC,
            Flags::Zero => GFP_KERNEL | Gfp::ZERO,
            Flags::User => GFP_USER | Gfp::COMP | Gfp::NOWARN,
            Flags::Nowait => GFP_NOWAIT | Gfp::HIGHMEM,
        }
    }
}

/// The model's word for an operation. What the model does not ask (sizes of 0, for which it knows no bytes) becomes 1.
fn step(op: Op) -> Step {
    let slot = |n: u8| usize::from(n) % CACHES;
    let some = |size: Size| size.0.max(1);
    match op {
        Op::Kmalloc(size, flags) => Step::Kmalloc(some(size), flags.into()),
        Op::Dma(size) => Step::Kmalloc(usize::from(size) + 1, GFP_ATOMIC | GFP_DMA),
        Op::Kcalloc(n, size) => Step::Kcalloc(usize::from(n) + 1, usize::from(size) + 1),
        Op::Layout(size, shift) => Step::Layout(some(size), u32::from(shift % 14)),
        Op::Block(order, flags) => Step::Block(usize::from(order % 11), flags.into()),
        Op::Exact(size) => Step::Exact(some(size)),
        Op::Area(size, zero) => Step::Area(some(size), zero),
        Op::Device(page, at, len) => {
            let phys = 0xf000_0000 + u64::from(page % 6) * 4096 + u64::from(at) * 16;
            Step::Device(phys, usize::from(len) + 1)
        }
        Op::Cache(n, size, shift) => Step::Cache(slot(n), some(size).min(9000), u32::from(shift % 8)),
        Op::Object(n, flags) => Step::Object(slot(n), flags.into()),
        Op::Krealloc(index, size) => Step::Krealloc(index.into(), size.0),
        Op::Relayout(index, size) => Step::Relayout(index.into(), some(size)),
        Op::Free(index) => Step::Free(index.into()),
        Op::FreeAgain(index) => Step::FreeAgain(index.into()),
        Op::FreeWrong(index, call, at) => Step::FreeWrong(index.into(), call.into(), at.0),
        Op::EndCache(n) => Step::EndCache(slot(n)),
        Op::Drain => Step::Drain,
        Op::Fail(k) => Step::Fail(u64::from(k % 16) + 1),
    }
}

fn live<B: Reach>(rig: &Rig<B>, bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    rig.nothing_lost(|mm| {
        let mut world = World::new(mm);
        for i in 1..=MOST {
            if bytes.is_empty() {
                break;
            }
            let Ok(op) = bytes.arbitrary() else { break };
            world.step(step(op));
            if i % EACH == 0 {
                world.check();
            }
        }
        world.end(bytes.len());
    });
    assert!(rig.platform.take_bugs().is_empty());
}

/// A life without an MMU. RAM is scarce, so that exhaustion and fragments are met.
pub fn life_nommu(bytes: &[u8]) {
    live(&Rig::nommu(common::NOMMU_RAM, 0x18_0000), bytes);
}

/// A life on tables of 64-bit mode, with two CPUs and with memory that has no kernel address.
pub fn life_mmu(bytes: &[u8]) {
    live(&common::highmem(), bytes);
}

/// A life on PAE tables, with two CPUs and memory below and above 4 GiB that has no kernel address.
pub fn life_pae(bytes: &[u8]) {
    live(&common::pae(), bytes);
}
