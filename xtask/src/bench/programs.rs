//! Building and running the programs that measure.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::lines::{self, Told};
use crate::boards::{Board, Ram, limit};
use crate::cargo::{self, cargo as cargo_command};
use crate::defmt::Console;
use crate::process::{self, Stream};
use crate::qemu::Boot;
use crate::{run, verdict};

/// The package of boards' programs.
const PACKAGE: &str = "bench-board";
/// The package of the host's program.
const HOST: &str = "bench-host";
/// A board's own figures.
pub const ROWS: &str = "rows";
/// All allocators on the workloads; also the feature that it needs.
pub const COMPARE: &str = "compare";
/// How long several CPUs take at once.
pub const STORM: &str = "storm";
/// What a debugging feature costs; also the feature that it needs.
pub const PRICED: &str = "priced";
/// The features that are priced, each by itself.
pub const FEATURES: [&str; 7] = [
    "fault-injection",
    "init-on-alloc",
    "kmalloc-debug",
    "page-owner",
    "page-poison",
    "debug-pagealloc",
    "trace-hooks",
];
/// Seconds for one program: counting instructions keeps the emulator to one thread and a slow clock.
const SECONDS: u64 = 600;
/// Seconds for the host's: stepping is slow.
const HOST_SECONDS: u64 = 3600;
/// RAM for 64-bit boards, so that there is a GiB of frames to fragment.
const ROOMY: &str = "2G";

/// Adds the arguments that select one of the boards' programs.
pub fn select(command: &mut Command, board: &Board, name: &str, priced: &[&str]) {
    let mut features = board.features(false);
    if [COMPARE, PRICED].contains(&name) {
        features = format!("{features},{name}");
    }
    for feature in priced {
        features = format!("{features},{feature}");
    }
    command.args(["--package", PACKAGE, "--bin", name, "--no-default-features", "--features", &features]);
    if let Some(target) = board.target {
        command.args(["--target", target]);
    }
}

/// Builds and boots one of the boards' programs.
pub fn on_board(board: &'static Board, name: &str, priced: &[&str]) -> Result<Told> {
    let mut command = cargo_command();
    command.args(["build", "--release"]);
    select(&mut command, board, name, priced);
    let built = cargo::build(&mut command, &["bin"])?;
    let program = built.into_iter().find(|program| program.name == name).context("cargo built no such program")?;
    let is_roomy = board.target.is_some_and(|target| target.starts_with("x86_64") || target.starts_with("aarch64"));
    let ram = board.qemu.filter(|qemu| is_roomy && matches!(qemu.ram, Ram::Default(_))).map(|_| ROOMY.to_owned());
    // A storm's CPUs are threads of this machine, which counting would make take turns on one.
    let boot = Boot { icount: board.counts_instructions() && name != STORM, ram, ..Boot::default() };
    let (exit, said) = run::boot_echoing(board, &program.path, &boot, SECONDS, [ROWS, STORM].contains(&name))?;
    if let Some(complaint) = verdict::complaint(exit, board.codes, !board.is_host()) {
        bail!("it ended with {complaint}\n{}", said.join("\n"));
    }
    lines::read(&said, board.name)
}

/// Times four CPUs against one. Each row says how many processors of this machine they had, which bounds it.
pub fn storm(board: &'static Board) -> Result<Told> {
    let mut told = on_board(board, STORM, &[])?;
    let processors = std::thread::available_parallelism()?.get();
    for row in &mut told.rows {
        row.unit = format!("{}; {}", row.unit, bound(processors));
    }
    Ok(told)
}

/// What bounds four CPUs that are threads of this machine.
fn bound(processors: usize) -> String {
    format!("{} at best, on {processors} processors of the host", 400 / processors.clamp(1, 4))
}

/// Builds and runs the host's program, with the peers that want a C++ compiler where there is one.
pub fn on_host() -> Result<Told> {
    let path = match build_host(&["--features", "compiled"]) {
        Ok(path) => path,
        Err(error) => {
            eprintln!("    {error:#}; going on without mimalloc and snmalloc");
            build_host(&[])?
        }
    };
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    let mut console = Console::new(None, false);
    let exit = process::run(&mut command, limit(HOST_SECONDS), |stream, bytes| match stream {
        Stream::Out => console.take(stream, bytes),
        // Its progress.
        Stream::Err => drop(std::io::Write::write_all(&mut std::io::stderr(), bytes)),
    })?;
    let said = console.finish();
    if exit != process::Exit::Code(0) {
        bail!("it ended with {exit}");
    }
    lines::read(&said, "host")
}

fn build_host(features: &[&str]) -> Result<std::path::PathBuf> {
    let mut command = cargo_command();
    command.args(["build", "--release", "--package", HOST]).args(features);
    let built = cargo::build(&mut command, &["bin"])?;
    Ok(built.into_iter().find(|program| program.name == HOST).context("cargo built no such program")?.path)
}
