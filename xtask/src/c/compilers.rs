//! The C compilers: which there are, and how they are called.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::boards::Board;
use crate::{cargo, tools};

/// A compiler and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compiler {
    /// The program.
    pub program: &'static str,
    /// Arguments of every call.
    pub args: &'static [&'static str],
    /// The Debian package.
    pub package: &'static str,
    /// What it compiles.
    pub languages: &'static [&'static [&'static str]],
}

const BOTH: &[&[&str]] = &[C99, CXX11];

/// The compilers of this machine.
pub const HOST: [Compiler; 2] = [
    Compiler { program: "gcc", args: &[], package: "g++", languages: BOTH },
    Compiler { program: "clang", args: &[], package: "clang", languages: BOTH },
];

/// Those of other machines, each for the headers and the drivers, without a C library.
pub const CROSS: [Compiler; 6] = [
    Compiler {
        program: "arm-none-eabi-gcc",
        args: &["-mcpu=cortex-m3", "-mthumb", "-ffreestanding"],
        package: "gcc-arm-none-eabi",
        languages: BOTH,
    },
    Compiler {
        program: "aarch64-linux-gnu-gcc",
        args: &["-ffreestanding"],
        package: "gcc-aarch64-linux-gnu",
        languages: &[C99],
    },
    Compiler {
        program: "riscv64-unknown-elf-gcc",
        args: &["-march=rv32imac", "-mabi=ilp32", "-ffreestanding"],
        package: "gcc-riscv64-unknown-elf",
        languages: BOTH,
    },
    Compiler {
        program: "clang",
        args: &["--target=thumbv7m-none-eabi", "-ffreestanding"],
        package: "clang",
        languages: BOTH,
    },
    Compiler {
        program: "clang",
        args: &["--target=riscv32-unknown-elf", "-march=rv32imac", "-ffreestanding"],
        package: "clang",
        languages: BOTH,
    },
    Compiler {
        program: "clang",
        args: &["--target=i586-unknown-none", "-ffreestanding"],
        package: "clang",
        languages: BOTH,
    },
];

/// How a kernel in C links `librtmm.a` for the boards whose pages the library has, each by its own toolchain.
pub const LINKS: [(&str, &str, &str, &[&str]); 5] = [
    ("qemu-x86_64", "gcc", "gcc", &["-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only"]),
    // Of this target Rust's own library has no memory functions, since an operating system would have them.
    ("qemu-i586", "gcc", "gcc", &["-m32", "-march=i586", "-mgeneral-regs-only", "-DBRINGS_MEMORY_FUNCTIONS"]),
    ("mps2-an385", "gcc-arm-none-eabi", "arm-none-eabi-gcc", &["-mcpu=cortex-m3", "-mthumb"]),
    ("virt-aarch64", "gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc", &["-mgeneral-regs-only"]),
    ("virt-rv32", "gcc-riscv64-unknown-elf", "riscv64-unknown-elf-gcc", &["-march=rv32imac", "-mabi=ilp32"]),
];

/// Makes sure of the compiler that the drivers in C are built with for a board.
///
/// It is the one that the build script of `examples/c` chooses.
pub fn provide(board: &Board) -> Result<()> {
    let Some(target) = board.target else { return tools::provide_program("gcc", "gcc") };
    let (package, program) = match target.split('-').next().unwrap_or_default() {
        "x86_64" => ("gcc", "gcc"),
        // -m32 without a C library needs nothing beside the compiler.
        "i586" => ("gcc", "gcc"),
        "aarch64" => ("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
        arch if arch.starts_with("thumb") => ("gcc-arm-none-eabi", "arm-none-eabi-gcc"),
        arch if arch.starts_with("riscv32") => ("gcc-riscv64-unknown-elf", "riscv64-unknown-elf-gcc"),
        _ => bail!("no C compiler is known for {target}"),
    };
    tools::provide_program(package, program)
}

/// A language the headers promise to be clean in.
pub const C99: &[&str] = &["-x", "c", "-std=c99"];
/// Another.
pub const CXX11: &[&str] = &["-x", "c++", "-std=c++11"];

/// What clean means.
const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

impl Compiler {
    /// The compiler, told to find the headers, in a language, with every warning an error.
    pub fn command(&self, language: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.current_dir(cargo::root()).args(self.args).args(language).args(WARNINGS);
        command.args(["-O2", "-I", "capi/include"]);
        command
    }

    /// Whether a header, included by a file that holds nothing else, passes all the compiler has to say.
    pub fn check(&self, language: &[&str], header: &Path) -> Result<()> {
        let mut command = self.command(language);
        command.args(["-fsyntax-only", "-include"]).arg(header).arg("capi/tests/alone.c");
        run(&mut command).map(drop)
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program)?;
        self.args.iter().take(1).try_for_each(|word| write!(f, " {word}"))
    }
}

/// Runs a command; what it printed, or an error with all it said.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let said = [&output.stdout[..], &output.stderr].concat();
    ensure!(
        output.status.success(),
        "{program} {} ended with {}:\n{}",
        words.join(" "),
        output.status,
        String::from_utf8_lossy(&said)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
