//! What the firmware and the runner hand over: RAM, the command line, a file.
//!
//! The loader leaves an `hvm_start_info` (Xen, `public/arch-x86/hvm/start_info.h`). It may lie in memory that is no
//! RAM to the memory map (a shadowed ROM), which the final tables do not map, so everything but the file's bytes is
//! copied out at start.

use crate::boot_cell::BootCell;
use crate::image::Image;
use core::ptr;
use heapless::Vec;
use rtmm::{BootMap, MmError, PhysRange, RamMap};

/// `hvm_start_info.magic`.
const MAGIC: u32 = 0x336e_c578;
/// The type of usable RAM in the memory map, as in E820.
const TYPE_RAM: u32 = 1;
/// QEMU gives a PVH kernel at most that much command line.
const CMDLINE_MAX: usize = 4096;
/// One page.
const PAGE: usize = 4096;
/// Far more pieces of RAM than a PC's firmware lists.
const RAM_MAX: usize = 32;

/// `hvm_start_info`, version 1.
#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    cmdline: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

/// `hvm_modlist_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ModuleEntry {
    start: u64,
    size: u64,
    cmdline: u64,
    reserved: u64,
}

/// `hvm_memmap_table_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryEntry {
    start: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

/// How a board reaches what was handed over.
#[derive(Clone, Copy)]
pub struct Loader {
    /// Where the boot tables map physical address 0, and how much from there on.
    pub direct_map: usize,
    /// One past the last physical address they map.
    pub reach: u64,
    /// Copies bytes of one page of RAM, at a physical address, once the board is up.
    ///
    /// The page is reserved RAM that holds the guest's file, and the bytes lie in it.
    pub copy: unsafe fn(u64, &mut [u8]),
}

/// What was handed over.
pub struct Firmware {
    /// Usable RAM as listed: unsorted, untrimmed, the kernel's own image included.
    pub ram: Vec<(u64, u64), RAM_MAX>,
    /// The file given to the guest.
    pub module: Option<PhysRange>,
    cmdline: Vec<u8, CMDLINE_MAX>,
    loader: Loader,
}

static FIRMWARE: BootCell<Firmware> = BootCell::new();

/// What was handed over.
pub fn firmware() -> &'static Firmware {
    FIRMWARE.get().expect("the start code read the start info")
}

impl Loader {
    /// Copies one record out of the boot tables' direct map.
    ///
    /// # Safety
    /// `phys` is the address of a `T`, and the boot tables are active.
    unsafe fn read<T: Copy>(&self, phys: u64) -> T {
        let within = phys.checked_add(size_of::<T>() as u64).is_some_and(|end| end <= self.reach);
        assert!(phys != 0 && within, "firmware data at {phys:#x} is out of reach");
        // SAFETY: the boot tables map this address; nothing says that the record is aligned.
        unsafe { ptr::read_unaligned(ptr::with_exposed_provenance(self.direct_map + phys as usize)) }
    }
}

/// Reads the start info at physical address `start_info`, and keeps what it says.
///
/// # Panics
/// When there is none there, or it is out of reach.
///
/// # Safety
/// Called once, on boot tables as `loader` says, with the address the loader left in EBX.
pub unsafe fn read_start_info(start_info: usize, loader: Loader) {
    // SAFETY: by this function's contract.
    let info: StartInfo = unsafe { loader.read(start_info as u64) };
    assert!(info.magic == MAGIC, "no PVH start info at {start_info:#x}: magic {:#x}", info.magic);
    assert!(info.version >= 1, "the start info has no memory map: version {}", info.version);

    let mut ram = Vec::new();
    for i in 0..u64::from(info.memory_map_entries) {
        // SAFETY: the loader's table has that many entries.
        let entry: MemoryEntry = unsafe { loader.read(info.memory_map + i * size_of::<MemoryEntry>() as u64) };
        if entry.kind == TYPE_RAM {
            ram.push((entry.start, entry.size)).expect("the firmware lists more pieces of RAM than there is room for");
        }
    }

    let mut cmdline = Vec::new();
    if info.cmdline != 0 {
        for at in info.cmdline.. {
            // SAFETY: the line ends with a null byte, and everything up to it is read.
            match unsafe { loader.read::<u8>(at) } {
                0 => break,
                byte => cmdline.push(byte).expect("the command line is too long"),
            }
        }
    }

    let module = (info.modules != 0).then(|| {
        // SAFETY: the list has at least one entry.
        let entry: ModuleEntry = unsafe { loader.read(info.module_list) };
        PhysRange { start: entry.start, end: entry.start + entry.size }
    });

    // SAFETY: the one call, with interrupts off.
    unsafe { FIRMWARE.set(Firmware { ram, module, cmdline, loader }) };
}

/// RAM as the firmware lists it, minus what is in use already: the first MiB, which is the firmware's (and other CPUs
/// start in its page 8), the image, and the guest's file.
///
/// The start info, the command line and the memory map were copied out, so their pages are free again.
///
/// # Errors
/// As [`BootMap::finish`].
pub fn boot_map(image: &Image, phys_bits: u32) -> Result<RamMap, MmError> {
    let firmware = firmware();
    let mut map: BootMap = BootMap::new();
    for &(start, size) in &firmware.ram {
        map.add_ram(start, size)?;
    }
    // What is refused here `finish` tells.
    reserved(image, |range| {
        let _ = map.reserve(range.start, range.len());
    });
    map.finish(12, phys_bits)
}

/// Tells `each` what RAM is in use before the manager is up, and stays so.
pub fn reserved(image: &Image, each: impl FnMut(PhysRange)) {
    let low = PhysRange { start: 0, end: 1 << 20 };
    [Some(low), Some(image.frames()), firmware().module].into_iter().flatten().for_each(each);
}

/// The command line given by the runner. Readable at any time, `init` or not.
pub fn args() -> &'static str {
    FIRMWARE.get().and_then(|firmware| str::from_utf8(&firmware.cmdline).ok()).unwrap_or("").trim()
}

/// The file given to the guest, as the loader's first module (`-initrd FILE`).
#[derive(Clone, Copy, Debug)]
pub struct GuestFile {
    range: PhysRange,
}

/// The file given to the guest, if there is one.
pub fn file() -> Option<GuestFile> {
    firmware().module.map(|range| GuestFile { range })
}

impl GuestFile {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.range.len() as usize
    }

    /// True when it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes from `offset` on into `buffer` and returns how many; 0 at the end of the file.
    pub fn read_at(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.len().saturating_sub(offset));
        let mut done = 0;
        while done < count {
            let at = self.range.start + (offset + done) as u64;
            let here = (count - done).min(PAGE - at as usize % PAGE);
            // SAFETY: the module's pages are RAM, reserved for good and so nobody else's; the bytes lie in one of them.
            unsafe { (firmware().loader.copy)(at, &mut buffer[done..done + here]) };
            done += here;
        }
        count
    }
}
