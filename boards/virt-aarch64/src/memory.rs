//! The memory map from the device tree, and bringing the manager up.

use crate::mm::{Backend, MM};
use crate::{counter, interrupt, start};
use fdt::Fdt;
use rtmm::{Backend as _, BootMap, Config, MmError, PhysAddr, PhysRange, RamMap, VirtRange, ZoneKind, ZoneSpec};

/// The first UART, a PL011 (hw/arm/virt.c); the console uses semihosting, so it is free for drivers.
const PL011: (u64, usize) = (0x0900_0000, 0x1000);

/// The firmware's device, by which QEMU tells and is told things (hw/arm/virt.c).
pub const FW_CFG: (PhysAddr, usize) = (PhysAddr(0x0902_0000), 0x18);

/// Where QEMU puts the device tree of an ELF image: the start of RAM.
const RAM_BASE: usize = 0x4000_0000;

/// Width of a physical address on a Cortex-A53 (its TRM, ID_AA64MMFR0_EL1).
const PHYS_BITS: u32 = 40;

unsafe extern "C" {
    // Bounds of the image, from the linker script; only their addresses mean anything.
    safe static __image_start: u8;
    safe static __image_end: u8;
}

/// The device tree, and where it lies.
fn device_tree() -> (Fdt<'static>, usize) {
    let hint = start::device_tree_hint();
    let address = if hint == 0 { RAM_BASE } else { hint };
    // SAFETY: RAM begins there, so its first bytes can be read; a wrong magic number is an error below.
    let tree = unsafe { Fdt::from_ptr(address as *const u8) };
    (tree.expect("QEMU leaves a device tree at the start of RAM"), address)
}

/// RAM as the device tree tells it, without the tree itself, what the tree reserves, and the image.
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

/// Tells `each` what RAM no allocation may get: the device tree, what the tree reserves, and the image with the stack.
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
    each(PhysRange { start: &raw const __image_start as u64, end: &raw const __image_end as u64 });
}

/// Brings the board and the manager up. Called once, by the suite's setup or by `entry!`.
pub fn init() {
    counter::start();
    let mut ram = ram().expect("QEMU's device tree lists RAM");
    // As on Linux's arm64, the zone below 4 GiB is for devices with 32 address lines.
    let zones =
        [ZoneSpec { kind: ZoneKind::Dma32, end: 1 << 32 }, ZoneSpec { kind: ZoneKind::Normal, end: 1 << PHYS_BITS }];
    let config = Config::new(&zones, VirtRange { start: 0, end: 0 });
    // SAFETY: the map leaves out what the image, the firmware and the early tables use.
    unsafe { MM.init(&mut ram, &config) }.expect("RAM holds the manager's tables");
    MM.platform().boot_is_over();
    interrupt::start();
}

/// A device's registers, for `ioremap`: the PL011.
pub fn mmio() -> (PhysAddr, usize) {
    (PhysAddr(PL011.0), PL011.1)
}
