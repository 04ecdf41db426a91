//! The kernel's address space, and the hand-over of RAM to the manager.

use crate::mm::MM;
use board_x86_qemu::{Image, Layout, Loader, boot_map, start_tasks};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use rtmm::backend::{Hw, Machine, kernel};
use rtmm::{Backend, Config, MmError, Pfn, PhysRange, RamMap, VirtRange, ZoneKind, ZoneSpec};

/// The program; its base is `KERNEL_BASE` in `board.x`.
const IMAGE: Image = Image { base: 0xffff_ffff_8000_0000 };
/// What fault reports know of the address space. The direct map has room for 64 TiB, as on Linux.
pub(crate) static LAYOUT: Layout = Layout {
    image: IMAGE,
    direct: VirtRange { start: Hw::DIRECT_MAP, end: 0xffff_c880_0000_0000 },
    windows: VirtRange { start: 0, end: 0 },
    find_area: |addr| MM.find_area(addr),
    #[cfg(feature = "debug-pagealloc")]
    find_freed: |addr| MM.find_freed(addr),
};
/// How what the loader left is reached. The boot tables have the direct map where the final ones have it.
pub(crate) const LOADER: Loader = Loader { direct_map: Hw::DIRECT_MAP, reach: BOOT_REACH, copy };
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

/// Brings the manager up: RAM from the firmware, the final tables, the manager itself, then interrupts, and with
/// feature `smp` the other CPUs. Called once, by `entry!` or by a suite's setup.
///
/// # Panics
/// When called again, or when the machine has no RAM for the tables.
pub fn init() {
    static DONE: AtomicBool = AtomicBool::new(false);
    assert!(!DONE.swap(true, Relaxed), "the board is up already");

    let mut ram = boot_map(&IMAGE, Hw.phys_bits()).expect("the firmware's memory map is usable");
    let root = tables(&mut ram).expect("the kernel's tables can be built");
    // SAFETY: the tables have the whole image, which holds the stack and the descriptor tables, where it is now; the
    // boot tables use neither no-execute nor read-only entries.
    unsafe { kernel::activate(&Hw, root) }.expect("the CPU has what the tables rely on");
    #[cfg(feature = "page-poison")]
    MM.page_poisoning_enable().expect("the manager is not up yet");
    #[cfg(feature = "debug-pagealloc")]
    MM.debug_pagealloc_enable().expect("the tables were built for it");
    // SAFETY: the map leaves out what the image, the firmware and the early tables use.
    unsafe { MM.init(&mut ram, &Config::new(&ZONES, VMALLOC)) }.expect("the manager takes over the RAM");
    start_tasks();
    #[cfg(feature = "smp")]
    crate::cpus::start(root);
}

/// Tells `each` what RAM no allocation may get: the firmware's, the image, and the guest's file.
pub fn reserved(each: impl FnMut(PhysRange)) {
    board_x86_qemu::reserved(&IMAGE, each);
}

/// Copies bytes of one page of RAM.
///
/// # Safety
/// As [`Loader::copy`] says.
unsafe fn copy(phys: u64, into: &mut [u8]) {
    let (pfn, offset) = (Pfn((phys >> PAGE_SHIFT) as u32), phys as usize & ((1 << PAGE_SHIFT) - 1));
    // SAFETY: a frame of RAM, and the bytes lie in its page.
    unsafe {
        MM.backend().with_frame(pfn, |page| page.add(offset).copy_to_nonoverlapping(into.as_mut_ptr(), into.len()))
    }
}

/// Builds the final tables: the image with a protection for each part, the direct map of RAM, and nothing else.
fn tables(ram: &mut RamMap) -> Result<Pfn, MmError> {
    let all = ram.clone();
    let mut take = || ram.alloc_top(1 << PAGE_SHIFT, 1, BOOT_REACH).map(|page| Pfn((page.start >> PAGE_SHIFT) as u32));
    #[cfg(not(feature = "debug-pagealloc"))]
    use kernel::build;
    #[cfg(feature = "debug-pagealloc")]
    use kernel::build_in_pages as build;
    // SAFETY: `alloc_top` gives each page once, free RAM that the boot tables reach.
    unsafe { build(&Hw, &IMAGE.segments(), all.spans(), VMALLOC, &mut take) }
}
