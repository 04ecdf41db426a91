//! Booting one demo and judging what it says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::boards::{Board, limit};
use crate::cargo::{self, Program};
use crate::defmt::{self, Console};
use crate::demos::{Demo, Input};
use crate::qemu::{self, Boot};
use crate::{process, screen, tools, verdict};

/// Lines of a demo that failed unseen: its last ones, where the reason stands.
const SHOWN_LINES: usize = 40;

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

/// Builds and boots a demo, and fails when the demo did. One that is not for the board says so.
pub fn run(options: &Options) -> Result<()> {
    let board = options.board;
    if let Some(reason) = Demo::named(&options.demo).and_then(|demo| demo.excuse(board)) {
        println!("{} does not run on {}: {reason}", options.demo, board.name);
        return Ok(());
    }
    tools::provide(&[board])?;
    let program = cargo::demo(board, &options.demo, options.defmt, &[])?;
    let told = boot(options, &program, true)?;
    if !told.is_empty() {
        println!("\n{told}");
    }
    Ok(())
}

/// Boots a built demo and judges it; returns the last line of a good run. With `echo` it prints what the guest says as
/// it comes, without it the end of that is part of an error.
pub fn boot(options: &Options, program: &Program, echo: bool) -> Result<String> {
    let board = options.board;
    let demo = Demo::named(&options.demo);
    let file = options.file.clone().or_else(|| demo?.file(&program.path));
    let screen = demo.filter(|demo| demo.input == Input::Screen).and_then(|_| board.qemu?.display);
    let boot = Boot {
        args: options.args.clone(),
        file: file.clone(),
        machine: options.machine.clone().or_else(|| Some(screen?.machine.to_owned())),
        screen: screen.map(|display| (display.device, screen::socket(board.name))),
        cpus: options.cpus,
        ram: options.ram.clone(),
        // A demo says how long things took, in instructions; that takes a counter, which takes a single thread.
        icount: board.counts_instructions() && options.cpus.is_none_or(|cpus| cpus == 1),
        defmt: options.defmt,
        ..Boot::default()
    };
    let (exit, lines) = boot_echoing(board, &program.path, &boot, options.seconds, echo)?;
    let picture = screen.map(|_| screen::file(board.name));
    let complaint = match exit {
        // Once the screen was looked at, the machine was switched off.
        process::Exit::Code(0) if picture.as_ref().is_some_and(|picture| picture.is_file()) => None,
        exit => verdict::complaint(exit, board.codes, !board.is_host()),
    };
    let file = picture.or(file);
    let judged = match complaint {
        Some(complaint) => Err(anyhow::anyhow!("it ended with {complaint}")),
        None => demo.map_or(Ok(String::new()), |demo| demo.judge(&lines, file.as_deref())),
    };
    judged.with_context(|| {
        let first = if echo { lines.len() } else { lines.len().saturating_sub(SHOWN_LINES) };
        format!("{}{} on {}", lines[first..].join("\n") + if echo { "" } else { "\n" }, options.demo, board.name)
    })
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
    if echo {
        eprintln!("    {}", process::shown(&command));
    }
    let mut console = Console::new(table.as_ref(), echo);
    let mut watch = boot.screen.as_ref().map(|(_, monitor)| screen::Watch::new(monitor, &screen::file(board.name)));
    let exit = process::run(&mut command, limit(seconds), |stream, bytes| {
        console.take(stream, bytes);
        if let Some(watch) = &mut watch {
            watch.look(console.said());
        }
    })?;
    let mut lines = console.finish();
    lines.extend(watch.and_then(|watch| watch.trouble()));
    Ok((exit, lines))
}
