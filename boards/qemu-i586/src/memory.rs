//! The kernel's address space, and the hand-over of RAM to the manager.
//!
//! | from | what |
//! |---|---|
//! | 0 | nothing: a user's part, if there were one |
//! | 0xc000_0000 | the direct map of the first 896 MiB of RAM, with the program in it |
//! | 0xf880_0000 | areas of vmalloc: 112 MiB |
//! | 0xffc0_0000 | windows for RAM past the direct map |
//!
//! It is Linux's division into 3 and 1 GiB. More for the kernel would leave less HIGHMEM and nothing for users; with
//! less, the frame table of a large machine would not fit.

use crate::mm::MM;
use crate::traps;
use board_x86_qemu::{Image, Layout, Loader, boot_map, start_tasks};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use heapless::Vec;
use rtmm::backend::{Hw, Machine, kernel};
use rtmm::{Backend, Config, MmError, Pfn, PhysRange, RamMap, VirtRange, ZoneKind, ZoneSpec};

/// The program; its base is `KERNEL_BASE` in `board.x`. The same as the direct map's: that is where it is.
const IMAGE: Image = Image { base: Hw::DIRECT_MAP };
/// What fault reports know of the address space.
pub(crate) static LAYOUT: Layout = Layout {
    image: IMAGE,
    direct: VirtRange { start: Hw::DIRECT_MAP, end: Hw::DIRECT_MAP + Hw::LOWMEM_END as usize },
    windows: VirtRange { start: 0xffc0_0000, end: 0xffe0_0000 },
    find_area: |addr| MM.find_area(addr),
    #[cfg(feature = "debug-pagealloc")]
    find_freed: |addr| MM.find_freed(addr),
};
/// How what the loader left is reached. The boot tables have the direct map where the final ones have it.
pub(crate) const LOADER: Loader = Loader { direct_map: Hw::DIRECT_MAP, reach: BOOT_REACH, copy };
/// Where vmalloc puts its areas. It starts 8 MiB behind the direct map, as on Linux, so that a run past its end faults.
const VMALLOC: VirtRange = VirtRange { start: 0xf880_0000, end: 0xff80_0000 };
/// A PC's zones in 32 bits: what 24 address lines reach, what has a kernel address, and the rest.
const ZONES: [ZoneSpec; 3] = [
    ZoneSpec { kind: ZoneKind::Dma, end: 16 << 20 },
    ZoneSpec { kind: ZoneKind::Normal, end: Hw::LOWMEM_END },
    ZoneSpec { kind: ZoneKind::HighMem, end: u64::MAX },
];
/// What the boot tables map.
const BOOT_REACH: u64 = 1 << 30;
/// log2 of the page size.
const PAGE_SHIFT: u32 = 12;
/// Pieces of RAM a firmware may list, and one more where the guard page is cut out.
const MAX_RANGES: usize = 33;

/// Brings the manager up: RAM from the firmware, the final tables, the manager itself, then interrupts. Called once,
/// by `entry!` or by a suite's setup.
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
    traps::tables_changed();
    #[cfg(feature = "debug-pagealloc")]
    MM.debug_pagealloc_enable().expect("the tables were built for it");
    // SAFETY: the map leaves out what the image, the firmware and the early tables use.
    unsafe { MM.init(&mut ram, &Config::new(&ZONES, VMALLOC)) }.expect("the manager takes over the RAM");
    start_tasks();
}

/// Tells `each` what RAM no allocation may get: the firmware's, the image, and the guest's file.
pub fn reserved(each: impl FnMut(PhysRange)) {
    board_x86_qemu::reserved(&IMAGE, each);
}

/// Copies bytes of one page of RAM, which may be HIGHMEM.
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

/// Builds the final tables: the direct map of low RAM, with the image in it and a protection for each part, and the
/// tables of the windows. The page below the stack is mapped nowhere.
fn tables(ram: &mut RamMap) -> Result<Pfn, MmError> {
    let mut mapped: Vec<PhysRange, MAX_RANGES> = Vec::new();
    let guard = IMAGE.stack_guard();
    let hole = PhysRange { start: IMAGE.phys(guard.start), end: IMAGE.phys(guard.end) };
    for span in ram.spans() {
        let below = PhysRange { start: span.start, end: span.end.min(hole.start) };
        let above = PhysRange { start: span.start.max(hole.end), end: span.end };
        for part in [below, above].into_iter().filter(|part| !part.is_empty()) {
            mapped.push(part).map_err(|_| MmError::TooManyRegions)?;
        }
    }
    // Low memory only: tables are reached by their kernel address.
    let mut take =
        || ram.alloc_top(1 << PAGE_SHIFT, 1, Hw::LOWMEM_END).map(|page| Pfn((page.start >> PAGE_SHIFT) as u32));
    #[cfg(not(feature = "debug-pagealloc"))]
    use kernel::build;
    #[cfg(feature = "debug-pagealloc")]
    use kernel::build_in_pages as build;
    // SAFETY: `alloc_top` gives each page once, free RAM that the boot tables reach.
    unsafe { build(&Hw, &IMAGE.segments(), &mapped, VMALLOC, &mut take) }
}
