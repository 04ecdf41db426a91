//! Rigs of both kinds, and what tests compare before and after.

#![allow(dead_code, unused_macros)]

pub mod machine;
pub mod steps;
pub mod waiting;
pub mod world;

use backend_mmu_x86::X86;
use backend_nommu::Arena;
use mm_core::*;
use rtmm_testkit::rig::Rig;
use rtmm_testkit::{SimConfig, SimMachine, SimPae, TestPlatform};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A manager under test.
pub type TestMm<B> = Mm<TestPlatform, B>;

pub const PAGE: usize = 4096;
const MIB: u64 = 1 << 20;
/// RAM of a rig. Under Miri as little as the tests can do with.
pub const RAM: u64 = if cfg!(miri) { MIB / 2 } else { 8 * MIB };
/// Where the DMA memory of [`mmu`] ends.
const LOW: u64 = if cfg!(miri) { 0x2_0000 } else { 0x8_0000 };

/// Where the RAM of [`nommu`] is.
pub const NOMMU_RAM: u64 = 0x2000_0000;

pub fn nommu() -> Rig<Arena> {
    Rig::nommu(NOMMU_RAM, RAM)
}

/// DMA memory below 1 MiB, and the rest above, with a hole between.
pub fn mmu() -> Rig<X86<SimMachine>> {
    Rig::mmu(&[(0x1000, LOW), (MIB, MIB + RAM)])
}

/// RAM for areas of several 2 MiB entries.
pub fn large_rig() -> Rig<backend_mmu_x86::X86<rtmm_testkit::SimMachine>> {
    let mut config = SimConfig::new(&[(0x20_0000, 0x20_0000 + (16 << 20))]);
    config.cpus = 2;
    Rig::mmu_on(config)
}

/// Two CPUs, and most memory without a kernel address.
pub fn highmem() -> Rig<X86<SimMachine>> {
    let mut config = SimConfig::new(&[(0x1000, LOW), (MIB, MIB + RAM / 2), (1 << 32, (1 << 32) + RAM / 2)]);
    (config.cpus, config.lowmem_end) = (2, MIB + RAM / 2);
    Rig::mmu_on(config)
}

/// PAE: low memory, and two pieces without a kernel address, one below 4 GiB and one above; two CPUs.
pub fn pae() -> Rig<X86<SimPae>> {
    let (middle, high) = (0x3800_0000, 0x1_2000_0000);
    let ranges = [(0x1000, LOW), (MIB, MIB + RAM / 2), (middle, middle + RAM / 4), (high, high + RAM / 4)];
    Rig::pae_on(SimConfig { cpus: 2, ..SimConfig::pae(&ranges, 0x3800_0000) })
}

/// Runs a generic test body on a rig of each kind; afterwards everything must be as it was.
macro_rules! both {
    ($($name:ident;)*) => {$(
        mod $name {
            #[test]
            fn nommu() {
                crate::common::nommu().nothing_lost(super::$name);
            }

            #[test]
            fn mmu() {
                crate::common::mmu().nothing_lost(super::$name);
            }
        }
    )*};
}

/// What must be the same after an error as before the call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    report: CheckReport,
    free: usize,
    objects: (usize, usize),
    areas: String,
}

/// The state as it is.
pub fn state<B: Backend>(mm: &TestMm<B>) -> State {
    State {
        report: mm.check().unwrap_or_else(|damage| panic!("{damage}")),
        free: mm.free_page_count(),
        objects: mm.slabinfo().active(),
        areas: mm.vmallocinfo().to_string(),
    }
}

/// The state when caches have given back what they keep.
pub fn drained<B: Backend>(mm: &TestMm<B>) -> State {
    mm.drain();
    state(mm)
}

/// Memory in which no two frames that can be had are neighbours.
pub struct Fragments(Vec<(NonNull<u8>, usize)>);

/// Takes all memory, page by page, and gives every second page back.
pub fn fragment<B: Backend>(mm: &TestMm<B>) -> Fragments {
    mm.drain();
    let mut kept = Vec::new();
    let mut given = Vec::new();
    while let Ok(page) = mm.get_free_page(GFP_ATOMIC) {
        if (page.as_ptr().addr() / PAGE).is_multiple_of(2) { &mut kept } else { &mut given }.push(page);
    }
    assert_eq!(mm.zoneinfo().spare(GFP_ATOMIC), 0);
    for page in given {
        mm.free_page(page.as_ptr()).unwrap();
    }
    let mut kept: Vec<_> = kept.into_iter().map(|page| (page, 0)).collect();
    // What the marks kept back lies together, and could be had now.
    while let Ok(pair) = mm.get_free_pages(GFP_ATOMIC, 1) {
        kept.push((pair, 1));
    }
    Fragments(kept)
}

impl Fragments {
    /// Gives the rest back.
    pub fn undo<B: Backend>(self, mm: &TestMm<B>) {
        for (block, order) in self.0 {
            mm.free_pages(block.as_ptr(), order).unwrap();
        }
    }
}

/// Runs `call`, which is refused, and asserts that it changed nothing. Miri looks at every 16th only.
pub fn unchanged<B: Backend, R>(mm: &TestMm<B>, call: impl FnOnce() -> R) -> R {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    if cfg!(miri) && !CALLS.fetch_add(1, Ordering::Relaxed).is_multiple_of(16) {
        return call();
    }
    let before = state(mm);
    let result = call();
    assert_eq!(state(mm), before);
    result
}

/// The kernel pointer to a frame of RAM.
pub fn frame_ptr<B: Backend>(mm: &TestMm<B>, pfn: u32) -> *mut u8 {
    mm.backend().direct_ptr((pfn as usize) << B::PAGE_SHIFT)
}

/// All frames that have a record.
pub fn frames<B: Backend>(mm: &TestMm<B>) -> Vec<u32> {
    // Each zone of a rig is one run without a hole.
    mm.zoneinfo().zones().iter().flat_map(|zone| zone.span.0..zone.span.1).collect()
}
