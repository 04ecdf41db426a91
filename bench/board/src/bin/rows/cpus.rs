//! The rows of several CPUs: what a pair of calls costs while all make them at once.
//!
//! Under `-icount` the CPUs take turns on one counter, so that a pair in which the turn passes on counts what the
//! others did meanwhile; the median is of pairs in which it did not.

use bench_board::board::{CPUS, MM, cpu, on_all, say};
use bench_board::{Counter, PAIR, Row, kept};
use bench_subject::{HeapCalls, Kernel, Pairs};
use bench_traces::{self as traces, Bytes};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};

/// Pairs on each CPU.
const COUNT: usize = 50_000;

static COUNTER: AtomicPtr<Counter> = AtomicPtr::new(ptr::null_mut());
static PAIRS: [AtomicPtr<Pairs>; CPUS] = [const { AtomicPtr::new(ptr::null_mut()) }; CPUS];
static FAILURES: AtomicUsize = AtomicUsize::new(0);
/// CPUs that are about to begin.
static READY: AtomicUsize = AtomicUsize::new(0);

/// Makes the pairs on this CPU.
fn make_pairs() {
    // SAFETY: `rows` keeps the counter until all have returned.
    let meter = unsafe { *COUNTER.load(SeqCst) };
    // SAFETY: each CPU has one of its own, which is kept for good.
    let pairs = unsafe { &mut *PAIRS[cpu()].load(SeqCst) };
    pairs.clear();
    let mut calls = HeapCalls { heap: &mut Kernel(&MM), meter, sink: pairs };
    FAILURES.fetch_add(traces::pairs(&mut calls, COUNT, Bytes::of(64)), SeqCst);
}

fn all_make_pairs() {
    READY.fetch_add(1, SeqCst);
    while READY.load(SeqCst) != CPUS {
        MM.poll_shootdown();
    }
    make_pairs();
}

fn median(cpu: usize) -> u32 {
    // SAFETY: as in `make_pairs`, which has returned.
    unsafe { &*PAIRS[cpu].load(SeqCst) }.pair.median().unwrap_or(0)
}

/// kmalloc_64 of one CPU while the others sleep, and smp_4.
pub fn rows(mut counter: Counter, _: &mut Pairs) -> Option<()> {
    COUNTER.store(&raw mut counter, SeqCst);
    for pairs in &PAIRS {
        pairs.store(kept::<Pairs>()?, SeqCst);
    }
    make_pairs();
    let alone = median(cpu());
    on_all(all_make_pairs);
    let all: [u32; CPUS] = core::array::from_fn(median);
    say!("instructions per pair: {} on one CPU, {:?} on all at once", alone, all);
    if FAILURES.load(SeqCst) != 0 || alone == 0 {
        return None;
    }
    Row { id: "kmalloc_64", unit: PAIR, tenths: alone * 10, worst: None, peer: None }.print();
    let most = all.into_iter().max()?;
    Row { id: "smp_4", unit: "percent of one CPU's pair", tenths: most * 1000 / alone, worst: None, peer: None }
        .print();
    Some(())
}
