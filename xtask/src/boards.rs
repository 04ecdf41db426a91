//! The one table of boards: what to build, how to boot it, how it answers.
//!
//! A new board is one folder under `boards/`, one row in [`BOARDS`] and how QEMU is called in `machines`; nothing else here
//! knows a board by name.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::machines::*;

/// One row: a way to build and run the same programs.
#[derive(Debug, Clone, Copy)]
pub struct Board {
    /// What `--board` takes; also the name of the folder under `boards/`, except for the second way to run the host.
    pub name: &'static str,
    /// The folder and package (`board-<family>`) behind the row; two rows share one on the host.
    pub family: &'static str,
    /// The Rust target; `None` is the machine xtask runs on.
    pub target: Option<&'static str>,
    /// Cargo features beside `board-<family>`.
    pub extra: &'static [&'static str],
    /// The suites it is there for, which are all that is run and checked on it; none means everything.
    pub suites: &'static [&'static str],
    /// How it boots; `None` means the program is run directly.
    pub qemu: Option<Qemu>,
    /// What the exit status means.
    pub codes: Codes,
    /// One line for `xtask boards`.
    pub about: &'static str,
}

/// How QEMU is called for a board.
#[derive(Debug, Clone, Copy)]
pub struct Qemu {
    /// The program.
    pub program: &'static str,
    /// The Debian package that brings it.
    pub package: &'static str,
    /// What `-M` takes; the first is the default.
    pub machines: &'static [&'static str],
    /// Arguments of every run.
    pub args: &'static [&'static str],
    /// Default RAM, and whether the machine takes another amount.
    pub ram: Ram,
    /// The physical address where RAM begins, if QEMU can put a file in its place.
    pub ram_base: Option<u64>,
    /// The most CPUs the board's start code is written for.
    pub max_cpus: u32,
    /// How arguments, files and text pass between the host and the guest.
    pub door: Door,
    /// The arguments that make the instruction counter exact.
    pub icount: &'static [&'static str],
    /// How it gets a display, if its programs can drive one.
    pub display: Option<Display>,
    /// What is run once more, on a machine that differs.
    pub again: &'static [Again],
}

/// A display that programs drive.
#[derive(Debug, Clone, Copy)]
pub struct Display {
    /// The machine that takes it.
    pub machine: &'static str,
    /// `-device`.
    pub device: &'static str,
}

/// A further run of some suites.
#[derive(Debug, Clone, Copy)]
pub struct Again {
    /// The suites.
    pub suites: &'static [&'static str],
    /// `-M`, when not the board's default.
    pub machine: Option<&'static str>,
    /// `-cpu`, when not the board's.
    pub cpu: Option<&'static str>,
    /// RAM, as QEMU's `-m`, when not the board's default.
    pub ram: Option<&'static str>,
    /// The word that tells the guest.
    pub word: Option<&'static str>,
}

/// RAM of a machine, in the syntax of `-m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ram {
    /// May be changed by `--mem`.
    Default(&'static str),
    /// Soldered on: QEMU refuses any other amount.
    Fixed(&'static str),
}

/// How the host and the guest talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// x86: PVH command line and module, text on the first serial port, defmt on port 0xe9, exit by isa-debug-exit.
    Pvh,
    /// Arm: everything through semihosting calls, files by their path on the host.
    Semihosting,
}

/// Exit statuses of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codes {
    /// The test returned, the program ended well.
    pub pass: i32,
    /// A panic, or a test that returned an error.
    pub fail: i32,
    /// A hardware fault, reported.
    pub fault: i32,
}

/// isa-debug-exit turns a written value v into the status `2 * v + 1`: 0x10, 0x11 and 0x32 are written.
const DEBUG_EXIT: Codes = Codes { pass: 33, fail: 35, fault: 101 };
/// What semihosting and ordinary processes end with; 134 is the shell's name for SIGABRT.
const PLAIN_EXIT: Codes = Codes { pass: 0, fail: 134, fault: 101 };

/// The suites that are run with the debugging features.
const DEBUGGED: &[&str] = &["bad_input", "debug", "faults", "kmalloc", "pages", "vmalloc"];

/// The suites that are run with feature `small`.
const SMALL: &[&str] = &[
    "bad_input",
    "caches",
    "failure_injection",
    "faults",
    "kmalloc",
    "pages",
    "vmalloc",
    "vmalloc_family",
    "waiting",
    "zones",
];

/// The suites that are run with feature `small` where there is a timer to interrupt it.
const SMALL_ON_BOARD: &[&str] = &["caches", "kmalloc", "pages", "storm", "sweep", "vmalloc", "waiting"];

/// The suites that take blocks of the largest order.
const OF_LARGE_BLOCKS: &[&str] = &["bad_input", "far_frames", "kmalloc", "pages", "storm", "zones"];

/// A row on the host.
const HOST: Board = Board {
    name: "host",
    family: "host",
    target: None,
    extra: &[],
    suites: &[],
    qemu: None,
    codes: PLAIN_EXIT,
    about: "the manager in a process, without an MMU, on an arena",
};

const QEMU_X86_64: Board = Board {
    name: "qemu-x86_64",
    family: "qemu-x86_64",
    target: Some("x86_64-unknown-none"),
    extra: &["mmu"],
    suites: &[],
    qemu: Some(Qemu { display: BOCHS, again: &[PAST_4G, on("q35"), on("pc")], ..X86 }),
    codes: DEBUG_EXIT,
    about: "x86-64 under QEMU, real page tables",
};

const QEMU_I586: Board = Board {
    name: "qemu-i586",
    family: "qemu-i586",
    target: Some("i586-unknown-linux-gnu"),
    extra: &["mmu"],
    suites: &[],
    qemu: Some(Qemu { display: BOCHS, again: &[PAST_4G], ..I386 }),
    codes: DEBUG_EXIT,
    about: "32-bit x86 under QEMU, PAE page tables, HIGHMEM",
};

const MPS2_AN385: Board = Board {
    name: "mps2-an385",
    family: "mps2-an385",
    target: Some("thumbv7m-none-eabi"),
    extra: &[],
    suites: &[],
    qemu: Some(AN385),
    codes: PLAIN_EXIT,
    about: "Cortex-M3 under QEMU, 16 MiB of PSRAM, no MMU",
};

const VIRT_AARCH64: Board = Board {
    name: "virt-aarch64",
    family: "virt-aarch64",
    target: Some("aarch64-unknown-none"),
    extra: &[],
    suites: &[],
    qemu: Some(Qemu { display: Some(Display { machine: "virt", device: "ramfb" }), ..AARCH64 }),
    codes: PLAIN_EXIT,
    about: "Cortex-A53 under QEMU, its MMU left off",
};

/// Every board.
pub const BOARDS: &[Board] = &[
    HOST,
    Board {
        name: "host-mmu",
        extra: &["mmu"],
        about: "the manager in a process, x86 page tables on the simulated machine",
        ..HOST
    },
    Board {
        name: "host-small",
        extra: &["small"],
        suites: SMALL,
        about: "host with less code rather than fewer instructions",
        ..HOST
    },
    QEMU_X86_64,
    Board {
        name: "qemu-x86_64-smp4",
        extra: &["mmu", "smp"],
        // The firmware starts the other CPUs on these first, and takes them down again.
        qemu: Some(Qemu { again: &[SMP_ON_Q35, SMP_ON_PC], ..X86_SMP4 }),
        about: "qemu-x86_64 with four CPUs",
        ..QEMU_X86_64
    },
    Board {
        name: "qemu-x86_64-debug",
        extra: &["mmu", "debug"],
        suites: DEBUGGED,
        qemu: Some(X86),
        about: "qemu-x86_64 with the debugging features",
        ..QEMU_X86_64
    },
    Board {
        name: "qemu-x86_64-smp4-debug",
        extra: &["mmu", "smp", "debug"],
        suites: &["debug", "smp"],
        qemu: Some(X86_SMP4),
        about: "qemu-x86_64-smp4 with the debugging features",
        ..QEMU_X86_64
    },
    QEMU_I586,
    Board {
        name: "qemu-i586-debug",
        extra: &["mmu", "debug"],
        // Each boot fills all free memory.
        suites: &["debug"],
        qemu: Some(Qemu { ram: Ram::Default("1G"), ..I386 }),
        about: "qemu-i586 with the debugging features",
        ..QEMU_I586
    },
    MPS2_AN385,
    Board {
        name: "mps2-an385-debug",
        extra: &["debug"],
        suites: DEBUGGED,
        about: "mps2-an385 with the debugging features",
        ..MPS2_AN385
    },
    Board {
        name: "mps2-an385-small",
        extra: &["small"],
        suites: SMALL_ON_BOARD,
        about: "mps2-an385 with less code rather than fewer instructions",
        ..MPS2_AN385
    },
    Board {
        name: "lm3s6965evb",
        family: "lm3s6965evb",
        qemu: Some(LM3S),
        about: "Cortex-M3 under QEMU, 64 KiB of RAM in small pages",
        ..MPS2_AN385
    },
    VIRT_AARCH64,
    Board {
        name: "virt-aarch64-order13",
        extra: &["max-order-13"],
        suites: OF_LARGE_BLOCKS,
        qemu: Some(Qemu { ram: Ram::Default("256M"), ..AARCH64 }),
        about: "virt-aarch64 with blocks of up to 32 MiB",
        ..VIRT_AARCH64
    },
    Board {
        name: "virt-rv32",
        family: "virt-rv32",
        target: Some("riscv32imac-unknown-none-elf"),
        extra: &[],
        suites: &[],
        qemu: Some(RV32),
        codes: PLAIN_EXIT,
        about: "32-bit RISC-V under QEMU, machine mode, no MMU",
    },
];

/// The board of `cargo xtask run`.
pub const DEFAULT_BOARD: &str = "qemu-x86_64";

/// The environment variable that stretches or shrinks every time limit.
pub const SCALE_VARIABLE: &str = "XTASK_TIMEOUT_SCALE";

impl Board {
    /// The board of this exact name.
    pub fn named(name: &str) -> Result<&'static Board> {
        match BOARDS.iter().find(|board| board.name == name) {
            Some(board) => Ok(board),
            None => bail!("no board is called {name:?}; there are {}", names()),
        }
    }

    /// The boards a `--board` of the test command means: one row, both rows of the host, or all of them.
    pub fn selected(name: Option<&str>) -> Result<Vec<&'static Board>> {
        match name {
            None | Some("all") => Ok(BOARDS.iter().collect()),
            Some("host") => Ok(BOARDS.iter().filter(|board| board.is_host()).collect()),
            Some(name) => Ok(vec![Board::named(name)?]),
        }
    }

    /// Whether its programs run as processes of this machine.
    pub fn is_host(&self) -> bool {
        self.qemu.is_none()
    }

    /// Whether everything is run on it, not some suites only.
    pub fn is_whole(&self) -> bool {
        self.suites.is_empty()
    }

    /// Whether the bench runs on it: a second row of a board is for its suites, and would measure the same code again,
    /// unless it has more CPUs.
    pub fn is_measured(&self) -> bool {
        self.counts_instructions() && self.is_whole() && (self.name == self.family || self.extra.contains(&"smp"))
    }

    /// Whether it has a counter that repeats exactly.
    pub fn counts_instructions(&self) -> bool {
        self.qemu.is_some_and(|qemu| !qemu.icount.is_empty())
    }

    /// The features that make a package of suites or examples one for this board.
    pub fn features(&self, defmt: bool) -> String {
        let mut features = vec![format!("board-{}", self.family)];
        features.extend(self.extra.iter().map(|feature| (*feature).to_owned()));
        if defmt {
            features.push("defmt".to_owned());
        }
        features.join(",")
    }
}

impl Qemu {
    /// The machine asked for, or the default one.
    pub fn machine(&self, wanted: Option<&str>) -> Result<&'static str> {
        let Some(wanted) = wanted else { return Ok(self.machines[0]) };
        match self.machines.iter().find(|machine| **machine == wanted) {
            Some(machine) => Ok(machine),
            None => bail!("{} boots on {}, not on {wanted:?}", self.program, self.machines.join(", ")),
        }
    }
}

/// All names, for messages.
pub fn names() -> String {
    BOARDS.iter().map(|board| board.name).collect::<Vec<_>>().join(", ")
}

/// A time limit for a machine of unknown speed: [`SCALE_VARIABLE`] times `seconds`.
///
/// The default of 3 leaves room for shared runners; a limit only ends what hangs.
pub fn limit(seconds: u64) -> Duration {
    let scale = std::env::var(SCALE_VARIABLE).ok().and_then(|text| text.parse::<f64>().ok());
    let scale = scale.filter(|scale| scale.is_finite() && *scale > 0.0).unwrap_or(3.0);
    Duration::from_secs_f64((seconds as f64 * scale).min(86_400.0))
}

/// `xtask boards`.
pub fn print() {
    for board in BOARDS {
        let target = board.target.unwrap_or("this machine");
        println!("{:<13} {:<22} {}", board.name, target, board.about);
        if let Some(qemu) = board.qemu {
            let ram = match qemu.ram {
                Ram::Default(ram) => format!("{ram} (--mem)"),
                Ram::Fixed(ram) => ram.to_owned(),
            };
            println!("{:13} {}: {}; RAM {ram}", "", qemu.program, qemu.machines.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_each_row_has_its_folder() {
        for (index, board) in BOARDS.iter().enumerate() {
            assert!(BOARDS[..index].iter().all(|earlier| earlier.name != board.name), "{} twice", board.name);
            let folder = crate::cargo::root().join("boards").join(board.family);
            assert!(folder.join("Cargo.toml").is_file(), "{} has no package", folder.display());
        }
    }

    #[test]
    fn host_means_all_ways_to_run_it() {
        let names: Vec<_> = Board::selected(Some("host")).unwrap().iter().map(|board| board.name).collect();
        assert_eq!(names, ["host", "host-mmu", "host-small"]);
        assert_eq!(Board::selected(None).unwrap().len(), BOARDS.len());
        assert!(Board::selected(Some("pdp11")).unwrap_err().to_string().contains("mps2-an385"));
    }

    #[test]
    fn status_zero_of_x86_is_not_a_pass() {
        // A triple fault under -no-reboot ends QEMU with 0.
        let x86 = Board::named("qemu-x86_64").unwrap().codes;
        assert!(![x86.pass, x86.fail, x86.fault].contains(&0));
    }

    #[test]
    fn features_name_the_family_and_what_it_adds() {
        assert_eq!(Board::named("host-mmu").unwrap().features(false), "board-host,mmu");
        assert_eq!(Board::named("mps2-an385").unwrap().features(true), "board-mps2-an385,defmt");
    }

    #[test]
    fn unknown_machine_is_refused() {
        let qemu = Board::named(DEFAULT_BOARD).unwrap().qemu.unwrap();
        assert_eq!(qemu.machine(None).unwrap(), "microvm");
        assert_eq!(qemu.machine(Some("q35")).unwrap(), "q35");
        assert!(qemu.machine(Some("virt")).is_err());
    }
}
