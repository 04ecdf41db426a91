//! The memory map, and bringing the manager up.

use crate::counter;
use crate::mm::{Backend, MM};
use rtmm::backend::Guarded as _;
use rtmm::{Backend as _, BootMap, Config, MmError, PhysAddr, PhysRange, RamMap, VirtRange, ZoneKind, ZoneSpec};

/// The PSRAM (AN385, memory map). No part of the image lies in it.
const PSRAM: (u64, u64) = (0x2100_0000, 16 << 20);

/// CMSDK UART 0; the console uses semihosting, so it is free for drivers.
const UART0: (u64, usize) = (0x4000_4000, 0x1000);

/// Width of a physical address.
const PHYS_BITS: u32 = 32;

fn ram() -> Result<RamMap, MmError> {
    let mut map: BootMap = BootMap::new();
    map.add_ram(PSRAM.0, PSRAM.1)?;
    map.finish(Backend::PAGE_SHIFT, PHYS_BITS)
}

/// Tells `each` what memory no allocation may get: all below the PSRAM, where the image and the stack are.
pub fn reserved(mut each: impl FnMut(PhysRange)) {
    each(PhysRange { start: 0, end: PSRAM.0 });
}

/// Brings the board and the manager up. Called once, by the suite's setup or by `entry!`.
pub fn init() {
    counter::start();
    MM.backend().regions().enable();
    board_semihosting::name_areas_by(|addr| MM.find_area(addr));
    let mut ram = ram().expect("the map is a constant");
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: 1 << PHYS_BITS }];
    let config = Config::new(&zones, VirtRange { start: 0, end: 0 });
    // SAFETY: the map leaves out what the image, the firmware and the early tables use.
    unsafe { MM.init(&mut ram, &config) }.expect("the PSRAM holds its own tables");
    MM.platform().boot_is_over();
}

/// A device's registers, for `ioremap`: UART 0.
pub fn mmio() -> (PhysAddr, usize) {
    (PhysAddr(UART0.0), UART0.1)
}
