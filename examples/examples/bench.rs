//! Counts the instructions of one allocate-and-free pair: kmalloc, a page, vmalloc.
//!
//! For a board under QEMU's `-icount`, where the counter repeats exactly. Prints one `BENCH {json}` line per row.
//! What is measured is a running system: one more object, page and area are live meanwhile, so that no pair makes the
//! first slab or the first page table and takes the last one down again.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::ptr::NonNull;
use rtmm::{Backend as _, GFP_KERNEL};
use rtmm_examples::board::{self, Backend, ExitCode, MM, say};
use rtmm_examples::measure::{self, Calibration};

/// Pairs measured of a short row and of the 1 MiB rows; odd, so that the median is one of them.
const PAIRS: usize = 1001;
const LONG_PAIRS: usize = 101;

/// Pairs that go before, so that what is measured is the steady state.
const WARM_UP: usize = 8;

board::entry!(main);

fn main() {
    match Calibration::measure() {
        None => say!("{} counts no instructions: run the bench on a board", board::NAME),
        Some(calibration) => {
            say!("counter: {} ticks per 1000 instructions", calibration.ticks_per_thousand());
            if rows(calibration).is_none() {
                say!("FAILED: an allocation or a free was refused");
                board::exit(ExitCode::Fail);
            }
        }
    }
    board::exit(ExitCode::Pass);
}

/// A goal of the row on the board it was set for.
fn goal(board: &str, id: &str) -> Option<u32> {
    match (board, id) {
        ("qemu-x86_64", "kmalloc_64" | "page_0") => Some(60),
        ("qemu-x86_64", "vmalloc_4k") => Some(400),
        ("qemu-x86_64", "vmalloc_64k") => Some(900),
        ("qemu-x86_64", "vmalloc_1m") => Some(2400),
        ("mps2-an385", "nommu_vmalloc_1m") => Some(700),
        _ => None,
    }
}

fn rows(calibration: Calibration) -> Option<()> {
    let mut bench = Bench { calibration, empty: 0 };
    bench.empty = bench.median_of_empty_pairs();

    let neighbours = Neighbours::new()?;
    bench.row("kmalloc_64", PAIRS, || {
        let object = black_box(MM.kmalloc(64, GFP_KERNEL).ok()?);
        MM.kfree(object.as_ptr()).ok()
    })?;
    bench.row("page_0", PAIRS, || {
        let page = black_box(MM.get_free_page(GFP_KERNEL).ok()?);
        MM.free_page(page.as_ptr()).ok()
    })?;
    let vmalloc = |size: usize| {
        move || {
            let area = black_box(MM.vmalloc(size).ok()?);
            MM.vfree(area.as_ptr()).ok()
        }
    };
    bench.row("vmalloc_4k", PAIRS, vmalloc(4 << 10))?;
    bench.row("vmalloc_64k", PAIRS, vmalloc(64 << 10))?;
    if Backend::HAS_MMU {
        bench.row("vmalloc_1m", LONG_PAIRS, vmalloc(1 << 20))?;
    } else {
        // A page over a power of two: exactly 257 pages are taken, and the tail of the block goes back.
        bench.row("nommu_vmalloc_1m", LONG_PAIRS, vmalloc((1 << 20) + (4 << 10)))?;
    }
    neighbours.free()
}

/// What is live beside the pair that is measured.
struct Neighbours {
    object: NonNull<u8>,
    page: NonNull<u8>,
    area: NonNull<u8>,
}

impl Neighbours {
    fn new() -> Option<Self> {
        Some(Neighbours {
            object: MM.kmalloc(64, GFP_KERNEL).ok()?,
            page: MM.get_free_page(GFP_KERNEL).ok()?,
            area: MM.vmalloc(4 << 10).ok()?,
        })
    }

    fn free(self) -> Option<()> {
        MM.kfree(self.object.as_ptr()).ok()?;
        MM.free_page(self.page.as_ptr()).ok()?;
        MM.vfree(self.area.as_ptr()).ok()
    }
}

struct Bench {
    calibration: Calibration,
    /// Ticks of measuring nothing.
    empty: u32,
}

impl Bench {
    fn median_of_empty_pairs(&self) -> u32 {
        let mut samples = [0; LONG_PAIRS];
        for sample in &mut samples {
            *sample = measure::ticks(|| ()) as u32;
        }
        measure::median_and_worst(&mut samples).0
    }

    /// Measures `pair` that many times and prints the row; `None` when one of the pairs was refused.
    #[inline(never)]
    fn row(&self, id: &str, pairs: usize, pair: impl Fn() -> Option<()>) -> Option<()> {
        for _ in 0..WARM_UP {
            pair()?;
        }
        let mut samples = [0; PAIRS];
        let samples = &mut samples[..pairs];
        for sample in samples.iter_mut() {
            let mut done = None;
            *sample = measure::ticks(|| done = pair()) as u32;
            done?;
        }
        let (median, worst) = measure::median_and_worst(samples);
        let instructions = |ticks: u32| self.calibration.instructions(ticks.saturating_sub(self.empty).into());
        let (value, worst) = (instructions(median), instructions(worst));
        let board = board::NAME;
        match goal(board, id) {
            Some(goal) => say!(
                r#"BENCH {{"id":"{}","board":"{}","unit":"instructions per pair","value":{},"worst":{},"goal":{},"peer":null,"peer_value":null}}"#,
                id,
                board,
                value,
                worst,
                goal
            ),
            None => say!(
                r#"BENCH {{"id":"{}","board":"{}","unit":"instructions per pair","value":{},"worst":{},"goal":null,"peer":null,"peer_value":null}}"#,
                id,
                board,
                value,
                worst
            ),
        }
        Some(())
    }
}
