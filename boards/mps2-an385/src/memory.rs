//! The memory map, and bringing the manager up.

use crate::platform::BoardPlatform;
use crate::timer;
use rtmm::{BootMap, MmError, PhysAddr, RamMap};

/// The PSRAM (AN385, memory map). No part of the image lies in it.
const PSRAM: (u64, u64) = (0x2100_0000, 16 << 20);

/// CMSDK UART 0; the console uses semihosting, so it is free for drivers.
const UART0: (u64, usize) = (0x4000_4000, 0x1000);

/// log2 of the page size.
const PAGE_SHIFT: u32 = 12;
/// Width of a physical address.
const PHYS_BITS: u32 = 32;

fn ram() -> Result<RamMap, MmError> {
    let mut map: BootMap = BootMap::new();
    map.add_ram(PSRAM.0, PSRAM.1)?;
    map.finish(PAGE_SHIFT, PHYS_BITS)
}

/// Brings the board and the manager up. Called once, by the suite's setup or by `entry!`.
pub fn init() {
    timer::start();
    let ram = ram().expect("the map is a constant");
    board_semihosting::say!("{ram}");
    BoardPlatform.boot_is_over();
}

/// A device's registers, for `ioremap`: UART 0.
pub fn mmio() -> (PhysAddr, usize) {
    (PhysAddr(UART0.0), UART0.1)
}
