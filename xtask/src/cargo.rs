//! Calling cargo, and finding what it built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::boards::Board;
use crate::c::compilers;
use crate::process;
use crate::workspace::{self, Target, Workspace};

/// Cargo's profile of what is shipped.
pub const RELEASE: &str = "release";
/// And of what is tested on boards, which leaves the long work at link time out: a board has some thirty programs.
pub const SUITE: &str = "suite";

/// The workspace's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A cargo of the pinned toolchain, in the workspace's folder.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).stdin(Stdio::null());
    // Set for xtask itself; passed on they would look like a change to build scripts that read them.
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(variable);
        }
    }
    command
}

/// Cargo of another toolchain, through rustup, in the workspace's folder.
pub fn of_toolchain(toolchain: &str) -> Command {
    let mut command = Command::new("cargo");
    command.arg(format!("+{toolchain}")).current_dir(root()).stdin(Stdio::null());
    // Set by rustup for the toolchain that runs xtask; they would win over the one named here.
    for variable in ["RUSTUP_TOOLCHAIN", "RUSTC", "RUSTDOC", "CARGO"] {
        command.env_remove(variable);
    }
    command
}

/// `cargo ...` as a person would type it: the path to the program left out.
pub fn shown(command: &Command) -> String {
    let line = process::shown(command);
    match line.split_once(' ') {
        Some((_, arguments)) => format!("cargo {arguments}"),
        None => "cargo".to_owned(),
    }
}

/// Something cargo built that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The target's name in its package.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

/// A message of `--message-format=json`, as far as it is of use here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
}

/// Runs a building command, progress on standard error, and returns the programs of `kinds` it made.
pub fn build(command: &mut Command, kinds: &[&str]) -> Result<Vec<Program>> {
    let typed = shown(command);
    eprintln!("    {typed}");
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = command.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the build failed; again with: {typed}");
    }
    programs(&String::from_utf8_lossy(&output.stdout), kinds)
}

/// The programs of `kinds` named in cargo's messages, by name.
fn programs(messages: &str, kinds: &[&str]) -> Result<Vec<Program>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("a message of cargo that is not understood")?;
        let (Some(path), Some(target)) = (message.executable, message.target) else { continue };
        if message.reason == "compiler-artifact" && kinds.iter().any(|kind| target.is(kind)) {
            found.push(Program { name: target.name, path });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The arguments that choose a board: its target and features.
pub fn for_board(command: &mut Command, board: &Board, defmt: bool) {
    command.args(["--no-default-features", "--features", &board.features(defmt)]);
    if let Some(target) = board.target {
        command.args(["--target", target]);
    }
}

/// Builds the suites of a package for a board, or only one of them.
///
/// Boards run optimised code, as it is shipped but for what the linker would do with the whole; the host adds the
/// checks of a debug build.
pub fn suites(board: &Board, package: &str, only: Option<&str>, defmt: bool) -> Result<Vec<Program>> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--package", package]);
    match only {
        Some(suite) => _ = command.args(["--test", suite]),
        None if board.is_whole() => _ = command.arg("--tests"),
        None => _ = command.args(board.suites.iter().flat_map(|suite| ["--test", suite])),
    }
    if !board.is_host() {
        command.args(["--profile", SUITE]);
    }
    for_board(&mut command, board, defmt);
    build(&mut command, &["test"])
}

/// Builds one program of the examples for a board; `config` are cargo's `--config` values.
///
/// Release code everywhere: a demo shows what the manager costs.
pub fn demo(board: &Board, name: &str, defmt: bool, config: &[&str]) -> Result<Program> {
    let mut built = demos(board, &[name], RELEASE, defmt, config)?;
    Ok(built.remove(0))
}

/// Builds several, those of a package in one call, and returns them in the order of their names here.
pub fn demos(board: &Board, names: &[&str], profile: &str, defmt: bool, config: &[&str]) -> Result<Vec<Program>> {
    let workspace = Workspace::read()?;
    let mut packages: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        let (package, option, _) = workspace.demo(name)?;
        packages.entry(package).or_default().extend([option, name]);
    }
    let mut built = Vec::new();
    for (package, programs) in packages {
        if [workspace::EXAMPLES_C, workspace::EXAMPLES_FREERTOS].contains(&package) {
            compilers::provide(board)?;
        }
        let mut command = cargo();
        command.args(["build", "--profile", profile, "--package", package]).args(programs);
        for_board(&mut command, board, defmt);
        for value in config {
            command.args(["--config", value]);
        }
        built.extend(build(&mut command, &["example", "bin"])?);
    }
    let find = |name: &&str| match built.iter().find(|program| program.name == **name) {
        Some(program) => Ok(program.clone()),
        None => bail!("cargo built no program called {name}"),
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_those_of_the_kind_asked_for() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"slab","kind":["test"]},"executable":"/t/slab-1","fresh":true}
{"reason":"compiler-artifact","target":{"name":"rtmm","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"build-script-build","kind":["custom-build"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"buddy","kind":["test"]},"executable":"/t/buddy-1"}
{"reason":"compiler-artifact","target":{"name":"hello","kind":["example"]},"executable":"/t/hello"}
{"reason":"build-finished","success":true}"#;
        let names: Vec<_> = programs(messages, &["test"]).unwrap().into_iter().map(|program| program.name).collect();
        assert_eq!(names, ["buddy", "slab"]);
    }
}
