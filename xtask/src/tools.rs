//! Finding what a board needs, installing what can be installed, naming the rest exactly.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::boards::Board;
use crate::cargo;
use crate::process;
use crate::totals::Totals;

/// Makes sure that `boards` can be built and booted.
pub fn provide(boards: &[&Board]) -> Result<()> {
    let targets: BTreeSet<&str> = boards.iter().filter_map(|board| board.target).collect();
    provide_targets(&targets)?;
    let emulators: BTreeSet<(&str, &str)> =
        boards.iter().filter_map(|board| board.qemu).map(|qemu| (qemu.package, qemu.program)).collect();
    provide_programs(&emulators)
}

/// The boards among `boards` that can be built and booted; the others are counted as failed.
pub fn provide_each(boards: Vec<&'static Board>, totals: &mut Totals) -> Vec<&'static Board> {
    let mut ready = Vec::new();
    for board in boards {
        match provide(&[board]) {
            Ok(()) => ready.push(board),
            Err(error) => {
                eprintln!("error: {}: {error:#}", board.name);
                totals.fail(format!("what {} needs", board.name), format!("cargo xtask test --board {}", board.name));
            }
        }
    }
    ready
}

/// Makes sure that one program is there, which a Debian package brings.
pub fn provide_program(package: &str, program: &str) -> Result<()> {
    provide_programs(&BTreeSet::from([(package, program)]))
}

/// Adds missing targets to the pinned toolchain.
pub fn provide_targets(targets: &BTreeSet<&str>) -> Result<()> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).current_dir(cargo::root()).output()?;
    let sysroot = std::path::PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let missing: Vec<&str> = targets
        .iter()
        .copied()
        .filter(|target| !sysroot.join("lib/rustlib").join(target).join("lib").is_dir())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("rustup target add {}", missing.join(" "));
    eprintln!("    {line}");
    // Run in the workspace, so that rust-toolchain.toml says which toolchain is meant.
    let status = Command::new("rustup")
        .args(["target", "add"])
        .args(&missing)
        .current_dir(cargo::root())
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        _ => bail!("the Rust targets {} are missing; to add them, type:\n    {line}", missing.join(", ")),
    }
}

/// Makes sure that another toolchain is there, as it comes at its smallest.
pub fn provide_toolchain(toolchain: &str) -> Result<()> {
    let mut rustc = Command::new("rustup");
    rustc
        .args(["run", toolchain, "rustc", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if rustc.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", toolchain, "--profile", "minimal", "--no-self-update"]);
    let line = process::shown(&install);
    eprintln!("    {line}");
    match install.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        _ => bail!("Rust {toolchain} is missing; to install, type:\n    {line}"),
    }
}

/// Installs missing programs, given with the Debian packages that bring them.
fn provide_programs(programs: &BTreeSet<(&str, &str)>) -> Result<()> {
    let missing = missing(programs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: BTreeSet<&str> = missing.iter().map(|(package, _)| *package).collect();
    let names: Vec<&str> = missing.iter().map(|(_, program)| *program).collect();
    if !works("apt-get", &["--version"]) {
        bail!("{} not found: install them and put them on the PATH", names.join(", "));
    }
    let root = is_root();
    let line = line_to_type(&packages, root);
    if !root && !works("sudo", &["-n", "true"]) {
        bail!("{} not found; to install, type:\n    {line}", names.join(", "));
    }
    eprintln!("    {} not found, installing: {line}", names.join(", "));
    // A failed update may still leave lists that are good enough; the installation decides.
    if !apt(root, &["update", "-q"]) {
        eprintln!("    apt-get update failed; going on with the package lists there are");
    }
    for package in &packages {
        // Without the recommended packages a machine without a screen is spared a desktop's worth of libraries. Where
        // that cannot be resolved (parts of a newer QEMU installed), the plain form may remove what is in the way.
        let installed = apt(root, &["install", "-y", "-q", "--no-install-recommends", package])
            || apt(root, &["install", "-y", "-q", package]);
        if !installed {
            bail!("apt-get could not install {package}; to try by hand, type:\n    {line}");
        }
    }
    let still: Vec<&str> = self::missing(programs).into_iter().map(|(_, program)| program).collect();
    if !still.is_empty() {
        bail!("{} still not found, though apt-get installed what should bring it", still.join(", "));
    }
    Ok(())
}

fn missing<'a>(programs: &BTreeSet<(&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    programs.iter().copied().filter(|(_, program)| !works(program, &["--version"])).collect()
}

/// The one line that installs the packages.
fn line_to_type(packages: &BTreeSet<&str>, root: bool) -> String {
    let sudo = if root { "" } else { "sudo " };
    let packages = packages.iter().copied().collect::<Vec<_>>().join(" ");
    format!("{sudo}apt-get update && {sudo}apt-get install -y {packages}")
}

/// Calls apt-get as the superuser, never asking anything.
fn apt(root: bool, arguments: &[&str]) -> bool {
    let mut command = if root { Command::new("env") } else { Command::new("sudo") };
    if !root {
        command.args(["-n", "env"]);
    }
    // Another apt may hold the lock on a machine that is just being set up.
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Whether a program can be started and says all is well.
pub fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_are_not_there_are_noticed() {
        let programs = BTreeSet::from([("a", "sh-that-is-not-there"), ("b", "cargo")]);
        assert_eq!(missing(&programs), [("a", "sh-that-is-not-there")]);
    }

    #[test]
    fn the_line_to_type_is_whole() {
        let packages = BTreeSet::from(["qemu-system-x86", "qemu-system-arm"]);
        let line = line_to_type(&packages, false);
        assert_eq!(line, "sudo apt-get update && sudo apt-get install -y qemu-system-arm qemu-system-x86");
    }
}
