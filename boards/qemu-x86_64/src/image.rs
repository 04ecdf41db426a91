//! The kernel's image as the linker laid it out.

use rtmm::backend::kernel::Segment;
use rtmm::{PhysAddr, PhysRange, Prot, VirtAddr, VirtRange};

/// Virtual minus physical address of everything but the start code; `KERNEL_BASE` in `board.x`.
const KERNEL_BASE: usize = 0xffff_ffff_8000_0000;
/// One page.
const PAGE: usize = 4096;

/// Addresses the linker script defines.
mod link {
    macro_rules! addresses {
        ($($function:ident = $symbol:ident;)*) => {
            mod symbol {
                unsafe extern "C" { $(pub(super) static $symbol: u8;)* }
            }
            $(pub(super) fn $function() -> usize { (&raw const symbol::$symbol).addr() })*
        };
    }
    addresses! {
        image_start = __image_start;
        image_end = __image_end;
        text_start = __text_start;
        text_end = __text_end;
        rodata_start = __rodata_start;
        rodata_end = __rodata_end;
        data_start = __data_start;
        data_end = __data_end;
        stack_guard = __stack_guard;
        stack_top = stack_top;
    }
}

/// Instructions.
pub(crate) fn text() -> VirtRange {
    VirtRange { start: link::text_start(), end: link::text_end() }
}

/// Constants.
pub(crate) fn rodata() -> VirtRange {
    VirtRange { start: link::rodata_start(), end: link::rodata_end() }
}

/// Statics, zeroed ones included.
pub(crate) fn data() -> VirtRange {
    VirtRange { start: link::data_start(), end: link::data_end() }
}

/// The page below the stack, which is never mapped.
pub(crate) fn stack_guard() -> VirtRange {
    VirtRange { start: link::stack_guard(), end: link::stack_guard() + PAGE }
}

/// The kernel's stack.
pub(crate) fn stack() -> VirtRange {
    VirtRange { start: link::stack_guard() + PAGE, end: link::stack_top() }
}

/// All of the image in RAM, start code and boot tables included.
pub(crate) fn frames() -> PhysRange {
    PhysRange { start: link::image_start() as u64, end: link::image_end() as u64 }
}

/// The high address of what lies at `phys`.
pub(crate) fn virt(phys: usize) -> Option<usize> {
    phys.checked_add(KERNEL_BASE)
}

/// What the final tables map of it, and how. The guard page is left out.
pub(crate) fn segments() -> [Segment; 4] {
    let segment = |range: VirtRange, prot| Segment {
        virt: VirtAddr(range.start),
        phys: PhysAddr((range.start - KERNEL_BASE) as u64),
        pages: range.len().div_ceil(PAGE) as u32,
        prot,
    };
    [
        segment(text(), Prot::ReadExecute),
        segment(rodata(), Prot::Read),
        segment(data(), Prot::ReadWrite),
        segment(stack(), Prot::ReadWrite),
    ]
}
