//! Running the suites of `rtmm-tests` on a board, one boot per test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use defmt_decoder::Table;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::boards::{Again, Board, limit};
use crate::c::compilers;
use crate::cargo;
use crate::defmt::{self, Console};
use crate::demos::{DEMOS, Demo};
use crate::elf::{self, Case};
use crate::process;
use crate::qemu::{self, Boot};
use crate::run;
use crate::said;
use crate::spoil::{self, Memory};
use crate::totals::{Rerun, Totals};
use crate::verdict::judge;
use crate::workspace::{EXAMPLES_C, Package, Workspace};

/// The package of the suites in Rust.
const SUITES: &str = "rtmm-tests";
/// What the names of demos begin with, among those of tests.
const DEMO: &str = "demo::";
/// Seconds a test may take when it does not say, as in embedded-test.
const TEST_SECONDS: u64 = 60;
/// Lines of a failed test that are shown: its last ones, where the reason stands.
const SHOWN_LINES: usize = 60;

/// What the test command was given.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Part of the names to run.
    pub filter: Option<String>,
    /// The filter is the whole name.
    pub exact: bool,
    /// Parts of names not to run.
    pub skip: Vec<String>,
    /// List instead of running.
    pub list: bool,
    /// Run the tests marked as ignored, and only those.
    pub ignored: bool,
    /// Tests at a time.
    pub jobs: Option<usize>,
    /// Build with defmt and decode its frames.
    pub defmt: bool,
    /// The machine, when not the board's default.
    pub machine: Option<String>,
    /// RAM, when not the board's default.
    pub ram: Option<String>,
    /// QEMU's `-cpu`, when not the board's.
    pub cpu: Option<String>,
    /// Only the suites of these names.
    pub suites: Option<&'static [&'static str]>,
    /// More words for the guest.
    pub words: Vec<String>,
    /// Print what each test says.
    pub verbose: bool,
}

impl Options {
    /// The suite that the filter begins with, by its whole name.
    fn named(&self) -> Option<&str> {
        self.filter.as_ref()?.split_once("::").map(|(suite, _)| suite)
    }

    /// Whether nothing but demos can be meant.
    fn is_demo(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.starts_with(DEMO))
    }

    /// Whether a test of this name is to be run.
    fn chooses(&self, name: &str) -> bool {
        let wanted = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        self.filter.as_ref().is_none_or(wanted) && !self.skip.iter().any(|skip| name.contains(skip.as_str()))
    }

    /// These options for each further run that a board asks for, unless they choose the machine themselves.
    pub fn again(&self, board: &Board) -> Vec<Options> {
        let chosen = self.machine.is_some() || self.cpu.is_some() || self.ram.is_some();
        let again = board.qemu.map_or(&[][..], |qemu| qemu.again);
        let meant = |again: &&Again| !chosen && self.named().is_none_or(|suite| again.suites.contains(&suite));
        let options = |again: &Again| Options {
            machine: again.machine.map(str::to_owned),
            cpu: again.cpu.map(str::to_owned),
            ram: again.ram.map(str::to_owned),
            suites: Some(again.suites),
            words: again.word.map(str::to_owned).into_iter().collect(),
            ..self.clone()
        };
        again.iter().filter(meant).map(options).collect()
    }

    /// The board, and what is unlike its default about the machine, for headings.
    pub fn place(&self, board: &Board) -> String {
        let parts = [Some(board.name), self.machine.as_deref(), self.cpu.as_deref(), self.ram.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// A built suite and what is read from it.
struct Suite {
    name: String,
    path: PathBuf,
    table: Option<Table>,
    cases: Vec<Case>,
    /// Its tests need exact instruction counts.
    counted: bool,
    /// The tests that ask for memory that goes bad.
    spoiled: Vec<String>,
}

/// Builds the suites of a board and runs the tests the options choose.
pub fn run(board: &'static Board, options: &Options) -> Result<Totals> {
    let (suites, missing) = if options.is_demo() { (Vec::new(), None) } else { build(board, options)? };
    let workspace = Workspace::read()?;
    let package = workspace.package(SUITES)?;
    let failures = Arc::new(Mutex::new(Vec::new()));
    let mut trials = Vec::new();
    let wanted = |program: &cargo::Program| options.suites.is_none_or(|names| names.contains(&program.name.as_str()));
    for program in suites.into_iter().filter(wanted) {
        let suite = Arc::new(load(board, package, program, options.defmt)?);
        for case in &suite.cases {
            let name = format!("{}::{}", suite.name, case.name);
            let (suite, case, options, failures) = (suite.clone(), case.clone(), options.clone(), failures.clone());
            let (ignored, full) = (case.ignored, name.clone());
            let trial = move || {
                test(board, &suite, &case, &options).map_err(|reason| {
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(full);
                    Failed::from(reason)
                })
            };
            trials.push(Trial::test(name, trial).with_ignored_flag(ignored));
        }
    }
    if trials.is_empty() && !options.is_demo() {
        bail!("the suites of {} hold no test", board.name);
    }
    let mut unbuilt = None;
    if options.suites.is_none() {
        match demos(board, options, &failures) {
            Ok(more) => trials.extend(more),
            Err(error) => unbuilt = Some(error),
        }
    }
    let arguments = Arguments {
        filter: options.filter.clone(),
        exact: options.exact,
        skip: options.skip.clone(),
        list: options.list,
        ignored: options.ignored,
        test_threads: Some(options.jobs.unwrap_or_else(parallelism)),
        ..Arguments::default()
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut failures = std::mem::take(&mut *failures.lock().unwrap_or_else(PoisonError::into_inner));
    failures.sort();
    let reruns = failures
        .into_iter()
        .map(|name| Rerun { what: format!("{}: {name}", board.name), command: rerun(board, &name, options) });
    let mut totals = Totals {
        passed: conclusion.num_passed,
        failed: conclusion.num_failed,
        skipped: conclusion.num_ignored,
        reruns: reruns.collect(),
    };
    if let Some(error) = missing {
        eprintln!("error: the suites in C on {}: {error:#}", board.name);
        totals.fail(
            format!("the suites in C on {}", board.name),
            format!("cargo xtask test --board {} c_calls", board.name),
        );
    }
    if let Some(error) = unbuilt {
        eprintln!("error: the demos on {}: {error:#}", board.name);
        totals.fail(format!("the demos on {}", board.name), format!("cargo xtask test --board {} {DEMO}", board.name));
    }
    Ok(totals)
}

/// Builds the suites in Rust and in C, the error being why there are none in C.
fn build(board: &Board, options: &Options) -> Result<(Vec<cargo::Program>, Option<anyhow::Error>)> {
    // A filter that begins with a suite's whole name means no other.
    let named = options.named();
    let workspace = Workspace::read()?;
    for package in [SUITES, EXAMPLES_C] {
        let runs = |suite: &&str| {
            (board.is_whole() || board.suites.contains(suite))
                && workspace.package(package).is_ok_and(|own| own.has_suite(suite))
        };
        let Some(suite) = named.filter(runs) else { continue };
        if package == EXAMPLES_C {
            compilers::provide(board)?;
        }
        return Ok((cargo::suites(board, package, Some(suite), options.defmt)?, None));
    }
    let mut suites = cargo::suites(board, SUITES, None, options.defmt)?;
    if suites.is_empty() {
        bail!("{SUITES} has no suite for {}", board.name);
    }
    if !board.is_whole() {
        return Ok((suites, None));
    }
    // Without a C compiler for the board the others are run all the same.
    let in_c = compilers::provide(board).and_then(|()| cargo::suites(board, EXAMPLES_C, None, options.defmt));
    let missing = in_c.map(|more| suites.extend(more)).err();
    Ok((suites, missing))
}

/// The demos that the options choose and that run on the board, as tests called `demo::<name>`. Names the others.
fn demos(board: &'static Board, options: &Options, failures: &Arc<Mutex<Vec<String>>>) -> Result<Vec<Trial>> {
    let chosen =
        |demo: &&Demo| board.is_whole() && options.chooses(&format!("{DEMO}{}", demo.name)) && !options.ignored;
    let (excused, chosen): (Vec<&Demo>, Vec<&Demo>) =
        DEMOS.iter().filter(chosen).partition(|demo| demo.excuse(board).is_some());
    for demo in excused {
        println!("{} does not run on {}: {}", demo.name, board.name, demo.excuse(board).unwrap_or_default());
    }
    let names: Vec<&str> = chosen.iter().map(|demo| demo.name).collect();
    let programs = match options.list {
        true => Vec::new(),
        false => cargo::demos(board, &names, cargo::SUITE, options.defmt, &[])?.into_iter().map(Some).collect(),
    };
    let trial = |(name, program): (&str, Option<cargo::Program>)| {
        let full = format!("{DEMO}{name}");
        let (machine, ram) = (options.machine.clone(), options.ram.clone());
        let run = run::Options { machine, ram, defmt: options.defmt, ..run::Options::plain(board, name) };
        let (failures, failed) = (failures.clone(), full.clone());
        Trial::test(full, move || {
            let Some(program) = program else { return Ok(()) };
            let again = rerun(board, &failed, &Options { defmt: run.defmt, ..Options::default() });
            run::boot(&run, &program, false).map(drop).map_err(|error| {
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failed);
                Failed::from(format!("{error:#}\nagain:  {again}"))
            })
        })
    };
    Ok(names.into_iter().zip(programs.into_iter().chain(std::iter::repeat(None))).map(trial).collect())
}

/// One guest per processor: each is one busy thread.
fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Reads a suite's tests from its ELF file, or on the host asks the suite.
fn load(board: &Board, package: &Package, program: cargo::Program, defmt: bool) -> Result<Suite> {
    let read = || -> Result<(Option<Table>, Vec<Case>)> {
        let elf = std::fs::read(&program.path)?;
        let table = if defmt { Some(defmt::table(&elf)?) } else { None };
        let cases = if board.is_host() { listed(&program.path)? } else { elf::cases(&elf)? };
        Ok((table, cases))
    };
    let (table, cases) = read().with_context(|| format!("the suite {}", program.path.display()))?;
    let counted = package.counted_suites().contains(&program.name);
    let spoiled = package.spoiled_tests().to_vec();
    Ok(Suite { name: program.name, path: program.path, table, cases, counted, spoiled })
}

/// The list a suite of the host prints.
fn listed(path: &std::path::Path) -> Result<Vec<Case>> {
    let mut command = Command::new(path);
    command.arg("list");
    let mut output = Vec::new();
    let exit = process::run(&mut command, limit(TEST_SECONDS), |stream, bytes| {
        if stream == process::Stream::Out {
            output.extend_from_slice(bytes);
        }
    })?;
    match exit {
        process::Exit::Code(0) => elf::cases_of_list(&String::from_utf8_lossy(&output)),
        exit => bail!("listing its tests ended with {exit}"),
    }
}

/// Boots once and judges one test; the error is what is printed about it.
fn test(board: &'static Board, suite: &Suite, case: &Case, options: &Options) -> Result<(), String> {
    let mut args = match case.address {
        Some(address) => vec!["run_addr".to_owned(), address.to_string()],
        None => vec!["run".to_owned(), case.name.clone()],
    };
    args.extend(options.words.iter().cloned());
    let spoiled = suite.spoiled.contains(&format!("{}::{}", suite.name, case.name));
    let base = board.qemu.and_then(|qemu| qemu.ram_base).filter(|_| spoiled);
    let mut memory = base.map(Memory::new).transpose().map_err(|error| format!("{error:#}"))?;
    let ram_file = memory.as_ref().map(|memory| memory.path().to_owned());
    args.extend(ram_file.is_some().then(|| spoil::WORD.to_owned()));
    let (machine, cpu, ram) = (options.machine.clone(), options.cpu.clone(), options.ram.clone());
    let (defmt, icount) = (options.defmt, suite.counted);
    let boot = Boot { args, machine, cpu, ram, ram_file, defmt, icount, ..Boot::default() };
    let mut command = qemu::command(board, &suite.path, &boot).map_err(|error| format!("{error:#}"))?;
    let mut console = Console::new(suite.table.as_ref(), false);
    let allowed = limit(case.timeout.unwrap_or(TEST_SECONDS));
    let mut spoiling = Ok(());
    let exit = process::run(&mut command, allowed, |stream, bytes| {
        console.take(stream, bytes);
        if let Some(memory) = memory.as_mut().filter(|_| spoiling.is_ok()) {
            spoiling = memory.look(console.said());
        }
    });
    let exit = exit.and_then(|exit| spoiling.map(|()| exit));
    let lines = console.finish();
    let judged = match exit {
        Ok(exit) => judge(case, exit, &lines, board.codes, !board.is_host()),
        Err(error) => Err(format!("{error:#}")),
    };
    if options.verbose {
        println!("--- {}::{} on {}\n{}", suite.name, case.name, board.name, lines.join("\n"));
    } else if judged.is_ok() {
        said::counts(&lines).for_each(|line| println!("    {line}"));
    }
    judged.map_err(|reason| {
        let first = lines.len().saturating_sub(SHOWN_LINES);
        let name = format!("{}::{}", suite.name, case.name);
        let again = rerun(board, &name, options);
        format!("{reason}\n{}\nbooted: {}\nagain:  {again}", lines[first..].join("\n"), process::shown(&command))
    })
}

/// The command that runs one test again.
fn rerun(board: &Board, name: &str, options: &Options) -> String {
    let mut line = format!("cargo xtask test --board {}", board.name);
    if let Some(machine) = &options.machine {
        line.push_str(&format!(" --machine {machine}"));
    }
    if let Some(cpu) = &options.cpu {
        line.push_str(&format!(" --cpu {cpu}"));
    }
    if let Some(ram) = &options.ram {
        line.push_str(&format!(" --mem {ram}"));
    }
    for word in &options.words {
        line.push_str(&format!(" --word {word}"));
    }
    if options.defmt {
        line.push_str(" --defmt");
    }
    if options.ignored {
        line.push_str(" --ignored");
    }
    line.push_str(&format!(" --exact {name}"));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_run_one_test_again_keeps_what_matters() {
        let board = Board::named("qemu-x86_64").unwrap();
        let options = Options { defmt: true, machine: Some("q35".into()), jobs: Some(1), ..Options::default() };
        let expected = "cargo xtask test --board qemu-x86_64 --machine q35 --defmt --exact slab::tests::a";
        assert_eq!(rerun(board, "slab::tests::a", &options), expected);
        let again = Options::default().again(board);
        let expected = "cargo xtask test --board qemu-x86_64 --mem 5G --word past-4g --exact far_frames::tests::a";
        assert_eq!(rerun(board, "far_frames::tests::a", &again[0]), expected);
        let places: Vec<_> = again.iter().map(|options| options.place(board)).collect();
        assert_eq!(places, ["qemu-x86_64 5G", "qemu-x86_64 q35", "qemu-x86_64 pc"]);
        let other = Options { filter: Some("c_calls::".into()), ..Options::default() };
        assert!(other.again(board).is_empty());
        assert!(again.iter().all(|options| options.again(board).is_empty()));
        assert!(Options::default().again(Board::named("host").unwrap()).is_empty());
        let board = Board::named("virt-rv32").unwrap();
        let expected = "cargo xtask test --board virt-rv32 --cpu rv32 --word locks-stay --exact guards::tests::a";
        assert_eq!(rerun(board, "guards::tests::a", &Options::default().again(board)[0]), expected);
    }
}
