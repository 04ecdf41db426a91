//! What the libraries promise, listed item by item: a change that breaks users is seen before it is made.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::workspace::{LIBRARIES, Package, Workspace};

/// Items of a change that are printed; the rest is counted.
const SHOWN: usize = 40;
/// Where the listings are kept.
const FOLDER: &str = "docs/api";

/// Writes the listings anew, or only says whether they are up to date.
pub fn api(check: bool) -> Result<()> {
    let workspace = Workspace::read()?;
    let mut stale = Vec::new();
    for name in LIBRARIES {
        let package = workspace.package(name)?;
        let path = cargo::root().join(FOLDER).join(format!("{name}.txt"));
        let listed = listing(package)?;
        let kept = fs::read_to_string(&path).unwrap_or_default();
        let change = Change::between(&kept, &listed);
        if change.is_none() {
            println!("{name}: {} items, as listed", listed.lines().count() - 1);
            continue;
        }
        change.print(name);
        if check {
            stale.push(name);
        } else {
            change.permitted(package, &kept)?;
            fs::create_dir_all(cargo::root().join(FOLDER))?;
            fs::write(&path, listed).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    ensure!(stale.is_empty(), "{FOLDER} is out of date for {}; to renew: cargo xtask api", stale.join(", "));
    Ok(())
}

/// What came and what went.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    gone: Vec<String>,
    new: Vec<String>,
    version: bool,
}

impl Change {
    fn between(old: &str, new: &str) -> Change {
        let items = |text: &'_ str| text.lines().skip(1).map(str::to_owned).collect::<BTreeSet<_>>();
        let (before, after) = (items(old), items(new));
        Change {
            gone: before.difference(&after).cloned().collect(),
            new: after.difference(&before).cloned().collect(),
            version: old.lines().next() != new.lines().next(),
        }
    }

    fn is_none(&self) -> bool {
        *self == Change::default()
    }

    fn print(&self, name: &str) {
        println!("{name}: {} items new, {} gone or changed", self.new.len(), self.gone.len());
        for (mark, items) in [('-', &self.gone), ('+', &self.new)] {
            for item in items.iter().take(SHOWN) {
                println!("  {mark} {item}");
            }
            if items.len() > SHOWN {
                println!("  {mark} and {} more", items.len() - SHOWN);
            }
        }
    }

    /// Refuses to list a breaking change under a version that promises none.
    ///
    /// Cargo takes 0.1.1 for 0.1.0, and 1.1.0 for 1.0.0. Nothing is promised before a first release is in the
    /// changelog.
    fn permitted(&self, package: &Package, kept: &str) -> Result<()> {
        let released = kept.lines().next().and_then(|head| head.rsplit(' ').next()).unwrap_or_default();
        let changelog = fs::read_to_string(cargo::root().join("CHANGELOG.md"))?;
        let is_out = changelog.lines().any(|line| line.starts_with(&format!("## [{released}]")));
        if is_out && !self.gone.is_empty() && compatible(released, &package.version) {
            bail!(
                "{} {} is released, and {} is taken for it: items that went need a higher version",
                package.name,
                released,
                package.version
            );
        }
        Ok(())
    }
}

/// Whether cargo takes `new` where `old` was asked for.
fn compatible(old: &str, new: &str) -> bool {
    fn leading(version: &str) -> (&str, &str) {
        let mut parts = version.split('.');
        let major = parts.next().unwrap_or_default();
        let minor = if major == "0" { parts.next().unwrap_or_default() } else { "" };
        (major, minor)
    }
    leading(old) == leading(new)
}

/// All public items of a package, with all its features: the version, then an item a line.
fn listing(package: &Package) -> Result<String> {
    let json = rustdoc(&package.name)?;
    let api = public_api::Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .with_context(|| format!("{} is not understood", json.display()))?;
    let mut items: Vec<String> = api.items().map(ToString::to_string).collect();
    items.sort();
    items.dedup();
    Ok(format!("{} {}\n{}\n", package.name, package.version, items.join("\n")))
}

/// Has rustdoc describe a library for machines.
///
/// The format is that of the pinned toolchain, which is what the reader's version fits; only the option is not stable.
fn rustdoc(name: &str) -> Result<PathBuf> {
    // A folder of its own: build scripts look at RUSTC_BOOTSTRAP and would run again each time it comes or goes.
    let target = cargo::root().join("target/api");
    let mut command = cargo::cargo();
    command.args(["rustdoc", "--quiet", "--package", name, "--lib", "--all-features"]);
    command.arg("--target-dir").arg(&target);
    command.args(["--", "-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"]);
    command.env("RUSTC_BOOTSTRAP", "1");
    ensure!(command.status()?.success(), "rustdoc failed; again with: {}", cargo::shown(&command));
    Ok(target.join("doc").join(format!("{}.json", name.replace('-', "_"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_what_went_is_told_apart() {
        let change = Change::between("a 0.1.0\npub fn x()\npub fn y()\n", "a 0.1.0\npub fn y()\npub fn z()\n");
        assert_eq!(change.gone, ["pub fn x()"]);
        assert_eq!(change.new, ["pub fn z()"]);
        assert!(Change::between("a 0.1.0\nx\n", "a 0.1.0\nx\n").is_none());
        assert!(!Change::between("a 0.1.0\nx\n", "a 0.2.0\nx\n").is_none());
    }

    #[test]
    fn versions_are_compatible_as_cargo_has_it() {
        assert!(compatible("0.1.0", "0.1.7"));
        assert!(!compatible("0.1.0", "0.2.0"));
        assert!(compatible("1.0.0", "1.4.0"));
        assert!(!compatible("0.9.0", "1.0.0"));
    }
}
