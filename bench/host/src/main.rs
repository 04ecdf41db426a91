//! Measures rtmm and its peers on this machine.
//!
//! Without arguments it runs every measurement, each in a process of its own, and prints one line per result: `BENCH`
//! and a row of figures, or `DATA` and what plots and tables are made of. Progress goes to standard error.

mod one;
mod report;
mod rows;

use anyhow::Result;
use clap::Parser;

/// Measures rtmm and its peers on this machine.
#[derive(Parser)]
struct Line {
    /// Instructions stepped through for each allocator and workload
    #[arg(long, default_value_t = 20_000)]
    steps: u64,
    /// Only measurements whose names contain this
    #[arg(long)]
    only: Option<String>,
    /// One measurement, printed as JSON
    #[arg(last = true)]
    one: Vec<String>,
}

fn main() -> Result<()> {
    let line = Line::parse();
    if line.one.is_empty() {
        report::all(line.steps, line.only.as_deref())
    } else {
        println!("{}", one::measure(&line.one, line.steps)?);
        Ok(())
    }
}

/// There is one thread and no interrupt: what `embedded-alloc` asks for costs it nothing.
struct Alone;
critical_section::set_impl!(Alone);

// SAFETY: the process has one thread, and its signal handler takes no critical section.
unsafe impl critical_section::Impl for Alone {
    unsafe fn acquire() -> critical_section::RawRestoreState {
        false
    }

    unsafe fn release(_: critical_section::RawRestoreState) {}
}
