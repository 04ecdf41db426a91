//! The rows of several CPUs: what a pair of calls costs while all make them at once; and the manager of all CPUs that
//! the rows of areas are made with.
//!
//! Under `-icount` the CPUs take turns on one counter, so that a pair in which the turn passes on counts what the
//! others did meanwhile; the median is of pairs in which it did not.

use bench_board::board::{self, Backend, BoardPlatform, CPUS, MM, cpu, on_all, say};
use bench_board::{Counter, PAIR, Row, kept, manager};
use bench_subject::{HeapCalls, Kernel, Pairs};
use bench_traces::{self as traces, Bytes};
use core::hint::black_box;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};
use rtmm::{Bug, Context, Mm, Platform, VirtRange};

/// The unit of calls for which the other CPUs have to do something, too: the counter is that of all.
pub const ALL_CPUS: &str = "instructions of all CPUs per pair";

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

/// Pairs of areas on each CPU.
const AREAS: usize = 1000;

fn all_make_areas() {
    READY.fetch_add(1, SeqCst);
    while READY.load(SeqCst) != 2 * CPUS {
        MM.poll_shootdown();
        // Hands the turn on.
        core::hint::spin_loop();
    }
    for _ in 0..AREAS {
        let freed = MM.vmalloc(4 << 10).is_ok_and(|area| MM.vfree(black_box(area).as_ptr()).is_ok());
        FAILURES.fetch_add(usize::from(!freed), SeqCst);
    }
}

/// kmalloc_64 of one CPU while the others sleep, smp_4, and vmalloc_4k_all: of all CPUs at once, each of which has the
/// others flush.
pub fn rows(mut counter: Counter, _: &mut Pairs) -> Option<()> {
    COUNTER.store(&raw mut counter, SeqCst);
    for pairs in &PAIRS {
        pairs.store(kept::<Pairs>()?, SeqCst);
    }
    make_pairs();
    let alone = median(cpu());
    on_all(all_make_pairs);
    let all: [u32; CPUS] = core::array::from_fn(median);
    let (_, areas) = counter.cost(|| on_all(all_make_areas));
    say!("instructions per pair: {} on one CPU, {:?} on all at once", alone, all);
    if FAILURES.load(SeqCst) != 0 || alone == 0 {
        return None;
    }
    Row { id: "kmalloc_64", unit: PAIR, tenths: alone * 10, worst: None, peer: None }.print();
    let most = all.into_iter().max()?;
    Row { id: "smp_4", unit: "percent of one CPU's pair", tenths: most * 1000 / alone, worst: None, peer: None }
        .print();
    let tenths = (u64::from(areas) * 10 / (CPUS * AREAS) as u64) as u32;
    Row { id: "vmalloc_4k_all", unit: "instructions of all CPUs per pair, mean", tenths, worst: None, peer: None }
        .print();
    Some(())
}

/// The board's platform as that of a second manager of all CPUs.
pub struct Second;

impl Platform for Second {
    type Lock = <BoardPlatform as Platform>::Lock;
    const CPUS: usize = CPUS;
    const MAX_POLLS: u64 = BoardPlatform::MAX_POLLS;

    #[inline]
    fn context(&self) -> Context {
        MM.platform().context()
    }

    fn bug(&self, bug: &Bug) {
        MM.platform().bug(bug);
    }

    #[inline(always)]
    fn cpu(&self) -> usize {
        cpu()
    }

    fn send_ipi(&self, cpu: usize) {
        MM.platform().send_ipi(cpu);
    }

    #[inline]
    fn relax(&self) {
        MM.platform().relax();
    }
}

static SECOND: AtomicPtr<Mm<Second, Backend>> = AtomicPtr::new(ptr::null_mut());

fn second() -> Option<&'static Mm<Second, Backend>> {
    // SAFETY: null, or a manager that is kept for good.
    unsafe { SECOND.load(SeqCst).as_ref() }
}

/// A manager as [`manager`] makes it, which all CPUs are up for and answer. Called once.
pub fn manager_of_all(memory: NonNull<u8>, len: usize, window: VirtRange) -> Option<&'static Mm<Second, Backend>> {
    let mm = manager(Second, memory, len, window)?;
    SECOND.store(ptr::from_ref(mm).cast_mut(), SeqCst);
    board::also_on_ipi(|| {
        if let Some(mm) = second() {
            mm.handle_ipi();
        }
    });
    on_all(|| {
        if let Some(mm) = second().filter(|mm| !mm.is_cpu_up(cpu())) {
            mm.cpu_up();
        }
    });
    (0..CPUS).all(|cpu| mm.is_cpu_up(cpu)).then_some(mm)
}
