//! The C interface seen from C, on this machine: headers without a warning, programs that do as they promise.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::compilers::{self, C99, CROSS, Compiler, HOST};
use super::library;
use crate::boards::{Board, limit};
use crate::cargo;
use crate::process::{self, Exit};
use crate::qemu::{self, Boot};
use crate::tools;
use crate::totals::Totals;

/// What is compiled by every compiler: the drivers, and the tests that run on the boards.
const SOURCES: [&str; 9] = [
    "examples/c/scull/device.c",
    "examples/c/scull/memory.c",
    "examples/c/support/printk.c",
    "capi/tests/calls.c",
    "capi/tests/areas.c",
    "capi/tests/caches.c",
    "capi/tests/short.c",
    "capi/tests/setup.c",
    "capi/tests/bare/kernel.c",
];
/// The suites, which programs are linked with.
const SUITES: [&str; 5] =
    ["capi/tests/calls.c", "capi/tests/areas.c", "capi/tests/caches.c", "capi/tests/short.c", "capi/tests/setup.c"];
/// The guides in docs/ with C in them.
const GUIDES: [&str; 2] = ["from-linux", "from-rtos"];
/// The header that needs a C library.
const HOSTED: &str = "rtmm_process.h";

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
        let alone = |header: &PathBuf| HOST.contains(compiler) || !header.ends_with(HOSTED);
        for header in headers()?.into_iter().filter(alone) {
            for language in compiler.languages {
                let what = format!("{compiler} {} {}", language[2], header.display());
                count(&mut totals, &what, compiler.check(language, &header));
            }
        }
    }
    for compiler in &ready {
        for source in SOURCES {
            let mut command = compiler.command(C99);
            command.args(["-fsyntax-only", "-I", "capi/tests", "-I", "examples/c/scull", source]);
            count(&mut totals, &format!("{compiler} {source}"), compilers::run(&mut command).map(drop));
        }
    }
    let archive = library::build(Board::named("host")?)?;
    let out = archive.with_file_name("c-programs");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    for compiler in ready.iter().filter(|compiler| HOST.contains(compiler)) {
        for source in sources("capi/tests/host")? {
            let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let suites = SUITES.map(Path::new);
            let sources = [&[source.as_path()], suites.as_slice()].concat();
            let place = Place { archive: &archive, out: &out };
            let result = place
                .link(compiler, &sources, &name)
                .and_then(|program| compilers::run(&mut Command::new(program)).map(drop));
            count(&mut totals, &format!("{name} by {compiler}"), result);
        }
    }
    for compiler in ready.iter().filter(|compiler| HOST.contains(compiler)) {
        let place = Place { archive: &archive, out: &out };
        count(&mut totals, &format!("README.md by {compiler}"), readme(compiler, &place));
        for name in GUIDES {
            count(&mut totals, &format!("docs/{name}.md by {compiler}"), guide(name, compiler, &place));
        }
        count(&mut totals, &format!("scull by {compiler}"), scull(compiler, &place));
    }
    for (board, package, program, args) in compilers::LINKS {
        let linked =
            tools::provide_program(package, program).and_then(|()| kernel(board, program, args, &out).map(drop));
        count(&mut totals, &format!("librtmm.a in a kernel for {board}"), linked);
    }
    count(&mut totals, &format!("a kernel in C on {BOOTED}"), booted(&out));
    Ok(totals)
}

/// A kernel in C that calls everything links with the library for a board, and lacks nothing.
fn kernel(board: &str, compiler: &str, args: &[&str], out: &Path) -> Result<PathBuf> {
    let board = Board::named(board)?;
    tools::provide(&[board])?;
    let archive = library::build(board)?;
    let kernel = out.join(format!("kernel-{}", board.name));
    let mut command = Command::new(compiler);
    command.current_dir(cargo::root()).args(args).args(C99).args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2"]);
    command.args(["-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector", "-nostdlib", "-static"]);
    command.args(["-I", "capi/include", "-I", "capi/tests", "-Wl,-e,kernel_start"]);
    command.arg("capi/tests/bare/kernel.c").args(SUITES);
    if board.name == BOOTED {
        command.args(["-DBOOTS", "capi/tests/bare/mps2-an385.c", "-Wl,-T,capi/tests/bare/mps2-an385.ld"]);
    }
    command.args(["-x", "none"]).arg(archive).arg("-o").arg(&kernel);
    compilers::run(&mut command).map(|_| kernel)
}

/// The board for which the kernel in C has start code.
const BOOTED: &str = "mps2-an385";

/// The kernel for that board, linked before, does as it promises: C from the first instruction on, and the library.
fn booted(out: &Path) -> Result<()> {
    let board = Board::named(BOOTED)?;
    let mut command = qemu::command(board, &out.join(format!("kernel-{BOOTED}")), &Boot::default())?;
    let mut said = Vec::new();
    let exit = process::run(&mut command, limit(60), |_, bytes| said.extend_from_slice(bytes))?;
    let said = String::from_utf8_lossy(&said);
    ensure!(exit == Exit::Code(board.codes.pass), "{} ended with {exit}:\n{said}", process::shown(&command));
    ensure!(said.lines().count() >= SETUP_TESTS, "it ran {} tests only:\n{said}", said.lines().count());
    Ok(())
}

/// Fewer tests than this are not all of `setup.inc`.
const SETUP_TESTS: usize = 10;

/// What every program is made from, and where it goes.
struct Place<'a> {
    archive: &'a Path,
    out: &'a Path,
}

impl Place<'_> {
    /// Compiles and links a program.
    fn link(&self, compiler: &Compiler, sources: &[&Path], name: &str) -> Result<PathBuf> {
        let program = self.out.join(format!("{name}-{}", compiler.program));
        let mut command = compiler.command(C99);
        command.args(["-g", "-no-pie", "-I", "capi/tests", "-I", "examples/c/scull"]).args(sources);
        // Behind a -x the archive would be taken for C.
        command.args(["-x", "none"]).arg(self.archive).arg("-o").arg(&program);
        compilers::run(&mut command)?;
        Ok(program)
    }
}

/// The program in the README does what it says.
fn readme(compiler: &Compiler, place: &Place<'_>) -> Result<()> {
    let source = place.out.join("five.c");
    std::fs::write(&source, snippets("README.md")?)?;
    let program = place.link(compiler, &[&source], "five")?;
    let said = compilers::run(&mut Command::new(program))?;
    ensure!(said == "five lines of C\n", "it said {said:?}");
    Ok(())
}

/// The snippets of a guide, taken together, are a file of C.
fn guide(name: &str, compiler: &Compiler, place: &Place<'_>) -> Result<()> {
    let source = place.out.join(format!("{name}.c"));
    std::fs::write(&source, snippets(&format!("docs/{name}.md"))?)?;
    let mut command = compiler.command(C99);
    command.arg("-fsyntax-only").arg(&source);
    compilers::run(&mut command).map(drop)
}

/// The drivers over the library store this program itself, as they do a file on a board.
fn scull(compiler: &Compiler, place: &Place<'_>) -> Result<()> {
    let sources = ["examples/c/host/scull.c", "examples/c/scull/device.c", "examples/c/scull/memory.c"].map(Path::new);
    let program = place.link(compiler, &sources, "scull")?;
    let said = compilers::run(Command::new(&program).arg(&program))?;
    let lines: Vec<String> = said.lines().map(str::to_owned).collect();
    println!("{}", crate::scull::check(&lines, &std::fs::read(&program)?)?);
    Ok(())
}

/// The blocks of C in a text, one behind the other.
fn snippets(file: &str) -> Result<String> {
    let text = std::fs::read_to_string(cargo::root().join(file)).with_context(|| file.to_owned())?;
    let blocks = text.split("\n```c\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
    let found: Vec<&str> = blocks.map(|(block, _)| block).collect();
    ensure!(!found.is_empty(), "{file} holds no C");
    Ok(found.join("\n\n") + "\n")
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
