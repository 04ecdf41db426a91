//! The areas that are measured, and their churn.

use crate::calls::{Calls, Phase};
use crate::rng::XorShift32;
use crate::run::clear;

/// One size of area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmallocRow {
    /// The row's name.
    pub id: &'static str,
    /// Bytes.
    pub size: usize,
    /// Pairs; odd, so that the median is one of them.
    pub pairs: usize,
}

/// The sizes, smallest first.
pub const VMALLOC_ROWS: [VmallocRow; 5] = [
    VmallocRow { id: "vmalloc_4k", size: 4 << 10, pairs: 2001 },
    VmallocRow { id: "vmalloc_16k", size: 16 << 10, pairs: 2001 },
    VmallocRow { id: "vmalloc_64k", size: 64 << 10, pairs: 2001 },
    VmallocRow { id: "vmalloc_1m", size: 1 << 20, pairs: 201 },
    VmallocRow { id: "vmalloc_16m", size: 16 << 20, pairs: 41 },
];

/// `count` random replaces of one request, with all `slots` live.
pub fn vmalloc_churn<C: Calls>(
    calls: &mut C,
    count: usize,
    request: C::Request,
    slots: &mut [Option<C::Object>],
) -> usize {
    let mut rng = XorShift32::new(0x9e37_79b9);
    let mut failures = 0;
    for slot in slots.iter_mut() {
        *slot = calls.alloc(Phase::Setup, request);
    }
    for _ in 0..count {
        let slot = rng.next() as usize % slots.len();
        if let Some(object) = slots[slot].take() {
            calls.free(Phase::Counted, object);
        }
        slots[slot] = calls.alloc(Phase::Counted, request);
        failures += usize::from(slots[slot].is_none());
    }
    clear(calls, slots);
    failures
}
