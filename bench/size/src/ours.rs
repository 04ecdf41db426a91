//! rtmm without an MMU: kmalloc alone, and the whole of it.

use core::hint::black_box;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use cortex_m::peripheral::SCB;
use cortex_m::peripheral::scb::VectActive;
use cortex_m::register::primask;
use rtmm::backend::NoMmu;
use rtmm::{
    Backend as _, BootMap, Bug, Config, Context, CriticalSectionLock, GFP_ATOMIC, GFP_KERNEL, Mm, Platform, RamMap,
    Tuning, VirtRange, ZoneKind, ZoneSpec,
};

use crate::Subject;

/// A platform as a small board has one.
struct Board;

static UP: AtomicBool = AtomicBool::new(false);
static BUGS: AtomicBool = AtomicBool::new(false);

impl Platform for Board {
    type Lock = CriticalSectionLock;

    fn context(&self) -> Context {
        if !black_box(&UP).load(Ordering::Relaxed) {
            Context::Boot
        } else if SCB::vect_active() != VectActive::ThreadMode || primask::read().is_inactive() {
            Context::Atomic
        } else {
            Context::Task
        }
    }

    fn bug(&self, _: &Bug) {
        black_box(&BUGS).store(true, Ordering::Relaxed);
    }
}

static MM: Mm<Board, NoMmu> = Mm::new(Board, NoMmu::new());

/// The manager, by an address the optimiser lost sight of: else it would see that a program without `setup` has none.
fn mm() -> &'static Mm<Board, NoMmu> {
    black_box(&MM)
}

/// Hands the arena over as a board does: a boot map, and two zones, the lower one for a device with a short reach.
unsafe fn setup(arena: Range<usize>) {
    let mut map: BootMap = BootMap::new();
    let added = map.add_ram(arena.start as u64, arena.len() as u64);
    let ram: Result<RamMap, _> = added.and_then(|()| map.finish(NoMmu::<12, 10>::PAGE_SHIFT, 32));
    let Ok(mut ram) = ram else { return };
    let middle = (arena.start + arena.len() / 4) as u64;
    let zones = [ZoneSpec { kind: ZoneKind::Dma, end: middle }, ZoneSpec { kind: ZoneKind::Normal, end: 1 << 32 }];
    let config = Config { zones: &zones, vmalloc: VirtRange { start: 0, end: 0 }, tuning: Tuning::DEFAULT };
    // SAFETY: the caller hands over the arena.
    if unsafe { mm().init(&mut ram, &config) }.is_ok() {
        UP.store(true, Ordering::Relaxed);
    }
}

/// kmalloc and kfree.
#[derive(Debug)]
pub struct RtmmKmalloc;

impl Subject for RtmmKmalloc {
    const NAME: &'static str = "rtmm_kmalloc";

    unsafe fn setup(arena: Range<usize>) {
        // SAFETY: the same contract.
        unsafe { setup(arena) }
    }

    fn allocate(size: usize) -> *mut u8 {
        mm().kmalloc(size, GFP_KERNEL).map_or(core::ptr::null_mut(), core::ptr::NonNull::as_ptr)
    }

    unsafe fn free(ptr: *mut u8, _: usize) {
        if mm().kfree(ptr).is_err() {
            black_box(&BUGS).store(true, Ordering::Relaxed);
        }
    }

    fn kept() -> usize {
        mm().drain();
        mm().free_page_count() * NoMmu::<12, 10>::PAGE_SIZE
    }
}

/// kmalloc, pages and vmalloc, with zeroing, resizing and every free.
#[derive(Debug)]
pub struct RtmmNommu;

impl Subject for RtmmNommu {
    const NAME: &'static str = "rtmm_nommu";

    unsafe fn setup(arena: Range<usize>) {
        // SAFETY: the same contract.
        unsafe { setup(arena) }
    }

    fn allocate(size: usize) -> *mut u8 {
        RtmmKmalloc::allocate(size)
    }

    unsafe fn free(ptr: *mut u8, size: usize) {
        // SAFETY: the same contract.
        unsafe { RtmmKmalloc::free(ptr, size) }
    }

    fn rest(size: usize) {
        let mm = mm();
        let tell = |wrong: bool| {
            if wrong {
                black_box(&BUGS).store(true, Ordering::Relaxed);
            }
        };
        if let Ok(page) = mm.get_free_pages(GFP_ATOMIC, size) {
            tell(mm.free_pages(page.as_ptr(), size).is_err());
        }
        if let Ok(area) = mm.vmalloc(size) {
            tell(mm.vfree(area.as_ptr()).is_err());
        }
    }
}
