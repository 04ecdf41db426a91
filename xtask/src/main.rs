//! `cargo xtask`: builds, boards, tests and benches behind one command.

mod api;
mod bench;
mod boards;
mod c;
mod cargo;
mod ci;
mod defmt;
mod demos;
mod elf;
mod fuzz;
mod libraries;
mod machines;
mod package;
mod process;
mod qemu;
mod rows;
mod run;
mod said;
mod screen;
mod scull;
mod size;
mod size_demo;
mod spoil;
mod suite;
mod tools;
mod totals;
mod verdict;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::boards::Board;
use crate::totals::Totals;

/// Builds, boots, tests and measures rtmm, on this machine and on every board.
///
/// Whatever is missing (Rust targets, QEMU) is installed, or named with the line to type.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Line {
    #[command(subcommand)]
    command: Do,
}

#[derive(Subcommand)]
enum Do {
    /// Boot a demo; by default store a file in four drivers and compare what comes back with the host's CRC-32
    Run(RunLine),
    /// Run tests: the libraries' and, on every board, the suites
    Test(TestLine),
    /// List the boards
    Boards,
    /// Print exact instruction counts, beside other allocators' and the goals, and renew docs/bench
    Bench {
        /// Measure on this board, or the host, only
        #[arg(long)]
        board: Option<String>,
        /// Write the figures to this file as a JSON list
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// From now on hold figures against these
        #[arg(long)]
        renew: bool,
    },
    /// Print what the smallest programs take on a Cortex-M3, beside the same programs on other allocators
    Size {
        /// Instead, what this demo takes on each bare board
        #[arg(long)]
        demo: Option<String>,
        /// Write the figures to this file as a JSON list
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// The C interface: its header, its library, its tests on this machine
    #[command(subcommand)]
    C(C),
    /// List what the libraries promise, item by item, in docs/api
    Api {
        /// Only say whether the lists are up to date
        #[arg(long)]
        check: bool,
    },
    /// What a publication must pass: packages, lowest versions with the oldest Rust, licences
    Package,
    /// Run lists of operations out of random bytes under libFuzzer and AddressSanitizer (nightly, cargo-fuzz)
    Fuzz {
        /// Only this fuzzer
        target: Option<String>,
        /// How long each is run
        #[arg(long, default_value_t = fuzz::SECONDS)]
        seconds: u32,
    },
    /// Everything a change must pass: format, clippy, documentation, tests, demos
    Ci {
        /// Add the slow checks: defmt and other machines for all suites, bench, Miri
        #[arg(long)]
        long: bool,
    },
}

#[derive(Subcommand)]
enum C {
    /// Write capi/include/rtmm.h anew
    Header {
        /// Only say whether it is up to date
        #[arg(long)]
        check: bool,
    },
    /// Build librtmm.a and print where it is
    Library {
        /// For this board's target and backend
        #[arg(long, default_value = "host")]
        board: String,
    },
    /// Compile the headers with every compiler, and run the C programs of this machine
    Test,
}

#[derive(Args)]
struct RunLine {
    /// Where to boot it
    #[arg(long, default_value = boards::DEFAULT_BOARD)]
    board: String,
    /// Which program of examples/
    #[arg(long, default_value = demos::SCULL)]
    demo: String,
    /// The file given to the guest (by default its own ELF image, and for json a document of ours)
    #[arg(long)]
    file: Option<PathBuf>,
    /// QEMU's machine, where the board boots on several
    #[arg(long)]
    machine: Option<String>,
    /// CPUs
    #[arg(long, value_name = "N")]
    smp: Option<u32>,
    /// RAM, as QEMU's -m
    #[arg(long)]
    mem: Option<String>,
    /// Build with defmt and decode its frames
    #[arg(long)]
    defmt: bool,
    /// Stop it after so many seconds (times XTASK_TIMEOUT_SCALE, 3 by default)
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Words for the guest
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Args)]
struct TestLine {
    /// Run only the tests whose names contain this
    filter: Option<String>,
    /// The suites of one board, of the host in both its forms, or all (then without the libraries)
    #[arg(long)]
    board: Option<String>,
    /// Only the libraries' own tests
    #[arg(long, conflicts_with = "board")]
    libraries: bool,
    /// The filter is a whole name
    #[arg(long)]
    exact: bool,
    /// Leave out the tests whose names contain this
    #[arg(long)]
    skip: Vec<String>,
    /// List the tests
    #[arg(long)]
    list: bool,
    /// Run only the ignored tests
    #[arg(long)]
    ignored: bool,
    /// Tests at a time; one per processor by default
    #[arg(long)]
    jobs: Option<usize>,
    /// Build the suites with defmt and decode its frames
    #[arg(long)]
    defmt: bool,
    /// QEMU's machine, where the board boots on several
    #[arg(long, requires = "board")]
    machine: Option<String>,
    /// The processor, as QEMU's -cpu
    #[arg(long, requires = "board")]
    cpu: Option<String>,
    /// RAM, as QEMU's -m; without any of the three, some suites run again on other machines, as the board's row says
    #[arg(long, requires = "board")]
    mem: Option<String>,
    /// A further word for the guest, as the message of a failed test names it
    #[arg(long)]
    word: Vec<String>,
    /// Print what each test says
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    // Whoever reads only the first lines of what is printed ends us; Rust would make it a panic.
    sigpipe::reset();
    match act(Line::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(command: Do) -> Result<ExitCode> {
    match command {
        Do::Run(line) => run::run(&run::Options {
            board: Board::named(&line.board)?,
            demo: line.demo,
            file: line.file,
            machine: line.machine,
            cpus: line.smp,
            ram: line.mem,
            defmt: line.defmt,
            seconds: line.timeout,
            args: line.args,
        })?,
        Do::Test(line) => return Ok(close(&test(line).unwrap_or_else(nothing_done))),
        Do::Boards => boards::print(),
        Do::Bench { board, json, renew } => bench::bench(&bench::Options { board, json, renew })?,
        Do::Size { demo, json } => size::size(demo.as_deref(), json)?,
        Do::C(C::Header { check }) => c::header::write(check)?,
        Do::C(C::Library { board }) => c::library(&board)?,
        Do::C(C::Test) => return Ok(close(&c::programs::test().unwrap_or_else(nothing_done))),
        Do::Api { check } => api::api(check)?,
        Do::Package => return Ok(close(&package::package().unwrap_or_else(nothing_done))),
        Do::Fuzz { target, seconds } => {
            return Ok(close(&fuzz::fuzz(target.as_deref(), seconds).unwrap_or_else(nothing_done)));
        }
        Do::Ci { long } => return Ok(close(&ci::ci(long).unwrap_or_else(nothing_done))),
    }
    Ok(ExitCode::SUCCESS)
}

fn test(line: TestLine) -> Result<Totals> {
    let boards = if line.libraries { Vec::new() } else { Board::selected(line.board.as_deref())? };
    let options = suite::Options {
        filter: line.filter,
        exact: line.exact,
        skip: line.skip,
        list: line.list,
        ignored: line.ignored,
        jobs: line.jobs,
        defmt: line.defmt,
        machine: line.machine,
        ram: line.mem,
        cpu: line.cpu,
        suites: None,
        words: line.word,
        verbose: line.verbose,
    };
    let mut totals = Totals::default();
    let boards = tools::provide_each(boards, &mut totals);
    if line.board.is_none() {
        match libraries::run(&options) {
            Ok(found) => totals.add(found),
            Err(error) => broken(&mut totals, "libraries", "cargo xtask test --libraries", &error),
        }
        // They have no names to choose from.
        if !line.libraries && options.filter.is_none() && !options.list && !options.ignored {
            println!("\n== the C interface on this machine");
            match c::programs::test() {
                Ok(found) => totals.add(found),
                Err(error) => broken(&mut totals, "the C interface", "cargo xtask c test", &error),
            }
        }
    }
    let mut summary = Vec::new();
    for board in boards {
        for options in std::iter::once(options.clone()).chain(options.again(board)) {
            let name = options.place(board);
            println!("\n== suites on {name}");
            match suite::run(board, &options) {
                Ok(found) => {
                    summary.push(format!("{name:<14} {found}"));
                    totals.add(found);
                }
                Err(error) => {
                    summary.push(format!("{name:<14} could not be run"));
                    let again = format!("cargo xtask test --board {}", board.name);
                    broken(&mut totals, &format!("suites on {name}"), &again, &error);
                }
            }
        }
    }
    println!("\n{}", summary.join("\n"));
    if !options.list && totals.passed + totals.failed + totals.skipped == 0 {
        totals.fail("no test has such a name", "cargo xtask test --list");
    }
    Ok(totals)
}

/// The results of a command that could not even begin.
fn nothing_done(error: anyhow::Error) -> Totals {
    eprintln!("error: {error:#}");
    let mut totals = Totals::default();
    totals.fail(
        "the command itself",
        std::env::args().skip(1).fold("cargo xtask".to_owned(), |line, word| line + " " + &word),
    );
    totals
}

/// Counts and prints a part that could not be run at all.
fn broken(totals: &mut Totals, what: &str, again: &str, error: &anyhow::Error) {
    eprintln!("error: {what}: {error:#}");
    totals.fail(what, again);
}

/// Prints the end of the report.
fn close(totals: &Totals) -> ExitCode {
    totals.print();
    if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
