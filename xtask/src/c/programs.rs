//! The C interface seen from C, on this machine: headers without a warning, programs that do as they promise.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::compilers::{self, C99, CROSS, Compiler, HOST};
use super::library;
use crate::boards::Board;
use crate::cargo;
use crate::tools;
use crate::totals::Totals;

/// Runs everything, on the compilers there are; one that cannot be had counts as failed.
pub fn test() -> Result<Totals> {
    let mut totals = Totals::default();
    let compilers = HOST.iter().chain(&CROSS);
    let ready: Vec<Compiler> = compilers
        .filter(|compiler| match tools::provide_program(compiler.package, compiler.program) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("error: {error:#}");
                totals.fail(format!("the compiler {}", compiler.program), "cargo xtask c test");
                false
            }
        })
        .copied()
        .collect();
    for compiler in &ready {
        for header in headers()? {
            for language in compiler.languages {
                let what = format!("{} {} {}", compiler.program, language[2], header.display());
                count(&mut totals, &what, compiler.check(language, &header));
            }
        }
    }
    let archive = library::build(Board::named("host")?)?;
    let out = archive.with_file_name("c-programs");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    for compiler in ready.iter().filter(|compiler| HOST.contains(compiler)) {
        for source in sources("capi/tests/host")? {
            let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let program = out.join(format!("{name}-{}", compiler.program));
            let what = format!("{name} by {}", compiler.program);
            count(&mut totals, &what, build_and_run(compiler, &source, &archive, &program));
        }
    }
    Ok(totals)
}

fn build_and_run(compiler: &Compiler, source: &Path, archive: &Path, program: &Path) -> Result<()> {
    let mut command = compiler.command(C99);
    command.args(["-g", "-no-pie", "-I", "capi/tests"]).arg(source).args(["capi/tests/calls.c", "capi/tests/setup.c"]);
    // Behind a -x the archive would be taken for C.
    command.args(["-x", "none"]).arg(archive).arg("-o").arg(program);
    compilers::run(&mut command)?;
    compilers::run(&mut std::process::Command::new(program))
}

fn count(totals: &mut Totals, what: &str, result: Result<()>) {
    match result {
        Ok(()) => {
            println!("{what} ... ok");
            totals.passed += 1;
        }
        Err(error) => {
            println!("{what} ... FAILED\n{error:#}");
            totals.fail(what, "cargo xtask c test");
        }
    }
}

/// Every header.
fn headers() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["", "linux", "asm"] {
        found.extend(files(&Path::new("capi/include").join(folder), "h")?);
    }
    Ok(found)
}

fn sources(folder: &str) -> Result<Vec<PathBuf>> {
    files(Path::new(folder), "c")
}

/// The files of a folder with this ending, from the workspace's folder on, in order.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(cargo::root().join(folder)).with_context(|| folder.display().to_string())? {
        let name = PathBuf::from(entry?.file_name());
        if name.extension().is_some_and(|own| own == ending) {
            found.push(folder.join(name));
        }
    }
    found.sort();
    Ok(found)
}
