//! The memory map, and bringing the manager up.

use crate::counter;
use crate::mm::{Backend, MM};
use rtmm::{Backend as _, BootMap, Config, MmError, PhysAddr, PhysRange, RamMap, VirtRange, ZoneKind, ZoneSpec};

/// UART 0 (data sheet, memory map); the console uses semihosting, so it is free for drivers.
const UART0: (u64, usize) = (0x4000_c000, 0x1000);

/// One past the SRAM (data sheet, memory map; `memory.x`).
const SRAM_END: u64 = 0x2001_0000;

/// Width of a physical address.
const PHYS_BITS: u32 = 32;

unsafe extern "C" {
    // Bounds of what the image leaves, from the linker script; only their addresses mean anything.
    safe static __managed_start: u8;
    safe static __managed_end: u8;
}

/// One stretch of RAM, and nothing reserved in it: two entries are enough, and leave the stack its room.
fn ram() -> Result<RamMap<2>, MmError> {
    let (start, end) = (&raw const __managed_start as u64, &raw const __managed_end as u64);
    let mut map: BootMap<2> = BootMap::new();
    map.add_ram(start, end - start)?;
    map.finish(Backend::PAGE_SHIFT, PHYS_BITS)
}

/// Tells `each` what memory no allocation may get: the flash and what of the image lies in the SRAM, and the stack at its
/// top.
pub fn reserved(each: impl FnMut(PhysRange)) {
    let (start, end) = (&raw const __managed_start as u64, &raw const __managed_end as u64);
    [PhysRange { start: 0, end: start }, PhysRange { start: end, end: SRAM_END }].into_iter().for_each(each);
}

/// Brings the board and the manager up. Called once, by the suite's setup or by `entry!`.
pub fn init() {
    counter::start();
    let mut ram = ram().expect("the linker script leaves RAM");
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: 1 << PHYS_BITS }];
    let config = Config::new(&zones, VirtRange { start: 0, end: 0 });
    // SAFETY: the map holds only what the image and the stack leave.
    unsafe { MM.init(&mut ram, &config) }.expect("the RAM holds the manager's tables");
    MM.platform().boot_is_over();
}

/// A device's registers, for `ioremap`: UART 0.
pub fn mmio() -> (PhysAddr, usize) {
    (PhysAddr(UART0.0), UART0.1)
}
