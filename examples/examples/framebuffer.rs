//! A picture on a real device: its memory or registers by `ioremap`, drawn, read back, and left for the runner to look
//! at.
//!
//! `cargo xtask run --demo framebuffer --board qemu-x86_64` (a PCI display of q35) or `virt-aarch64` (pixels in RAM,
//! told to the firmware's device). The runner takes a picture of the screen and compares it.
#![no_std]
#![no_main]

use rtmm_examples::board::{self, ExitCode, say};
#[cfg(any(feature = "board-qemu-x86_64", feature = "board-qemu-i586", feature = "board-virt-aarch64"))]
use rtmm_examples::framebuffer::{HEIGHT, NoPicture, Screen, WIDTH, crc};

board::entry!(main);

#[cfg(any(feature = "board-qemu-x86_64", feature = "board-qemu-i586", feature = "board-virt-aarch64"))]
fn main() {
    if let Err(error) = picture() {
        say!("framebuffer failed: {}", error);
    }
    board::exit(ExitCode::Fail);
}

#[cfg(not(any(feature = "board-qemu-x86_64", feature = "board-qemu-i586", feature = "board-virt-aarch64")))]
fn main() {
    say!("{} has no display", board::NAME);
    board::exit(ExitCode::Fail);
}

/// Shows it until the runner has seen it and switches the machine off.
#[cfg(any(feature = "board-qemu-x86_64", feature = "board-qemu-i586", feature = "board-virt-aarch64"))]
fn picture() -> Result<(), NoPicture> {
    /// Turns of the wait, some minutes.
    const PATIENCE: u64 = 100_000_000_000;
    use rtmm_examples::board::MM;
    MM.drain();
    let before = MM.free_page_count();
    drop(Screen::open()?);
    MM.drain();
    if MM.free_page_count() != before {
        return Err(NoPicture::Because("a display that was closed kept something"));
    }
    let screen = Screen::open()?;
    screen.show()?;
    say!("{}", MM.vmallocinfo());
    say!("LENGTH screen {}", WIDTH * HEIGHT * 3);
    // Now the runner looks.
    say!("CRC32 screen {:08x}", crc());
    for turn in 0..PATIENCE {
        core::hint::black_box(turn);
    }
    drop(screen);
    say!("nobody looked at the screen");
    Ok(())
}
