//! The libraries' own tests: unit, property and documentation tests, on the host.

use std::process::Command;

use anyhow::Result;

use crate::boards::limit;
use crate::cargo;
use crate::defmt::Console;
use crate::process::{self, Exit, Stream};
use crate::suite::Options;
use crate::tools;
use crate::totals::Totals;
use crate::workspace::Workspace;

/// Seconds for building and running everything once.
const SECONDS: u64 = 1800;

/// The package whose tests are run again with features of its own.
const TESTKIT: &str = "rtmm-testkit";
/// The feature whose tests run by themselves: what they are about takes memory that the others count.
const DEBUG: &str = "debug";

/// Runs the tests of every library, and again with page tables those that can have them.
pub fn run(options: &Options) -> Result<Totals> {
    let workspace = Workspace::read()?;
    let libraries = workspace.host_libraries();
    let all = libraries.iter().map(|package| package.name.as_str()).collect();
    let both =
        libraries.iter().filter(|package| package.has_feature("mmu")).map(|package| package.name.as_str()).collect();
    let mut totals = one("libraries", &[], all, options)?;
    totals.add(one("libraries with page tables", &["--features", "mmu"], both, options)?);
    let mut debug = vec!["--features", DEBUG];
    debug.extend(workspace.package(TESTKIT)?.tests_that_need(DEBUG).into_iter().flat_map(|test| ["--test", test]));
    totals.add(one("help for debugging", &debug, vec![TESTKIT], options)?);
    // What is done in another way there.
    let small =
        ["--features", "small", "--test", "caches", "--test", "model", "--test", "reclaim", "--test", "waiting"];
    totals.add(one("the libraries with less code", &small, vec![TESTKIT], options)?);
    Ok(totals)
}

/// Runs those without an architecture of their own as a program of 32 bits, which Linux on x86-64 runs as well.
pub fn on_32_bits() -> Result<Totals> {
    // It brings its own C library and start-up code: the machine needs none of 32 bits.
    const TARGET: &str = "i686-unknown-linux-musl";
    tools::provide_targets(&[TARGET].into())?;
    let packages = vec!["mm-core", "backend-nommu", TESTKIT];
    one("libraries on 32 bits", &["--target", TARGET, "--lib", "--tests"], packages, &Options::default())
}

fn one(what: &str, features: &[&str], packages: Vec<&str>, options: &Options) -> Result<Totals> {
    let mut command = cargo::cargo();
    command.args(["test", "--no-fail-fast"]).args(features);
    for package in packages {
        command.args(["--package", package]);
    }
    arguments(&mut command, options);
    let typed = cargo::shown(&command);
    println!("\n== {what}\n    {typed}");
    let mut console = Console::new(None, true);
    let exit = process::run(&mut command, limit(SECONDS), |stream, bytes| match stream {
        Stream::Out => console.take(stream, bytes),
        // Cargo's progress; passed on as it is, for it has colours and no lines to read.
        Stream::Err => drop(std::io::Write::write_all(&mut std::io::stderr(), bytes)),
    })?;
    let mut totals = Totals::default();
    for line in console.finish() {
        if let Some(counts) = counts(&line) {
            totals.add(counts);
        }
    }
    if exit != Exit::Code(0) {
        let failed = totals.failed;
        totals.fail(format!("{what} ({exit})"), typed);
        // What libtest counted is the figure; only a build or a run that broke without one counts by itself.
        totals.failed = failed.max(1);
    }
    Ok(totals)
}

/// The filters, in libtest's words.
fn arguments(command: &mut Command, options: &Options) {
    command.arg("--").args(&options.filter);
    for (wanted, word) in [(options.exact, "--exact"), (options.list, "--list"), (options.ignored, "--ignored")] {
        if wanted {
            command.arg(word);
        }
    }
    for skip in &options.skip {
        command.args(["--skip", skip]);
    }
    if let Some(jobs) = options.jobs {
        command.arg(format!("--test-threads={jobs}"));
    }
}

/// The counts of libtest's closing line.
fn counts(line: &str) -> Option<Totals> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |unit: &str| -> Option<u64> {
        let part = rest.split([';', '.']).map(str::trim).find(|part| part.ends_with(unit))?;
        part.strip_suffix(unit)?.trim().parse().ok()
    };
    Some(Totals {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
        ..Totals::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without its feature a test is not built, and nobody hears of it.
    #[test]
    fn every_test_that_needs_a_feature_is_run() {
        let workspace = Workspace::read().unwrap();
        let libraries = workspace.host_libraries();
        for package in &libraries {
            // Of one in `both` all tests are built with page tables.
            let runs = if package.name == TESTKIT { DEBUG } else { "mmu" };
            let unmet: Vec<_> = package.features_tests_need().into_iter().filter(|feature| *feature != runs).collect();
            assert!(unmet.is_empty(), "no run of {} has {unmet:?}", package.name);
        }
        let tests = workspace.package(TESTKIT).unwrap().tests_that_need(DEBUG);
        assert!(tests.contains(&"objects") && tests.len() >= 4, "{tests:?}");
    }

    #[test]
    fn libtests_closing_lines_are_counted() {
        let line = "test result: ok. 34 passed; 0 failed; 2 ignored; 0 measured; 5 filtered out; finished in 0.31s";
        assert_eq!(counts(line).unwrap().to_string(), "34 passed, 0 failed, 2 skipped");
        let line = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s";
        assert_eq!(counts(line).unwrap().to_string(), "3 passed, 1 failed");
        assert_eq!(counts("test addr::tests::ok ... ok"), None);
    }
}
