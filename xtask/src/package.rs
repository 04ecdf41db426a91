//! What a publication must pass: packages that build by themselves, the lowest versions they ask for, licences.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{self, cargo as cargo_command};
use crate::ci::Round;
use crate::tools;
use crate::totals::Totals;
use crate::workspace::{LIBRARIES, Workspace};

/// The oldest toolchain promised; `rust-version` of the workspace says the same.
pub const OLDEST: &str = "1.88.0";
/// What reads licences, bans and sources, and the version of it that `deny.toml` is written for.
const DENY: (&str, &str) = ("cargo-deny", "0.20.2");

/// Runs every part.
pub fn package() -> Result<Totals> {
    let mut round = Round::default();
    parts(&mut round, &Workspace::read()?);
    Ok(round.totals)
}

/// Every part, counted in `round`.
pub fn parts(round: &mut Round, workspace: &Workspace) {
    const AGAIN: &str = "cargo xtask package";
    if let Err(error) = forget_packages(workspace) {
        round.part("packages", AGAIN, || Err(error));
    } else {
        round.command("packages", &mut packaging());
    }
    round.part("lowest versions, oldest Rust", AGAIN, || lowest(workspace));
    round.part("listed interfaces", "cargo xtask api", || crate::api::api(true).map(|()| Totals::one()));
    round.part("licences, bans and sources", AGAIN, deny);
}

/// Where packages are made and built.
fn packages_folder() -> PathBuf {
    cargo::root().join("target/packages")
}

/// Removes what cargo keeps of packages made earlier.
///
/// To cargo a version that is published never changes, and it takes packages made here for published ones: it would
/// build the later of them on yesterday's sources of the earlier, unpacked in its home, and not even compile those.
fn forget_packages(workspace: &Workspace) -> Result<()> {
    remove_all(&packages_folder())?;
    let sources = home::cargo_home()?.join("registry/src");
    let Ok(registries) = fs::read_dir(&sources) else { return Ok(()) };
    for registry in registries {
        let registry = registry?;
        // The registries of packages made on this machine have no host's name before the dash.
        if registry.file_name().to_string_lossy().starts_with('-') {
            for name in LIBRARIES {
                let whole = format!("{name}-{}", workspace.package(name)?.version);
                remove_all(&registry.path().join(whole))?;
            }
        }
    }
    Ok(())
}

fn remove_all(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Makes each package and builds it from what is in it alone.
fn packaging() -> Command {
    let mut command = cargo_command();
    // Changes that are not committed are tested as well; what is published is checked for them by cargo.
    command.args(["package", "--quiet", "--allow-dirty", "--no-metadata", "--target-dir"]).arg(packages_folder());
    command.args(LIBRARIES.iter().flat_map(|name| ["--package", name]));
    command
}

/// Builds the packages with the oldest Rust, and with the lowest version of each direct dependency they ask for.
fn lowest(workspace: &Workspace) -> Result<Totals> {
    let folder = unpacked(workspace)?;
    let mut update = in_folder(cargo_command(), &folder);
    update.args(["update", "--quiet", "-Z", "direct-minimal-versions"]).env("RUSTC_BOOTSTRAP", "1");
    ensure!(update.status()?.success(), "no set of lowest versions: {}", cargo::shown(&update));
    tools::provide_toolchain(OLDEST)?;
    for features in [&["--no-default-features"][..], &[], &["--all-features"]] {
        let mut check = in_folder(cargo::of_toolchain(OLDEST), &folder);
        check.args(["check", "--quiet", "--locked", "--workspace", "--target-dir"]);
        check.arg(cargo::root().join("target/lowest")).args(features);
        println!("    {} (in {})", cargo::shown(&check), folder.display());
        ensure!(check.status()?.success(), "Rust {OLDEST} with the lowest versions does not build it");
    }
    Ok(Totals::one())
}

/// A workspace of what the packages hold, where they find each other.
fn unpacked(workspace: &Workspace) -> Result<PathBuf> {
    let folder = cargo::root().join("target/unpacked");
    remove_all(&folder)?;
    fs::create_dir_all(&folder)?;
    let mut manifest = String::from("[workspace]\nresolver = \"3\"\nmembers = [");
    let mut patch = String::from("]\n\n[patch.crates-io]\n");
    for name in LIBRARIES {
        let whole = format!("{name}-{}", workspace.package(name)?.version);
        let archive = packages_folder().join("package").join(format!("{whole}.crate"));
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(&archive).arg("-C").arg(&folder);
        ensure!(tar.status().context("cannot start tar")?.success(), "{} cannot be unpacked", archive.display());
        let inner = folder.join(&whole);
        // The lock file of the package would win over the lowest versions.
        let _ = fs::remove_file(inner.join("Cargo.lock"));
        manifest.push_str(&format!("\"{whole}\", "));
        patch.push_str(&format!("{name} = {{ path = \"{whole}\" }}\n"));
    }
    fs::write(folder.join("Cargo.toml"), manifest + &patch)?;
    Ok(folder)
}

fn in_folder(mut command: Command, folder: &Path) -> Command {
    command.current_dir(folder);
    command
}

/// `cargo deny check` of everything that does not change with the day.
fn deny() -> Result<Totals> {
    let (name, version) = DENY;
    if !tools::works(name, &["--version"]) {
        let mut install = cargo_command();
        install.args(["install", "--locked", "--quiet", "--version", version, name]);
        eprintln!("    {name} not found, installing (some minutes): {}", cargo::shown(&install));
        if !install.status()?.success() {
            bail!("{name} is missing; to install, type:\n    {}", cargo::shown(&install));
        }
    }
    let mut command = cargo_command();
    command.args(["deny", "--workspace", "--all-features", "check", "licenses", "bans", "sources"]);
    println!("    {}", cargo::shown(&command));
    ensure!(command.status()?.success(), "{} found something", cargo::shown(&command));
    Ok(Totals::one())
}
