//! The pairs of the vmalloc rows of the bench, each ready to be measured.

use crate::board::{Backend as BoardBackend, MM};
use core::hint::black_box;
use rtmm::{Backend as _, GFP_KERNEL};

/// Measures a row: its name, how many pairs are worth it, and one pair, which is `None` when it was refused.
pub type Measure<'a> = &'a mut dyn FnMut(&str, usize, &mut dyn FnMut() -> Option<()>) -> Option<()>;

/// Measures every row of this board's backend, in a running system: one more object, page and area are live.
///
/// `None` when a call was refused.
pub fn each(measure: Measure<'_>) -> Option<()> {
    let object = MM.kmalloc(64, GFP_KERNEL).ok()?;
    let page = MM.get_free_page(GFP_KERNEL).ok()?;
    let area = MM.vmalloc(4 << 10).ok()?;
    pairs(measure)?;
    MM.kfree(object.as_ptr()).ok()?;
    MM.free_page(page.as_ptr()).ok()?;
    MM.vfree(area.as_ptr()).ok()
}

fn vmalloc(size: usize) -> Option<()> {
    let area = black_box(MM.vmalloc(black_box(size)).ok()?);
    MM.vfree(area.as_ptr()).ok()
}

fn pairs(measure: Measure<'_>) -> Option<()> {
    measure("vmalloc_4k", 1001, &mut || vmalloc(4 << 10))?;
    measure("vmalloc_64k", 1001, &mut || vmalloc(64 << 10))?;
    if !BoardBackend::HAS_MMU {
        // A page over a power of two: exactly 257 pages are taken, and the tail of the block goes back.
        return measure("nommu_vmalloc_1m", 101, &mut || vmalloc((1 << 20) + (4 << 10)));
    }
    measure("vmalloc_1m", 101, &mut || vmalloc(1 << 20))?;
    measure("vmalloc_16m", 41, &mut || vmalloc(16 << 20))
}
