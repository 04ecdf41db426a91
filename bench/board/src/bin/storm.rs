//! How long four CPUs take for calls that all make at once, over what one takes for its own.
//!
//! For a board with several CPUs on threads of the host, without `-icount`: what is read is a clock. Rounds of one CPU
//! and of all alternate, so that what else the host does meets both alike. The figures are not held against anything.
#![no_std]
#![no_main]

use bench_board::Row;
use bench_board::board::{self, CPUS, ExitCode, MM, on_all, say};
use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use rtmm::GFP_KERNEL;
use rtmm_examples::measure::{median_and_worst, ticks};

board::entry!(main);

/// Rounds of each storm.
const ROUNDS: usize = 9;

static FAILURES: AtomicUsize = AtomicUsize::new(0);
/// CPUs that are about to begin.
static READY: AtomicUsize = AtomicUsize::new(0);

fn main() {
    let kmalloc = storm("wall_kmalloc_4", || pairs(100_000, kmalloc));
    let vmalloc = storm("wall_vmalloc_4", || pairs(100, vmalloc));
    if !(kmalloc && vmalloc) {
        say!("FAILED: an allocation or a free was refused");
        board::exit(ExitCode::Fail);
    }
    board::exit(ExitCode::Pass);
}

fn kmalloc() -> Option<()> {
    let object = black_box(MM.kmalloc(64, GFP_KERNEL).ok()?);
    MM.kfree(object.as_ptr()).ok()
}

fn vmalloc() -> Option<()> {
    let area = black_box(MM.vmalloc(4 << 10).ok()?);
    MM.vfree(area.as_ptr()).ok()
}

/// Makes that many pairs on this CPU, once all CPUs of the round have come here.
fn pairs(count: usize, pair: fn() -> Option<()>) {
    READY.fetch_sub(1, SeqCst);
    while READY.load(SeqCst) != 0 {
        MM.poll_shootdown();
        core::hint::spin_loop();
    }
    for _ in 0..count {
        if pair().is_none() {
            FAILURES.fetch_add(1, SeqCst);
        }
    }
}

/// Times rounds of `work` on one CPU and on all, and prints the ratios' median; false when a call was refused.
fn storm(id: &str, work: fn()) -> bool {
    let round = |cpus: usize| {
        READY.store(cpus, SeqCst);
        ticks(|| if cpus == 1 { work() } else { on_all(work) })
    };
    // Caches are filled, and the emulator has translated the code.
    round(1);
    round(CPUS);
    let mut percents = [0; ROUNDS];
    for percent in &mut percents {
        let one = round(1).max(1);
        *percent = (round(CPUS) * 100 / one) as u32;
    }
    let (median, worst) = median_and_worst(&mut percents);
    let unit = "percent of one CPU's time, on each of 4 CPUs as many pairs";
    Row { id, unit, tenths: median * 10, worst: Some(worst), peer: None }.print();
    FAILURES.load(SeqCst) == 0
}
