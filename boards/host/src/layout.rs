//! The made-up machine's physical address space, and where the process sees it.

use rtmm::{BootMap, MmError, PhysAddr, PhysRange, RamMap, Tuning, VirtRange, ZoneKind, ZoneSpec};
use std::io::Error;
use std::ptr;
use std::time::Duration;

/// Where the process sees the machine's first byte. A fixed address, which systems leave free, keeps runs alike.
///
/// Without an MMU it is a physical address too, and stays within the 128 GiB that the manager's descriptors reach.
pub(crate) const BASE: usize = if cfg!(feature = "mmu") { 0x0800_0000_0000 } else { 0x10_0000_0000 };

/// The physical address of the machine's first byte. Without an MMU addresses are physical, so it is where the process
/// sees it.
const ORIGIN: u64 = if cfg!(feature = "mmu") { 0 } else { BASE as u64 };

/// RAM, counted from the machine's first byte: start and length. Like a small PC's: below 640 KiB, then up to a hole,
/// more behind it, and some above 4 GiB, so that every zone has pages and frames have holes between them.
pub(crate) const RAM: [(u64, u64); 4] =
    [(0, 0x9_f000), (0x10_0000, (32 << 20) - 0x10_0000), (0x201_0000, (64 << 20) - 0x201_0000), (4 << 30, 64 << 20)];

/// A device, counted likewise: its one page answers reads with what was written there, and starts with [`DEVICE_ID`].
const DEVICE: (u64, u64) = (0xfed0_0000, 0x1000);

/// What a freshly started device says of itself.
const DEVICE_ID: u32 = 0x7274_6d6d;

/// One past the last byte that anything answers at.
pub(crate) const END: u64 = RAM[3].0 + RAM[3].1;

/// The zones of a PC.
pub(crate) const ZONES: &[ZoneSpec] = &[
    ZoneSpec { kind: ZoneKind::Dma, end: ORIGIN + (16 << 20) },
    ZoneSpec { kind: ZoneKind::Dma32, end: ORIGIN + (4 << 30) },
    ZoneSpec { kind: ZoneKind::Normal, end: u64::MAX },
];

/// Suites use up memory again and again, so nobody waits long for more.
pub(crate) const TUNING: Tuning = Tuning { max_wait: Duration::from_millis(30), ..Tuning::DEFAULT };

/// Where the process sees the machine's memory, holes included.
pub(crate) const fn direct_map() -> VirtRange {
    VirtRange { start: BASE, end: BASE + END as usize }
}

/// A device's registers, for `ioremap`.
pub fn mmio() -> (PhysAddr, usize) {
    (PhysAddr(ORIGIN + DEVICE.0), DEVICE.1 as usize)
}

/// What something answers at: RAM and the device.
pub(crate) fn answering() -> impl Iterator<Item = (u64, u64)> {
    RAM.into_iter().chain([DEVICE])
}

/// The boot map, told the way firmware tells it: out of order, overlapping, with reservations inside.
pub(crate) fn boot_map(page_shift: u32, phys_bits: u32) -> Result<RamMap, MmError> {
    let mut map: BootMap = BootMap::new();
    map.add_ram(ORIGIN + RAM[3].0, RAM[3].1)?;
    map.add_ram(ORIGIN + RAM[1].0, 1 << 20)?;
    map.add_ram(ORIGIN + RAM[0].0, RAM[0].1 + 0x400)?;
    map.add_ram(ORIGIN + RAM[2].0, RAM[2].1)?;
    map.add_ram(ORIGIN + RAM[1].0, RAM[1].1)?;
    // What is refused here `finish` tells.
    reserved(|range| {
        let _ = map.reserve(range.start, range.len());
    });
    map.finish(page_shift, phys_bits)
}

/// Tells `each` what RAM no allocation may get: a null pointer's page, and firmware tables.
pub fn reserved(each: impl FnMut(PhysRange)) {
    let range = |start, bytes| PhysRange { start: ORIGIN + start, end: ORIGIN + start + bytes };
    [range(0, 0x1000), range(0x1f0_0000, 0x1_2345)].into_iter().for_each(each);
}

/// What the memory is made of.
#[derive(Clone, Copy)]
pub(crate) enum Memory {
    /// Anonymous memory: seen only here.
    #[cfg_attr(feature = "mmu", allow(dead_code, reason = "frames must be mappable twice there"))]
    Private,
    /// A file whose offsets are counted from the machine's first byte, so that a frame can be mapped elsewhere too.
    #[cfg_attr(not(feature = "mmu"), allow(dead_code, reason = "nothing is mapped twice there"))]
    File(libc::c_int),
}

/// Makes the physical address space visible at [`BASE`]: memory where something answers, and nothing elsewhere.
///
/// # Panics
/// When the process has something there, or no memory: there is no machine to run on then.
pub(crate) fn power_on(memory: Memory) {
    reserve(BASE, END as usize);
    for (start, length) in answering() {
        let (kind, file, offset) = match memory {
            Memory::Private => (libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0),
            Memory::File(file) => (libc::MAP_SHARED, file, start as libc::off_t),
        };
        let at = ptr::without_provenance_mut(BASE + start as usize);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: replaces a piece of the reservation above, which nothing uses yet.
        let mapped = unsafe { libc::mmap(at, length as usize, access, kind | libc::MAP_FIXED, file, offset) };
        assert!(mapped == at, "no memory for the machine: {}", Error::last_os_error());
    }
    let id = ptr::with_exposed_provenance_mut::<u32>(BASE + DEVICE.0 as usize);
    // SAFETY: the device's page was mapped just now, readable and writable.
    unsafe { id.write_volatile(DEVICE_ID) };
}

/// Keeps a range of the process's addresses free of anything else; touching it faults.
///
/// # Panics
/// When the process has something there.
pub(crate) fn reserve(start: usize, length: usize) {
    let at = ptr::without_provenance_mut(start);
    let kind = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED nothing that exists is touched; the address is a wish.
    let got = unsafe { libc::mmap(at, length, libc::PROT_NONE, kind, -1, 0) };
    assert!(got == at, "the addresses from {start:#x} on are not free: {}", Error::last_os_error());
}
