//! The kernel's image as the linker laid it out.

use rtmm::backend::kernel::Segment;
use rtmm::{PhysAddr, PhysRange, Prot, VirtAddr, VirtRange};

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

/// The image of a program linked with a board's `board.x`.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Virtual minus physical address of everything but the start code; `KERNEL_BASE` in the script.
    pub base: usize,
}

impl Image {
    /// Instructions.
    pub fn text(&self) -> VirtRange {
        VirtRange { start: link::text_start(), end: link::text_end() }
    }

    /// Constants.
    pub fn rodata(&self) -> VirtRange {
        VirtRange { start: link::rodata_start(), end: link::rodata_end() }
    }

    /// Statics, zeroed ones included.
    pub fn data(&self) -> VirtRange {
        VirtRange { start: link::data_start(), end: link::data_end() }
    }

    /// The page below the stack, which is never mapped.
    pub fn stack_guard(&self) -> VirtRange {
        VirtRange { start: link::stack_guard(), end: link::stack_guard() + PAGE }
    }

    /// The kernel's stack.
    pub fn stack(&self) -> VirtRange {
        VirtRange { start: link::stack_guard() + PAGE, end: link::stack_top() }
    }

    /// All of the image in RAM, start code and boot tables included.
    pub fn frames(&self) -> PhysRange {
        PhysRange { start: link::image_start() as u64, end: link::image_end() as u64 }
    }

    /// The address in the image of what lies at `phys`.
    pub fn virt(&self, phys: usize) -> Option<usize> {
        phys.checked_add(self.base)
    }

    /// Where an address of the image lies.
    pub fn phys(&self, virt: usize) -> u64 {
        (virt - self.base) as u64
    }

    /// What the final tables map of it, and how. The guard page is left out.
    pub fn segments(&self) -> [Segment; 4] {
        let segment = |range: VirtRange, prot| Segment {
            virt: VirtAddr(range.start),
            phys: PhysAddr(self.phys(range.start)),
            pages: range.len().div_ceil(PAGE) as u32,
            prot,
        };
        [
            segment(self.text(), Prot::ReadExecute),
            segment(self.rodata(), Prot::Read),
            segment(self.data(), Prot::ReadWrite),
            segment(self.stack(), Prot::ReadWrite),
        ]
    }
}
