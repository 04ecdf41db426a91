//! Building `librtmm.a`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Deserialize;
use std::process::Stdio;

use crate::boards::Board;
use crate::cargo;

/// The package of the library.
pub const PACKAGE: &str = "rtmm-c";

/// Builds the library for a board's target and backend, and returns where it is.
///
/// Release code always: only then nothing of Rust's unwinding is left in it.
pub fn build(board: &Board) -> Result<PathBuf> {
    let mut command = cargo::cargo();
    command.args(["build", "--release", "--package", PACKAGE]);
    if let Some(target) = board.target {
        command.args(["--target", target]);
    }
    if board.extra.contains(&"mmu") {
        command.args(["--features", "mmu"]);
    }
    let typed = cargo::shown(&command);
    eprintln!("    {typed}");
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        bail!("the build failed; again with: {typed}");
    }
    for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line)?;
        if let Some(file) = message.filenames.into_iter().find(|file| file.ends_with("librtmm.a")) {
            return Ok(file);
        }
    }
    bail!("cargo built no librtmm.a; again with: {typed}")
}

/// A message of `--message-format=json`, as far as it is of use here.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    filenames: Vec<PathBuf>,
}
