//! Booting one demo and judging what it says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::boards::{Board, limit};
use crate::cargo::{self, Program};
use crate::defmt::{self, Console};
use crate::qemu::{self, Boot};
use crate::{process, scull, tools, verdict};

/// The demo that stores a file in four drivers and reads it back.
pub const SCULL: &str = "scull";
/// The same with drivers in C.
pub const SCULL_C: &str = "scull-c";

/// What the run command was given.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it boots.
    pub board: &'static Board,
    /// Which program.
    pub demo: String,
    /// The file for the guest.
    pub file: Option<PathBuf>,
    /// The machine, when not the board's default.
    pub machine: Option<String>,
    /// CPUs, when not one.
    pub cpus: Option<u32>,
    /// RAM, when not the board's default.
    pub ram: Option<String>,
    /// Build with defmt and decode its frames.
    pub defmt: bool,
    /// Seconds before it is stopped.
    pub seconds: u64,
    /// More words for the guest.
    pub args: Vec<String>,
}

impl Options {
    /// A demo on a board, with nothing special.
    pub fn plain(board: &'static Board, demo: &str) -> Options {
        Options {
            board,
            demo: demo.to_owned(),
            file: None,
            machine: None,
            cpus: None,
            ram: None,
            defmt: false,
            seconds: 120,
            args: Vec::new(),
        }
    }
}

/// Builds and boots a demo, and fails when the demo did.
pub fn run(options: &Options) -> Result<()> {
    let board = options.board;
    tools::provide(&[board])?;
    let program = cargo::demo(board, &options.demo, options.defmt, &[])?;
    let mut boot = Boot {
        args: options.args.clone(),
        file: options.file.clone(),
        machine: options.machine.clone(),
        cpu: None,
        cpus: options.cpus,
        ram: options.ram.clone(),
        // A demo says how long things took, in instructions; that takes a counter, which takes a single thread.
        icount: board.counts_instructions() && options.cpus.is_none_or(|cpus| cpus == 1),
        defmt: options.defmt,
    };
    if ![SCULL, SCULL_C].contains(&options.demo.as_str()) {
        boot_and_judge(board, &program, &boot, options.seconds)?;
        return Ok(());
    }
    // A file that every machine has, and of which no two are alike.
    let path = boot.file.get_or_insert_with(|| program.path.clone()).clone();
    let file = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = boot_and_judge(board, &program, &boot, options.seconds)?;
    let told = scull::check(&lines, &file).with_context(|| format!("{} on {}", options.demo, board.name))?;
    println!("\n{told}");
    Ok(())
}

/// Boots, prints what the guest says as it comes, and returns it when the guest ended well.
fn boot_and_judge(board: &Board, program: &Program, boot: &Boot, seconds: u64) -> Result<Vec<String>> {
    let (exit, lines) = boot_echoing(board, &program.path, boot, seconds, true)?;
    match verdict::complaint(exit, board.codes, !board.is_host()) {
        None => Ok(lines),
        Some(complaint) => bail!("{} on {} ended with {complaint}", program.name, board.name),
    }
}

/// Boots a program and returns how it ended and what it said.
pub fn boot_echoing(
    board: &Board,
    program: &Path,
    boot: &Boot,
    seconds: u64,
    echo: bool,
) -> Result<(process::Exit, Vec<String>)> {
    let table = if boot.defmt {
        let elf = std::fs::read(program)?;
        Some(defmt::table(&elf).with_context(|| format!("the program {}", program.display()))?)
    } else {
        None
    };
    let mut command = qemu::command(board, program, boot)?;
    eprintln!("    {}", process::shown(&command));
    let mut console = Console::new(table.as_ref(), echo);
    let exit = process::run(&mut command, limit(seconds), |stream, bytes| console.take(stream, bytes))?;
    Ok((exit, console.finish()))
}
