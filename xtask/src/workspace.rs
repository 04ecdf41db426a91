//! Which packages there are, and which of them are for the host.

use std::collections::BTreeMap;
#[cfg(test)]
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::boards::BOARDS;
use crate::cargo;

/// The package of the example programs.
pub const EXAMPLES: &str = "rtmm-examples";
/// The package of the drivers and the suites in C; it needs a C compiler for the board.
pub const EXAMPLES_C: &str = "rtmm-examples-c";
/// The package of the programs with registry crates.
pub const EXAMPLES_CRATES: &str = "rtmm-examples-crates";
/// The package of the programs with an RTOS in Rust, each for one board.
pub const EXAMPLES_RTOS: &str = "rtmm-examples-rtos";
/// The package of FreeRTOS; it needs a C compiler for its board.
pub const EXAMPLES_FREERTOS: &str = "rtmm-examples-freertos";
/// All that have demos.
pub const DEMO_PACKAGES: [&str; 5] = [EXAMPLES, EXAMPLES_C, EXAMPLES_CRATES, EXAMPLES_RTOS, EXAMPLES_FREERTOS];

/// What others may depend upon, in the order in which it is published.
pub const LIBRARIES: [&str; 5] = ["mm-core", "backend-nommu", "backend-mmu-x86", "rtmm", "rtmm-capi"];

/// What `cargo metadata` says, as far as it is of use here.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    workspace_root: PathBuf,
    packages: Vec<Package>,
}

/// A package of the workspace.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    manifest_path: PathBuf,
    features: BTreeMap<String, Vec<String>>,
    targets: Vec<Target>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

/// `[package.metadata]` of a package of ours.
#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    suites: Suites,
}

/// `[package.metadata.suites]`: what suites need of the machine.
#[derive(Debug, Default, Deserialize)]
struct Suites {
    /// Those that need the exact instruction counter.
    #[serde(default)]
    counted: Vec<String>,
    /// Tests for which memory is spoiled from outside.
    #[serde(default)]
    spoiled: Vec<String>,
}

/// A target of a package, in messages of builds and in metadata.
#[derive(Debug, Deserialize)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// `lib`, `bin`, `example`, `test`...
    pub kind: Vec<String>,
    /// The features without which it is not built.
    #[serde(default, rename = "required-features")]
    pub required_features: Vec<String>,
}

impl Target {
    /// Whether it is of this kind.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|own| own == kind)
    }
}

impl Package {
    /// The names of its features.
    pub fn features(&self) -> impl Iterator<Item = &str> {
        self.features.keys().map(String::as_str)
    }

    /// Whether it has a feature of this name.
    pub fn has_feature(&self, feature: &str) -> bool {
        self.features.contains_key(feature)
    }

    /// The suites whose tests run with exact instruction counts, `-icount` under QEMU.
    pub fn counted_suites(&self) -> &[String] {
        self.metadata.as_ref().map_or(&[], |metadata| &metadata.suites.counted)
    }

    /// The tests that ask for memory that goes bad, which they get where a file can be the board's RAM.
    pub fn spoiled_tests(&self) -> &[String] {
        self.metadata.as_ref().map_or(&[], |metadata| &metadata.suites.spoiled)
    }

    /// Whether it has a suite of this name.
    pub fn has_suite(&self, name: &str) -> bool {
        self.targets.iter().any(|target| target.is("test") && target.name == name)
    }

    /// The tests that are built with this feature only, by name.
    pub fn tests_that_need(&self, feature: &str) -> Vec<&str> {
        let needs = |target: &&Target| target.is("test") && target.required_features.iter().any(|own| own == feature);
        self.targets.iter().filter(needs).map(|target| target.name.as_str()).collect()
    }

    /// All features that tests name as required.
    #[cfg(test)]
    pub fn features_tests_need(&self) -> BTreeSet<&str> {
        let tests = self.targets.iter().filter(|target| target.is("test"));
        tests.flat_map(|target| target.required_features.iter().map(String::as_str)).collect()
    }

    /// Whether it is in `boards/` and cannot be built for the host.
    fn is_bare(&self) -> bool {
        let Some(folder) = self.manifest_path.parent() else { return false };
        let of_boards = folder.parent().is_some_and(|parent| parent.ends_with("boards"));
        let of_host = BOARDS.iter().any(|board| board.is_host() && folder.ends_with(board.family));
        of_boards && !of_host
    }

    /// Whether it is in `bench/`: programs beside the project, with the peers they measure.
    fn is_bench(&self, root: &Path) -> bool {
        self.manifest_path.starts_with(root.join("bench"))
    }
}

impl Workspace {
    /// Asks cargo.
    pub fn read() -> Result<Workspace> {
        let output = cargo::cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Workspace::parse(&String::from_utf8_lossy(&output.stdout))
    }

    fn parse(metadata: &str) -> Result<Workspace> {
        serde_json::from_str(metadata).context("cargo metadata is not understood")
    }

    /// The package of this name.
    pub fn package(&self, name: &str) -> Result<&Package> {
        self.packages.iter().find(|package| package.name == name).with_context(|| format!("there is no package {name}"))
    }

    /// The packages whose unit, property and documentation tests run on the host.
    ///
    /// The suites are not among them: they run board by board, the host's two included.
    pub fn host_libraries(&self) -> Vec<&Package> {
        // librtmm.a has nothing to test before C links it, and an RTOS is for a board.
        const OTHERS: [&str; 5] =
            ["rtmm-tests", EXAMPLES_C, EXAMPLES_RTOS, EXAMPLES_FREERTOS, crate::c::library::PACKAGE];
        let wanted = |package: &&Package| {
            !package.is_bare() && !package.is_bench(&self.workspace_root) && !OTHERS.contains(&package.name.as_str())
        };
        self.packages.iter().filter(wanted).collect()
    }

    /// What selects a demo: its package, and `--example` or `--bin` with the kind cargo reports for it.
    pub fn demo(&self, name: &str) -> Result<(&'static str, &'static str, &'static str)> {
        let mut known = Vec::new();
        for package in DEMO_PACKAGES {
            for target in &self.package(package)?.targets {
                let (option, kind) = match () {
                    () if target.is("example") => ("--example", "example"),
                    () if target.is("bin") => ("--bin", "bin"),
                    () => continue,
                };
                if target.name == name {
                    return Ok((package, option, kind));
                }
                known.push(target.name.as_str());
            }
        }
        bail!("no demo is called {name:?}; there are {}", known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{"workspace_root":"/r","packages":[
        {"name":"mm-core","version":"0.1.0","manifest_path":"/r/mm-core/Cargo.toml","features":{},"targets":[
            {"name":"plain","kind":["test"]},{"name":"watched","kind":["test"],"required-features":["debug"]}]},
        {"name":"board-host","version":"0.1.0","manifest_path":"/r/boards/host/Cargo.toml","features":{"mmu":[]},"targets":[]},
        {"name":"board-virt-aarch64","version":"0.1.0","manifest_path":"/r/boards/virt-aarch64/Cargo.toml","features":{},"targets":[]},
        {"name":"board-semihosting","version":"0.1.0","manifest_path":"/r/boards/semihosting/Cargo.toml","features":{},"targets":[]},
        {"name":"rtmm-size","version":"0.1.0","manifest_path":"/r/bench/size/Cargo.toml","features":{},"targets":[]},
        {"name":"rtmm-c","version":"0.1.0","manifest_path":"/r/capi/library/Cargo.toml","features":{"mmu":[]},"targets":[]},
        {"name":"rtmm-tests","version":"0.1.0","manifest_path":"/r/tests/Cargo.toml","features":{"mmu":[]},"targets":[],
         "metadata":{"suites":{"counted":["sweep"]}}},
        {"name":"rtmm-examples","version":"0.1.0","manifest_path":"/r/examples/Cargo.toml","features":{"mmu":[]},"targets":[
            {"name":"lib","kind":["lib"]},{"name":"scull","kind":["example"]},{"name":"bench","kind":["bin"]}]},
        {"name":"rtmm-examples-c","version":"0.1.0","manifest_path":"/r/examples/c/Cargo.toml","features":{"mmu":[]},"targets":[
            {"name":"scull-c","kind":["example"]}]},
        {"name":"rtmm-examples-crates","version":"0.1.0","manifest_path":"/r/examples/crates/Cargo.toml","features":{"mmu":[]},"targets":[
            {"name":"json","kind":["example"]}]},
        {"name":"rtmm-examples-freertos","version":"0.1.0","manifest_path":"/r/examples/freertos/Cargo.toml","features":{},"targets":[]},
        {"name":"rtmm-examples-rtos","version":"0.1.0","manifest_path":"/r/examples/rtos/Cargo.toml","features":{"mmu":[]},"targets":[
            {"name":"embassy","kind":["example"]}]}]}"#;

    #[test]
    fn bare_boards_benches_and_suites_are_not_host_libraries() {
        let workspace = Workspace::parse(METADATA).unwrap();
        let names: Vec<_> = workspace.host_libraries().iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["mm-core", "board-host", "rtmm-examples", "rtmm-examples-crates"]);
        assert!(workspace.package("board-host").unwrap().has_feature("mmu"));
    }

    #[test]
    fn suites_that_count_say_so_in_their_manifest() {
        let workspace = Workspace::parse(METADATA).unwrap();
        assert_eq!(workspace.package("rtmm-tests").unwrap().counted_suites(), ["sweep"]);
        assert!(workspace.package("mm-core").unwrap().counted_suites().is_empty());
    }

    #[test]
    fn tests_say_which_feature_they_need() {
        let workspace = Workspace::parse(METADATA).unwrap();
        let package = workspace.package("mm-core").unwrap();
        assert_eq!(package.tests_that_need("debug"), ["watched"]);
        assert_eq!(package.features_tests_need(), ["debug"].into());
    }

    #[test]
    fn demos_are_found_as_examples_or_programs() {
        let workspace = Workspace::parse(METADATA).unwrap();
        assert_eq!(workspace.demo("scull").unwrap(), (EXAMPLES, "--example", "example"));
        assert_eq!(workspace.demo("bench").unwrap(), (EXAMPLES, "--bin", "bin"));
        assert_eq!(workspace.demo("scull-c").unwrap(), (EXAMPLES_C, "--example", "example"));
        assert_eq!(workspace.demo("json").unwrap(), (EXAMPLES_CRATES, "--example", "example"));
        let unknown = workspace.demo("lib").unwrap_err().to_string();
        assert!(unknown.contains("scull, bench"), "{unknown}");
    }
}
