//! Everything a change must pass, in one command.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::boards::{BOARDS, Board};
use crate::cargo::{self, cargo as cargo_command};
use crate::suite::Options;
use crate::totals::Totals;
use crate::workspace::{DEMO_PACKAGES, EXAMPLES_C, EXAMPLES_CRATES, Workspace};
use crate::{bench, c, demos, elf, fuzz, libraries, package, process, run, size, suite, tools};

/// The two backends; a program holds the code of one.
const BACKENDS: [&str; 2] = ["backend_nommu", "backend_mmu_x86"];
/// The demo whose symbols are read.
const SMALL_DEMO: &str = "hello";
/// Models of several CPUs that are run under a scheduler, and how many interleavings of each `--long` tries.
const MODELS: [(&str, &str); 2] = [("shootdown_model", "100000"), ("cpus_model", "5000")];
/// Targets of processors without compare-and-swap, for which nothing but a critical section guards.
const WITHOUT_SWAP: [&str; 2] = ["thumbv6m-none-eabi", "riscv32imc-unknown-none-elf"];

/// Results so far.
#[derive(Default)]
pub struct Round {
    /// Of the parts that ran.
    pub totals: Totals,
}

/// Runs every check; `long` adds the slow ones.
pub fn ci(long: bool) -> Result<Totals> {
    let workspace = Workspace::read()?;
    let mut round = Round::default();
    let boards = tools::provide_each(BOARDS.iter().collect(), &mut round.totals);

    round.command("format", cargo_command().args(["fmt", "--all", "--check"]));
    for (what, mut command) in clippy(&workspace).into_iter().chain(docs(&workspace)) {
        round.command(&what, &mut command);
    }
    for (what, mut command) in without_swap(&workspace)? {
        round.command(&what, &mut command);
    }
    package::parts(&mut round, &workspace);
    let mut command = cargo_command();
    command.args(["test", "--quiet", "--lib"]).args(bench::HOST_PACKAGES.iter().flat_map(|name| ["--package", name]));
    round.command("tests of the bench", &mut command);
    round.part("libraries", "cargo xtask test --libraries", || libraries::run(&Options::default()));
    round.part("the C interface", "cargo xtask c test", c::programs::test);
    for board in &boards {
        round.suites(board, &Options::default());
    }
    round.part("sizes", "cargo xtask size", || size::size(None, None).map(|()| Totals::one()));
    for board in boards.iter().filter(|board| board.is_whole()) {
        round.part(&format!("symbols of {}", board.name), "cargo xtask ci", || symbols(board));
    }
    for board in boards.iter().filter(|board| board.is_whole()) {
        for machine in other_machines(board) {
            round.demo(run::Options {
                machine: Some((*machine).to_owned()),
                ..run::Options::plain(board, demos::SCULL)
            });
        }
    }
    if long {
        for board in boards.iter().filter(|board| !board.is_host() && board.is_whole()) {
            round.suites(board, &Options { defmt: true, ..Options::default() });
            for machine in other_machines(board) {
                round.suites(board, &Options { machine: Some((*machine).to_owned()), ..Options::default() });
            }
            round.demo(run::Options { defmt: true, ..run::Options::plain(board, demos::SCULL) });
        }
        round.part("bench", "cargo xtask bench", || bench::check().map(|()| Totals::one()));
        let long_tests = ["test", "--release", "--package", "mm-core", "--lib", "--", "--ignored"];
        round.command("long tests", cargo_command().args(long_tests));
        for (model, schedules) in MODELS {
            let mut command = cargo_command();
            command.args(["test", "--release", "--package", "rtmm-testkit", "--test", model]);
            round.command(&format!("interleavings of {model}"), command.env("SHUTTLE_SCHEDULES", schedules));
        }
        round.part("libraries on 32 bits", "cargo xtask ci --long", libraries::on_32_bits);
        round.part("fuzzers", "cargo xtask fuzz", || fuzz::fuzz(None, fuzz::SECONDS));
        miri(&mut round);
    }
    Ok(round.totals)
}

impl Round {
    /// Runs one part and counts it; an error is one failure.
    pub fn part(&mut self, what: &str, again: &str, work: impl FnOnce() -> Result<Totals>) {
        println!("\n== {what}");
        let started = Instant::now();
        match work() {
            Ok(totals) => {
                println!("== {what}: {totals} ({:.0} s)", started.elapsed().as_secs_f64());
                self.totals.add(totals);
            }
            Err(error) => {
                println!("== {what}: FAILED ({error:#})");
                self.totals.fail(what, again);
            }
        }
    }

    /// Runs a command as one part.
    pub fn command(&mut self, what: &str, command: &mut Command) {
        let typed = cargo::shown(command);
        self.part(what, &typed, || {
            println!("    {typed}");
            let status = command.status()?;
            ensure!(status.success(), "it ended with {}", process::Exit::from(status));
            Ok(Totals::one())
        });
    }

    fn suites(&mut self, board: &'static Board, options: &Options) {
        let mut again = format!("cargo xtask test --board {}", board.name);
        if let Some(machine) = &options.machine {
            again.push_str(&format!(" --machine {machine}"));
        }
        if options.defmt {
            again.push_str(" --defmt");
        }
        for options in std::iter::once(options.clone()).chain(options.again(board)) {
            self.part(&format!("suites on {}", options.place(board)), &again, || suite::run(board, &options));
        }
    }

    fn demo(&mut self, options: run::Options) {
        let mut what = format!("{} on {}", options.demo, options.board.name);
        let mut again = format!("cargo xtask run --board {} --demo {}", options.board.name, options.demo);
        if let Some(machine) = &options.machine {
            what.push_str(&format!(" ({machine})"));
            again.push_str(&format!(" --machine {machine}"));
        }
        if options.defmt {
            what.push_str(" with defmt");
            again.push_str(" --defmt");
        }
        self.part(&what, &again, || run::run(&options).map(|()| Totals::one()));
    }
}

/// The machines of a board beside its default.
fn other_machines(board: &Board) -> &'static [&'static str] {
    board.qemu.map_or(&[], |qemu| &qemu.machines[1..])
}

/// Clippy over everything that is built anywhere, each call with what it is for.
fn clippy(workspace: &Workspace) -> Vec<(String, Command)> {
    let mut commands = Vec::new();
    for mmu in [false, true] {
        let mut command = cargo_command();
        command.args(["clippy", "--all-targets"]);
        host_packages(&mut command, workspace, mmu);
        commands.push((format!("clippy of the libraries{}", with(mmu, "page tables")), command));
    }
    for board in BOARDS {
        for defmt in [false, true] {
            let place = format!("{}{}", board.name, with(defmt, "defmt"));
            let mut command = cargo_command();
            command.args(["clippy", "--package", "rtmm-tests", "--lib", "--tests"]);
            if board.is_whole() {
                command.args(["--package", EXAMPLES_C]);
            }
            cargo::for_board(&mut command, board, defmt);
            commands.push((format!("clippy of the suites for {place}"), command));
            if board.is_host() || !board.is_whole() {
                continue;
            }
            // By itself: what it asks of `allocator-api2` would have every program bring an allocator.
            let (apart, together): (Vec<&str>, Vec<&str>) =
                DEMO_PACKAGES.iter().partition(|package| **package == EXAMPLES_CRATES);
            let own = format!("board-{}", board.family);
            let examples = [("the board and the examples", [together, vec![&own]].concat()), ("the crates", apart)];
            for (what, packages) in examples {
                let mut command = cargo_command();
                // A library's own tests need std's test crate, which a bare target has not.
                command.args(["clippy", "--lib", "--bins", "--examples"]);
                command.args(packages.iter().flat_map(|package| ["--package", package]));
                cargo::for_board(&mut command, board, defmt);
                commands.push((format!("clippy of {what} for {place}"), command));
            }
        }
    }
    for board in BOARDS.iter().filter(|board| board.is_measured()) {
        let mut command = cargo_command();
        bench::clippy(&mut command, board);
        commands.push((format!("clippy of the bench for {}", board.name), command));
    }
    let mut command = cargo_command();
    command.args(["clippy", "--all-targets"]).args(bench::HOST_PACKAGES.iter().flat_map(|name| ["--package", name]));
    commands.push(("clippy of the bench for this machine".to_owned(), command));
    let mut command = cargo_command();
    command.args([
        "clippy",
        "--package",
        size::PACKAGE,
        "--features",
        &[size::SETUP, size::SMALL].join(","),
        "--bins",
        "--target",
        size::TARGET,
    ]);
    commands.push(("clippy of the smallest programs".to_owned(), command));
    let mut command = cargo_command();
    command.args(["clippy", "--release", "--package", c::library::PACKAGE]);
    commands.push(("clippy of the C library".to_owned(), command));
    for (_, command) in &mut commands {
        command.args(["--", "-D", "warnings"]);
    }
    commands
}

/// Documentation of everything, a warning being an error.
fn docs(workspace: &Workspace) -> Vec<(String, Command)> {
    let mut commands = Vec::new();
    for mmu in [false, true] {
        let mut command = cargo_command();
        command.args(["doc", "--no-deps"]);
        host_packages(&mut command, workspace, mmu);
        commands.push((format!("documentation of the libraries{}", with(mmu, "page tables")), command));
    }
    for board in BOARDS.iter().filter(|board| !board.is_host() && board.is_whole()) {
        let mut command = cargo_command();
        command.args(["doc", "--no-deps", "--package", &format!("board-{}", board.family)]);
        command.args(["--target", board.target.unwrap_or_default()]);
        commands.push((format!("documentation of {}", board.name), command));
    }
    for (_, command) in &mut commands {
        command.env("RUSTDOCFLAGS", "-Dwarnings");
    }
    commands
}

/// The library for processors without compare-and-swap, with all it has but page tables: once for speed, once `small`.
///
/// The methods that such a processor lacks are missing from its atomic types, so a use of one does not compile.
fn without_swap(workspace: &Workspace) -> Result<Vec<(String, Command)>> {
    const SMALL: &str = "small";
    let all: Vec<&str> = workspace.package("rtmm")?.features().filter(|feature| *feature != "mmu").collect();
    let fast: Vec<&str> = all.iter().copied().filter(|feature| *feature != SMALL).collect();
    let mut commands = Vec::new();
    for target in WITHOUT_SWAP {
        for (features, less) in [(&fast, ""), (&all, ", with less code")] {
            let mut command = cargo_command();
            command.args(["build", "--package", "rtmm", "--target", target, "--features", &features.join(",")]);
            commands.push((format!("the library for {target}{less}"), command));
        }
    }
    Ok(commands)
}

/// An addition to a name.
fn with(present: bool, what: &str) -> String {
    if present { format!(" with {what}") } else { String::new() }
}

/// Selects the host's packages, or those that have page tables, with them.
fn host_packages(command: &mut Command, workspace: &Workspace, mmu: bool) {
    for package in workspace.host_libraries() {
        if !mmu || package.has_feature("mmu") {
            command.args(["--package", &package.name]);
        }
    }
    if mmu {
        command.args(["--features", "mmu"]);
    }
}

/// A build holds the code of its own backend and none of the other's.
fn symbols(board: &'static Board) -> Result<Totals> {
    let program = cargo::demo(board, SMALL_DEMO, false, &[])?;
    let elf = std::fs::read(&program.path)?;
    let found = elf::symbols_naming(&elf, &BACKENDS)?;
    let (own, other) =
        if board.extra.contains(&"mmu") { (BACKENDS[1], BACKENDS[0]) } else { (BACKENDS[0], BACKENDS[1]) };
    ensure!(found[other].is_empty(), "it holds {} symbols of {other}, such as {}", found[other].len(), found[other][0]);
    if found[own].is_empty() {
        // All of it may have been inlined; then the debug information has to name it, or the check proves nothing.
        let needle = own.as_bytes();
        ensure!(elf.windows(needle.len()).any(|window| window == needle), "it holds nothing of {own} either");
    }
    println!("{}: {} symbols of {own}, none of {other}", program.path.display(), found[own].len());
    Ok(Totals::one())
}

/// The portable parts under Miri, strict about where pointers come from.
fn miri(round: &mut Round) {
    const PACKAGES: [&str; 4] = ["mm-core", "backend-nommu", "backend-mmu-x86", "rtmm-testkit"];
    let mut command = cargo::of_toolchain("nightly");
    command.args(["miri", "test"]).env("MIRIFLAGS", "-Zmiri-strict-provenance");
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    let typed = cargo::shown(&command);
    if !cargo::of_toolchain("nightly").args(["miri", "--version"]).output().is_ok_and(|output| output.status.success())
    {
        round.part("Miri", &typed, || {
            bail!("not installed; type: rustup toolchain install nightly --component miri,rust-src --no-self-update")
        });
        return;
    }
    round.command("Miri", &mut command);
    // Words of 32 bits, and the other order of bytes.
    for target in ["i686-unknown-linux-gnu", "s390x-unknown-linux-gnu"] {
        let mut command = cargo::of_toolchain("nightly");
        command.args(["miri", "test", "--package", "mm-core", "--lib", "--target", target]);
        command.env("MIRIFLAGS", "-Zmiri-strict-provenance");
        round.command(&format!("Miri for {target}"), &mut command);
    }
}
