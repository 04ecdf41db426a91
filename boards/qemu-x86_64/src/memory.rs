//! The kernel's address space, and the hand-over of RAM to the manager.

use crate::mm::MM;
use crate::{fw, image, platform};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use rtmm::backend::{Hw, Machine, kernel};
use rtmm::{BootMap, Config, MmError, Pfn, RamMap, VirtRange, ZoneKind, ZoneSpec};

/// Where physical address 0 appears in the direct map, before and after [`init`].
pub(crate) const DIRECT_MAP: usize = 0xffff_8880_0000_0000;
/// One past the room for the direct map: 64 TiB of it, as on Linux.
pub(crate) const DIRECT_MAP_END: usize = 0xffff_c880_0000_0000;
/// Where vmalloc puts its areas. It starts as on Linux; 64 GiB are a few times the RAM of such machines, and cost the
/// manager 384 KiB.
const VMALLOC: VirtRange = VirtRange { start: 0xffff_c900_0000_0000, end: 0xffff_c910_0000_0000 };
/// A PC's zones: what 24 address lines reach, what 32 reach, and the rest.
const ZONES: [ZoneSpec; 3] = [
    ZoneSpec { kind: ZoneKind::Dma, end: 16 << 20 },
    ZoneSpec { kind: ZoneKind::Dma32, end: 4 << 30 },
    ZoneSpec { kind: ZoneKind::Normal, end: u64::MAX },
];
/// What the boot tables map.
const BOOT_REACH: u64 = 4 << 30;
/// log2 of the page size.
const PAGE_SHIFT: u32 = 12;

/// Brings the manager up: RAM from the firmware, the final tables, the manager itself, then interrupts. Called once, by `entry!` or by a
/// suite's setup.
///
/// # Panics
/// When called again, or when the machine has no RAM for the tables.
pub fn init() {
    static DONE: AtomicBool = AtomicBool::new(false);
    assert!(!DONE.swap(true, Relaxed), "the board is up already");

    let mut ram = boot_map().expect("the firmware's memory map is usable");
    let root = tables(&mut ram).expect("the kernel's tables can be built");
    // SAFETY: the tables have the whole image, which holds the stack and the descriptor tables, where it is now; the
    // boot tables use neither no-execute nor read-only entries.
    unsafe { kernel::activate(&Hw, root) }.expect("the CPU has what the tables rely on");
    // SAFETY: the map leaves out what the image, the firmware and the early tables use.
    unsafe { MM.init(&mut ram, &Config::new(&ZONES, VMALLOC)) }.expect("the manager takes over the RAM");
    platform::start_tasks();
}

/// RAM as the firmware lists it, minus what is in use already.
///
/// The start info, the command line and the memory map were copied out, so their pages are free again.
fn boot_map() -> Result<RamMap, MmError> {
    let firmware = fw::firmware();
    let mut map: BootMap = BootMap::new();
    for &(start, size) in &firmware.ram {
        map.add_ram(start, size)?;
    }
    // The first MiB is the firmware's, and other CPUs start in its page 8.
    map.reserve(0, 1 << 20)?;
    map.reserve(image::frames().start, image::frames().len())?;
    if let Some(module) = firmware.module {
        map.reserve(module.start, module.len())?;
    }
    map.finish(PAGE_SHIFT, Hw.phys_bits())
}

/// Builds the final tables: the image with a protection for each part, the direct map of RAM, and nothing else.
fn tables(ram: &mut RamMap) -> Result<Pfn, MmError> {
    let all = ram.clone();
    let mut take = || ram.alloc_top(1 << PAGE_SHIFT, 1, BOOT_REACH).map(|page| Pfn((page.start >> PAGE_SHIFT) as u32));
    // SAFETY: `alloc_top` gives each page once, free RAM that the boot tables reach.
    unsafe { kernel::build(&Hw, &image::segments(), all.spans(), VMALLOC, &mut take) }
}
