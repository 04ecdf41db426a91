//! A manager of its own, in memory of the board's manager.

use crate::board::{Backend, MM};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use rtmm::{Backend as _, BootMap, Config, GFP_KERNEL, Mm, Platform, Tuning, VirtRange, ZoneKind, ZoneSpec};

/// A manager of the `len` bytes at `memory`, its tables among them. Kept for good; `None` when they are too few.
///
/// `memory` came from [`contiguous`](crate::contiguous), and no other manager has it that is still used.
// A manager is made on the stack before it is kept: of one function that makes several, the stack has no room.
#[inline(never)]
pub fn manager<P: Platform>(
    platform: P,
    memory: NonNull<u8>,
    len: usize,
    vmalloc: VirtRange,
) -> Option<&'static Mm<P, Backend>> {
    let phys = u64::from(MM.pfn_of(memory.as_ptr())?.0) << Backend::PAGE_SHIFT;
    let place: NonNull<Mm<P, Backend>> = MM.alloc_pages_exact(size_of::<Mm<P, Backend>>(), GFP_KERNEL).ok()?.cast();
    // SAFETY: pages are aligned enough, and these are large enough and kept.
    let mm = unsafe {
        place.write(Mm::new(platform, Backend::default()));
        place.as_ref()
    };
    let mut map: BootMap = BootMap::new();
    map.add_ram(phys, len as u64).ok()?;
    let mut ram = map.finish(Backend::PAGE_SHIFT, Backend::PHYS_BITS).ok()?;
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: u64::MAX }];
    // Nothing is kept for emergencies, as no peer does.
    let tuning = Tuning { min_free: Some(0), ..Tuning::DEFAULT };
    // SAFETY: the memory is nobody else's; the window is one that the board's manager does not come to.
    unsafe { mm.init(&mut ram, &Config { zones: &zones, vmalloc, tuning }) }.ok()?;
    Some(mm)
}

/// Addresses for another manager's areas: the middle of the board's own window, which gives out the lowest first and
/// does not come there in a bench. A new part of it each time; empty without an MMU.
pub fn window() -> Option<VirtRange> {
    static BEFORE: AtomicUsize = AtomicUsize::new(0);
    if !Backend::HAS_MMU {
        return Some(VirtRange { start: 0, end: 0 });
    }
    let (distance, len) = if usize::BITS == 64 { (32 << 30, 1 << 30) } else { (32 << 20, 4 << 20) };
    let area = MM.vmalloc(1).ok()?;
    // To a border of tables, which a window begins at.
    let start = (area.addr().get() & !(len - 1)) + distance + len * BEFORE.fetch_add(1, Relaxed);
    MM.vfree(area.as_ptr()).ok()?;
    Some(VirtRange { start, end: start + len })
}
