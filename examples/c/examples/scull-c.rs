//! Stores a real file through each of the four scull devices in C, reads it back and compares.
//!
//! The job of the demo `scull`, and what it prints, with drivers in C on the board's manager.
#![no_std]
#![no_main]

use core::ffi::CStr;
use crc32fast::Hasher;
use rtmm::Backend as _;
use rtmm_examples_c::board::{self, Backend, ExitCode, GuestFile, Kernel, MM, say};
use rtmm_examples_c::scull::{self, Device};
use rtmm_examples_c::{measure, tables};

rtmm_capi::export_c!(Kernel);

/// Bytes that go through the stack at once; no divisor of any quantum, so that short counts happen.
const BOUNCE: usize = 1536;
/// log2 of the pages in a quantum of scullv, in `scull/memory.c`.
const SCULLV_ORDER: usize = 4;
/// Lines of a table worth reading.
const LINES: usize = 14;
/// The devices.
const DEVICES: [&CStr; 4] = [c"scull", c"scullc", c"scullp", c"scullv"];

board::entry!(main);

fn main() {
    match store_everywhere() {
        Ok(()) => board::exit(ExitCode::Pass),
        Err(reason) => {
            say!("FAILED: {}", reason);
            board::exit(ExitCode::Fail);
        }
    }
}

fn store_everywhere() -> Result<(), &'static str> {
    if scull::page_shift() != Backend::PAGE_SHIFT {
        return Err("the drivers were compiled for another page size");
    }
    let file = board::file().ok_or("no file was given to this guest")?;
    let calibration = measure::Calibration::measure();
    MM.drain();
    let before = MM.free_page_count();
    say!("scull in C on {}: a file of {} bytes, {} pages free", board::NAME, file.len(), before);

    // Three quarters of the memory for quanta: the rest is for tables, arrays, and what does not fill its last page.
    // And less by one of scullv's quanta, of which the last may hold a single byte.
    let length = file.len().min((before / 4 * 3).saturating_sub(1 << SCULLV_ORDER) * Backend::PAGE_SIZE);
    if length < file.len() {
        say!("FILE-CUT {}", length);
    }
    for name in DEVICES {
        let label = name.to_str().unwrap_or("?");
        let mut device = Device::new(name).map_err(|_| "a device could not be made")?;
        let mut written = Ok(0);
        let ticks = measure::ticks(|| written = write(&mut device, &file, length));
        let written = written?;
        let (count, crc) = read(&device);
        say!("LENGTH {} {}", label, count);
        say!("CRC32 {} {:08x}", label, crc);
        if let Some(calibration) = calibration {
            say!("{}: written in {} instructions", label, calibration.instructions(ticks));
        }
        if (count, crc) != (length, written) {
            return Err("what was read back is not what was written");
        }
        tables::show(format_args!("with {} full", label), LINES);
        device.open_for_write();
        drop(device);
        nothing_lost(before)?;
    }
    if board::bugs() != 0 {
        return Err("the drivers freed something wrongly");
    }
    say!("NOTHING LOST");
    Ok(())
}

/// Stores the file; returns the CRC of what was stored.
fn write(device: &mut Device, file: &GuestFile, length: usize) -> Result<u32, &'static str> {
    let mut bounce = [0; BOUNCE];
    let mut crc = Hasher::new();
    let mut at = 0;
    while at < length {
        let wanted = BOUNCE.min(length - at);
        let got = file.read_at(at, &mut bounce[..wanted]);
        if got == 0 {
            return Err("the file ended early");
        }
        let taken = device.write(at, &bounce[..got]).map_err(|_| "no memory for the whole file")?;
        crc.update(&bounce[..taken]);
        at += taken;
    }
    Ok(crc.finalize())
}

/// Reads the device to its end; returns how much there was, and its CRC.
fn read(device: &Device) -> (usize, u32) {
    let mut bounce = [0; BOUNCE];
    let mut crc = Hasher::new();
    let mut at = 0;
    loop {
        let count = device.read(at, &mut bounce);
        if count == 0 {
            return (at, crc.finalize());
        }
        crc.update(&bounce[..count]);
        at += count;
    }
}

/// The free pages are back, and every invariant of the manager holds.
fn nothing_lost(before: usize) -> Result<(), &'static str> {
    MM.drain();
    let now = MM.free_page_count();
    if now != before {
        say!("{} pages were free before, {} are now", before, now);
        return Err("pages were lost");
    }
    MM.check().map_err(|_| "the manager's own check found damage")?;
    Ok(())
}
