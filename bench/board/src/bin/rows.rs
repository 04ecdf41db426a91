//! Counts the instructions of the manager's calls on a board, one row per figure.
//!
//! For a board under QEMU's `-icount`, where the counter repeats exactly. Prints one `BENCH {json}` line per row. What
//! is measured is a running system: the board's own manager, with its lock and every check.
#![no_std]
#![no_main]

#[path = "rows/areas.rs"]
mod areas;
#[cfg(feature = "smp")]
#[path = "rows/cpus.rs"]
mod cpus;
#[cfg(not(feature = "smp"))]
#[path = "rows/masked.rs"]
mod masked;
#[cfg(not(feature = "smp"))]
#[path = "rows/objects.rs"]
mod objects;
#[cfg(not(feature = "smp"))]
#[path = "rows/pages.rs"]
mod pages;

use bench_board::board::{self, Backend, ExitCode, say};
use bench_board::{Counter, kept};
use bench_subject::Pairs;
use rtmm::Backend as _;

board::entry!(main);

/// Measures one kind of call; nothing when a call was refused.
type Step = fn(Counter, &mut Pairs) -> Option<()>;

fn main() {
    let Some(counter) = Counter::new() else {
        say!("{} counts no instructions: run the bench on a board", board::NAME);
        board::exit(ExitCode::Pass);
    };
    say!("counter: {} ticks per 1000 instructions", counter.calibration().ticks_per_thousand());
    let Some(pairs) = kept::<Pairs>() else {
        say!("FAILED: too little memory for what is counted");
        board::exit(ExitCode::Fail);
    };
    #[cfg(feature = "smp")]
    let steps: [(&str, Step); 2] = [("CPUs", cpus::rows), ("areas", |counter, _| areas::rows(counter))];
    #[cfg(not(feature = "smp"))]
    let steps: [(&str, Step); 4] = [
        ("objects", objects::rows),
        ("pages", pages::rows),
        ("areas", |counter, _| areas::rows(counter)),
        ("masked stretches", |counter, _| masked::rows(counter)),
    ];
    for (name, rows) in steps {
        if rows(counter, pairs).is_none() {
            if Backend::PAGE_SIZE < 4096 {
                say!("no more figures of {}: the board has too little memory for them", name);
                continue;
            }
            say!("FAILED: {}: an allocation or a free was refused", name);
            board::exit(ExitCode::Fail);
        }
    }
    board::exit(ExitCode::Pass);
}
