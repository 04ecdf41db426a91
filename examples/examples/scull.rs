//! Stores a real file through each of the four scull devices, reads it back and compares.
//!
//! For every device: size, CRC-32 of what came back, instructions and throughput, the manager's tables while it is
//! full and after it was emptied. The lines a runner looks for are `LENGTH`, `CRC32`, `FILE-CUT` and `NOTHING LOST`.
#![no_std]
#![no_main]

use crc32fast::Hasher;
use rtmm::Backend as _;
use rtmm_examples::board::{self, Backend, ExitCode, GuestFile, MM, say};
use rtmm_examples::measure::{self, Calibration};
use rtmm_examples::scull::{Cached, Device, Kmalloc, Paged, Store, Virtual};
use rtmm_examples::{highmem, tables};

/// Bytes that go through the stack at once; no divisor of any quantum, so that short counts happen.
const BOUNCE: usize = 1536;

/// log2 of the pages in a quantum of scullv.
const SCULLV_ORDER: usize = 4;

/// Lines of a table worth reading.
const LINES: usize = 14;

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
    let file = board::file().ok_or("no file was given to this guest")?;
    let calibration = Calibration::measure();
    MM.drain();
    let before = MM.free_page_count();
    say!("scull on {}: a file of {} bytes, {} pages free", board::NAME, file.len(), before);
    tables::show(format_args!("before"), LINES);

    // Three quarters of the memory for quanta: the rest is for tables, arrays, and what does not fill its last page.
    // And less by one of scullv's quanta, of which the last may hold a single byte.
    let room = (before / 4 * 3).saturating_sub(1 << SCULLV_ORDER).saturating_mul(Backend::PAGE_SIZE);
    let length = file.len().min(room);
    if length < file.len() {
        say!("FILE-CUT {}", length);
    }

    let job = Job { file: &file, length, calibration, before };
    job.run(Device::new(Kmalloc::new(&MM), 1000))?;
    job.run(Device::new(Cached::new(&MM).map_err(|_| "the cache scullc could not be made")?, 500))?;
    job.run(Device::new(Paged::new(&MM, 0), 500))?;
    job.run(Device::new(Virtual::new(&MM, SCULLV_ORDER), 500))?;
    if highmem::exists() {
        highmem::show()?;
    }

    tables::show(format_args!("after"), LINES);
    job.nothing_lost()?;
    say!("NOTHING LOST");
    Ok(())
}

/// What every device is to do.
struct Job<'a> {
    file: &'a GuestFile,
    length: usize,
    calibration: Option<Calibration>,
    before: usize,
}

impl Job<'_> {
    fn run<S: Store>(&self, mut device: Device<S>) -> Result<(), &'static str> {
        let mut written = Ok(0);
        let write_ticks = measure::ticks(|| written = self.write(&mut device));
        let mut read = (0, 0);
        let read_ticks = measure::ticks(|| read = self.read(&device));
        let (written, (length, crc)) = (written?, read);

        say!("LENGTH {} {}", S::NAME, length);
        say!("CRC32 {} {:08x}", S::NAME, crc);
        self.time(S::NAME, "written", write_ticks);
        self.time(S::NAME, "read", read_ticks);
        if (length, crc) != (self.length, written) {
            return Err("what was read back is not what was written");
        }
        tables::show(format_args!("with {} full", S::NAME), LINES);

        device.open_for_write().map_err(|_| "a free was refused")?;
        // The device goes first, and with scullc its cache, which would keep a slab.
        drop(device);
        self.nothing_lost()
    }

    /// Stores the file; returns the CRC of what was stored.
    fn write<S: Store>(&self, device: &mut Device<S>) -> Result<u32, &'static str> {
        let mut bounce = [0; BOUNCE];
        let mut crc = Hasher::new();
        let mut at = 0;
        while at < self.length {
            let wanted = BOUNCE.min(self.length - at);
            let got = self.file.read_at(at, &mut bounce[..wanted]);
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
    fn read<S: Store>(&self, device: &Device<S>) -> (usize, u32) {
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

    fn time(&self, device: &str, what: &str, ticks: u64) {
        let Some(calibration) = self.calibration else {
            say!("{}: {} {} bytes; instructions are not counted here", device, what, self.length);
            return;
        };
        let instructions = calibration.instructions(ticks).max(1);
        let throughput = self.length as u64 * 1000 / instructions;
        say!(
            "{}: {} {} bytes in {} instructions, {} bytes per 1000",
            device,
            what,
            self.length,
            instructions,
            throughput
        );
    }

    /// The free pages are back, and every invariant of the manager holds.
    fn nothing_lost(&self) -> Result<(), &'static str> {
        MM.drain();
        let now = MM.free_page_count();
        if now != self.before {
            say!("{} pages were free before, {} are now", self.before, now);
            return Err("pages were lost");
        }
        MM.check().map_err(|_| "the manager's own check found damage")?;
        Ok(())
    }
}
