//! Lists of operations out of random bytes, by libFuzzer with AddressSanitizer.

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::process::Exit;
use crate::totals::Totals;

/// The fuzzers of fuzz/.
pub const TARGETS: [&str; 4] = ["life_nommu", "life_mmu", "life_pae", "boot_map"];
/// How long `cargo xtask ci --long` runs each.
pub const SECONDS: u32 = 45;
/// What has to be there, and the line that brings it.
const WANTED: &str = "type: rustup toolchain install nightly --no-self-update && cargo install cargo-fuzz";
/// Longer inputs hold more operations than a life has.
const LONGEST: &str = "-max_len=600";

/// Runs one fuzzer, or each, for so many seconds. What it finds to cover more is kept in the build folder; what
/// goes wrong, in fuzz/artifacts.
///
/// # Errors
/// When there is no such fuzzer, or the nightly toolchain or cargo-fuzz is not there.
pub fn fuzz(only: Option<&str>, seconds: u32) -> Result<Totals> {
    let targets: Vec<&str> = TARGETS.into_iter().filter(|name| only.is_none_or(|only| only == *name)).collect();
    if targets.is_empty() {
        bail!("no such fuzzer; there are {}", TARGETS.join(", "));
    }
    let there = cargo::of_toolchain("nightly").args(["fuzz", "--version"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        bail!("cargo-fuzz or the nightly toolchain is not installed; {WANTED}");
    }
    let mut totals = Totals::default();
    for name in targets {
        let found = cargo::root().join("target/fuzz-corpus").join(name);
        std::fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        let mut command = cargo::of_toolchain("nightly");
        // Coverage is counted per crate, which link-time optimisation undoes.
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        command.args(["fuzz", "run", "--features", "libfuzzer", name]).arg(&found).arg(format!("fuzz/corpus/{name}"));
        command.args(["--", LONGEST, "-len_control=0", "-print_final_stats=1"]);
        command.arg(format!("-max_total_time={seconds}"));
        println!("\n== {name}, {seconds} s\n    {}", cargo::shown(&command));
        let status = command.status()?;
        if status.success() {
            totals.add(Totals::one());
        } else {
            totals.fail(format!("{name} ({})", Exit::from(status)), format!("cargo xtask fuzz {name}"));
        }
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fuzzer_has_a_program_and_inputs_that_are_kept() {
        let folder = cargo::root().join("fuzz");
        for (kind, ending) in [("fuzz_targets", ".rs"), ("corpus", "")] {
            let entries = std::fs::read_dir(folder.join(kind)).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = entries.map(|name| name.to_str().unwrap().replace(ending, "")).collect();
            names.sort();
            let mut wanted = TARGETS.map(str::to_owned);
            wanted.sort();
            assert_eq!(names, wanted, "fuzz/{kind}");
        }
    }
}
