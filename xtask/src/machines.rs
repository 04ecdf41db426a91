//! The machines behind the rows of boards: how QEMU is called for each, and what is run once more on another.

use crate::boards::{Again, Display, Door, Qemu, Ram};

/// On a PCI bus.
pub const BOCHS: Option<Display> = Some(Display { machine: "q35", device: "bochs-display" });

/// Frames that 32 address bits do not reach.
pub const PAST_4G: Again =
    Again { suites: &["far_frames"], machine: None, cpu: None, ram: Some("5G"), word: Some("past-4g") };

/// What depends on the machine most: the firmware's memory map, the devices, page tables and traps.
pub const ON_ANOTHER_MACHINE: &[&str] = &["boot", "faults", "guards", "vmalloc", "vmalloc_family"];

/// Suites on a machine that is not the default one.
pub const fn on(machine: &'static str) -> Again {
    Again { suites: ON_ANOTHER_MACHINE, machine: Some(machine), cpu: None, ram: None, word: None }
}

/// What several CPUs do, on machines whose firmware has started them before.
pub const SMP_ON_Q35: Again = Again { suites: &["smp"], ..on("q35") };
/// As on a q35.
pub const SMP_ON_PC: Again = Again { suites: &["smp"], ..on("pc") };

/// A hart whose memory protection keeps what was set until reset.
pub const WITHOUT_SMEPMP: Again =
    Again { suites: &["guards"], machine: None, cpu: Some("rv32"), ram: None, word: Some("locks-stay") };

/// What every x86 machine is started with.
pub const X86: Qemu = Qemu {
    program: "qemu-system-x86_64",
    package: "qemu-system-x86",
    machines: &["microvm", "q35", "pc"],
    args: &["-cpu", "max", "-accel", "tcg", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
    ram: Ram::Default("256M"),
    ram_base: Some(0),
    max_cpus: 1,
    door: Door::Pvh,
    icount: &["-icount", "shift=0,sleep=off"],
    display: None,
    again: &[],
};

/// Its `-smp` is the board's own: the start code waits for all of them.
pub const X86_SMP4: Qemu = Qemu {
    args: &["-cpu", "max", "-accel", "tcg", "-smp", "4", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
    ..X86
};

/// With the 32-bit processor, and RAM past the 896 MiB that have a kernel address.
pub const I386: Qemu = Qemu { program: "qemu-system-i386", ram: Ram::Default("2G"), ..X86 };

/// A microcontroller or machine of Arm's, one machine a board.
pub const fn arm(
    program: &'static str,
    machines: &'static [&'static str],
    args: &'static [&'static str],
    ram: Ram,
    icount: &'static [&'static str],
) -> Qemu {
    let (package, door) = ("qemu-system-arm", Door::Semihosting);
    Qemu { program, package, machines, args, ram, ram_base: None, max_cpus: 1, door, icount, display: None, again: &[] }
}

/// The board's 25 MHz timer ticks 1.6 times per instruction.
pub const AN385: Qemu = Qemu {
    ram_base: Some(0x2100_0000),
    ..arm("qemu-system-arm", &["mps2-an385"], &[], Ram::Fixed("16M"), &["-icount", "shift=6,sleep=off"])
};

/// The processor's 12.5 MHz timer ticks 1.6 times per instruction.
pub const LM3S: Qemu =
    arm("qemu-system-arm", &["lm3s6965evb"], &[], Ram::Fixed("64K"), &["-icount", "shift=7,sleep=off"]);

/// An instruction takes as long as a tick of the timer.
pub const AARCH64: Qemu = Qemu {
    ram_base: Some(0x4000_0000),
    ..arm(
        "qemu-system-aarch64",
        &["virt"],
        &["-cpu", "cortex-a53"],
        Ram::Default("128M"),
        &["-icount", "shift=4,sleep=off"],
    )
};

/// An instruction is as long as ten ticks of the timer.
pub const RV32: Qemu = Qemu {
    program: "qemu-system-riscv32",
    package: "qemu-system-misc",
    machines: &["virt"],
    // With Smepmp, so that guards by the PMP can be taken back.
    args: &["-bios", "none", "-cpu", "rv32,x-epmp=true"],
    ram: Ram::Default("128M"),
    ram_base: Some(0x8000_0000),
    max_cpus: 1,
    door: Door::Semihosting,
    icount: &["-icount", "shift=10,sleep=off"],
    display: None,
    again: &[WITHOUT_SMEPMP],
};
