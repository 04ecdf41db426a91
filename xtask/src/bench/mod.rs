//! Figures: exact instruction counts of every board, the host's comparisons, sizes; and what is made of them.

mod baseline;
mod lines;
mod programs;
mod results;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::boards::{BOARDS, Board};
use crate::cargo::{self, cargo as cargo_command};
use crate::rows::{self, Row};
use crate::{process, size, tools};
use lines::Told;

/// The packages of the bench that are built for this machine.
pub const HOST_PACKAGES: [&str; 5] = ["bench-traces", "bench-peers", "bench-subject", "bench-host", "bench-report"];

/// What the command was given.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only this board, or the host.
    pub board: Option<String>,
    /// Where the rows go as a JSON list.
    pub json: Option<PathBuf>,
    /// What was measured is what later runs are held against.
    pub renew: bool,
}

/// Where results are kept, from the workspace's folder.
const RESULTS: &str = "docs/bench";
/// The board on which allocators are compared: large, 64-bit, and its counter costs one instruction.
const COMPARED: &str = "qemu-x86_64";

/// Measures, prints, and holds against goals and earlier figures.
pub fn bench(options: &Options) -> Result<()> {
    let mut told = Told::default();
    let mut broken = Vec::new();
    for part in parts(options.board.as_deref())? {
        println!("\n== {}", part.name());
        match part.measure() {
            Ok(found) => told.add(found),
            Err(error) => {
                println!("FAILED: {}: {error:#}", part.name());
                broken.push(part.name());
            }
        }
    }
    print!("\n{}", rows::table(&told.rows));
    if let Some(path) = &options.json {
        rows::write(&told.rows, path)?;
    }
    ensure!(broken.is_empty(), "could not be measured: {}", broken.join(", "));
    let folder = cargo::root().join(RESULTS);
    std::fs::create_dir_all(&folder)?;
    let last = folder.join("baseline.json");
    if options.renew {
        baseline::renew(&last, &told.rows)?;
    }
    let worse = baseline::worse(&last, &told.rows)?;
    report(&folder, told)?;
    if !worse.is_empty() {
        bail!(
            "more than 5 % worse than the last time:\n    {}\nif that is meant, type: cargo xtask bench --renew",
            worse.join("\n    ")
        );
    }
    Ok(())
}

/// One thing to measure.
enum Part {
    /// The rows of a board.
    Rows(&'static Board),
    /// All allocators on the workloads.
    Compare(&'static Board),
    /// What the debugging features cost.
    Priced(&'static Board),
    /// How long several CPUs take at once.
    Storm(&'static Board),
    /// What a process can measure.
    Host,
    /// Bytes.
    Size,
}

impl Part {
    fn name(&self) -> String {
        match self {
            Part::Rows(board) => format!("rows of {}", board.name),
            Part::Compare(board) => format!("allocators on {}", board.name),
            Part::Priced(board) => format!("debugging features on {}", board.name),
            Part::Storm(board) => format!("all CPUs at once on {}", board.name),
            Part::Host => "allocators on this machine".to_owned(),
            Part::Size => "sizes".to_owned(),
        }
    }

    fn measure(&self) -> Result<Told> {
        match self {
            Part::Rows(board) => {
                let told = programs::on_board(board, programs::ROWS, &[])?;
                ensure!(!told.rows.is_empty(), "it measured nothing");
                Ok(told)
            }
            Part::Compare(board) => programs::on_board(board, programs::COMPARE, &[]),
            Part::Priced(board) => {
                let mut told = Told::default();
                for feature in programs::FEATURES {
                    told.add(programs::on_board(board, programs::PRICED, &[feature])?);
                }
                Ok(told)
            }
            Part::Storm(board) => programs::storm(board),
            Part::Host => programs::on_host(),
            Part::Size => Ok(Told { rows: size::rows()?, data: Vec::new() }),
        }
    }
}

/// What a `--board` means; without one, all there is.
fn parts(board: Option<&str>) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let counting: Vec<&'static Board> = match board {
        Some("host") => return Ok(vec![Part::Host]),
        Some(name) => {
            let board = Board::named(name)?;
            ensure!(board.counts_instructions(), "{name} counts no instructions; --board host compares allocators");
            vec![board]
        }
        None => BOARDS.iter().filter(|board| board.is_measured()).collect(),
    };
    tools::provide(&counting)?;
    for board in counting {
        parts.push(Part::Rows(board));
        if board.name == COMPARED {
            parts.extend([Part::Compare(board), Part::Priced(board)]);
        }
        if has_storm(board) {
            parts.push(Part::Storm(board));
        }
    }
    if board.is_none() {
        parts.extend([Part::Host, Part::Size]);
    }
    Ok(parts)
}

/// Puts what was measured in the place of what was measured there before, and writes tables, plots and the README's
/// section anew.
fn report(folder: &Path, told: Told) -> Result<()> {
    let kept = results::renew(folder, told)?;
    if kept.is_partial() {
        println!("    the rest of {RESULTS} is from earlier runs");
    }
    let mut command: Command = cargo_command();
    command.args(["run", "--quiet", "--release", "--package", "bench-report", "--"]).arg(cargo::root());
    println!("    {}", cargo::shown(&command));
    let status = command.status()?;
    ensure!(status.success(), "the report ended with {}", process::Exit::from(status));
    Ok(())
}

/// The rows of one board, for the long round of checks, which writes nothing.
pub fn check() -> Result<()> {
    for board in BOARDS.iter().filter(|board| board.is_measured()) {
        let told = Part::Rows(board).measure().with_context(|| format!("bench on {}", board.name))?;
        print!("\n{}", rows::table(&told.rows));
        let worse = baseline::worse(&cargo::root().join(RESULTS).join("baseline.json"), &told.rows)?;
        ensure!(worse.is_empty(), "more than 5 % worse than the last time:\n    {}", worse.join("\n    "));
    }
    Ok(())
}

impl Told {
    fn add(&mut self, other: Told) {
        self.rows.extend(other.rows);
        self.data.extend(other.data);
    }
}

/// Makes `command` a clippy of a board's programs.
pub fn clippy(command: &mut Command, board: &Board) {
    command.arg("clippy");
    programs::select(command, board, programs::ROWS, &[]);
    if has_storm(board) {
        command.args(["--bin", programs::STORM]);
    }
}

/// Whether the board has several CPUs to time.
fn has_storm(board: &Board) -> bool {
    board.extra.contains(&"smp")
}

/// Whether a larger value of a row is better.
pub fn more_is_better(id: &str) -> bool {
    ["page_order9", "arena_first", "arena_churned", "areas_first", "areas_held"].contains(&id)
}

/// Whether a row is of a clock, and so never twice the same: it is printed and held against nothing.
fn is_timed(id: &str) -> bool {
    id.starts_with("wall_")
}

/// What a row is called.
fn called(row: &Row) -> String {
    format!("{} on {}", row.id, row.board)
}
