//! The memory map from the device tree, and bringing the manager up.

use crate::mm::{Backend, MM};
use crate::{interrupt, protection, start};
use fdt::Fdt;
use rtmm::backend::Guarded as _;
use rtmm::{Backend as _, BootMap, Config, MmError, PhysAddr, PhysRange, RamMap, VirtRange, ZoneKind, ZoneSpec};

/// The first UART, a 16550 (hw/riscv/virt.c); the console uses semihosting, so it is free for drivers.
const UART: (u64, usize) = (0x1000_0000, 0x1000);

/// Width of a physical address: without translation a hart reaches what its registers hold.
const PHYS_BITS: u32 = 32;

unsafe extern "C" {
    // Bounds of the image and of the stack, from riscv-rt's linker script; only their addresses mean anything.
    safe static __stext: u8;
    safe static __euninit: u8;
    safe static __estack: u8;
    safe static __sstack: u8;
}

/// The device tree, and where it lies.
fn device_tree() -> (Fdt<'static>, usize) {
    let address = start::device_tree();
    // SAFETY: a1 at reset is the tree's address (the boot protocol of RISC-V); a wrong magic number is an error.
    (unsafe { Fdt::from_ptr(address as *const u8) }.expect("QEMU passes a device tree"), address)
}

/// RAM as the device tree tells it, without the tree itself, what the tree reserves, the image and the stack.
fn ram() -> Result<RamMap, MmError> {
    let (tree, _) = device_tree();
    let mut map: BootMap = BootMap::new();
    for region in tree.memory().regions() {
        map.add_ram(region.starting_address as u64, region.size.unwrap_or(0) as u64)?;
    }
    // What is refused here `finish` tells.
    reserved(|range| {
        let _ = map.reserve(range.start, range.len());
    });
    map.finish(Backend::PAGE_SHIFT, PHYS_BITS)
}

/// Tells `each` what RAM no allocation may get: the device tree, what the tree reserves, the image and the stack.
pub fn reserved(mut each: impl FnMut(PhysRange)) {
    let (tree, address) = device_tree();
    let range = |start: u64, bytes: usize| PhysRange { start, end: start + bytes as u64 };
    each(range(address as u64, tree.total_size()));
    for reserved in tree.memory_reservations() {
        each(range(reserved.address() as u64, reserved.size()));
    }
    for node in tree.find_node("/reserved-memory").into_iter().flat_map(|node| node.children()) {
        for region in node.reg().into_iter().flatten() {
            each(range(region.starting_address as u64, region.size.unwrap_or(0)));
        }
    }
    for (start, end) in [(&raw const __stext, &raw const __euninit), (&raw const __estack, &raw const __sstack)] {
        each(PhysRange { start: start as u64, end: end as u64 });
    }
}

/// Brings the board and the manager up. Called once, by the suite's setup or by `entry!`.
pub fn init() {
    let mut ram = ram().expect("QEMU's device tree lists RAM");
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: 1 << PHYS_BITS }];
    protection::start(MM.backend().regions());
    board_semihosting::name_areas_by(|addr| MM.find_area(addr));
    let config = Config::new(&zones, VirtRange { start: 0, end: 0 });
    // SAFETY: the map leaves out what the image, the firmware and the early tables use.
    unsafe { MM.init(&mut ram, &config) }.expect("RAM holds the manager's tables");
    MM.platform().boot_is_over();
    interrupt::start();
}

/// A device's registers, for `ioremap`: the UART.
pub fn mmio() -> (PhysAddr, usize) {
    (PhysAddr(UART.0), UART.1)
}
