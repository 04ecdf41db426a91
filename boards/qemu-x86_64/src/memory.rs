//! The kernel's address space: where things lie, and the hand-over of memory to the manager.

use crate::{fw, platform};
use core::fmt;
use rtmm::{BootMap, MmError, RamMap, VirtRange};

/// Where physical address 0 appears in the direct map.
pub(crate) const DIRECT_MAP: usize = 0xffff_8880_0000_0000;
/// Where the direct map must have ended: 64 TiB of it, as on Linux.
const DIRECT_MAP_END: usize = 0xffff_c880_0000_0000;
/// One page.
const PAGE: usize = 4096;

/// Addresses the linker script defines.
mod link {
    macro_rules! addresses {
        ($($(#[$doc:meta])* $function:ident = $symbol:ident;)*) => {
            mod symbol {
                unsafe extern "C" { $(pub(super) static $symbol: u8;)* }
            }
            $($(#[$doc])* pub(super) fn $function() -> usize { (&raw const symbol::$symbol).addr() })*
        };
    }
    addresses! {
        /// Physical start of the image.
        image_start = __image_start;
        /// Physical end of the image.
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

/// The parts of the kernel's image that are mapped at the top of the address space.
struct Image {
    text: VirtRange,
    rodata: VirtRange,
    data: VirtRange,
    guard: VirtRange,
    stack: VirtRange,
}

impl Image {
    fn new() -> Image {
        let guard = link::stack_guard();
        Image {
            text: VirtRange { start: link::text_start(), end: link::text_end() },
            rodata: VirtRange { start: link::rodata_start(), end: link::rodata_end() },
            data: VirtRange { start: link::data_start(), end: link::data_end() },
            guard: VirtRange { start: guard, end: guard + PAGE },
            stack: VirtRange { start: guard + PAGE, end: link::stack_top() },
        }
    }
}

/// What lies at an address, in words for a fault report.
pub(crate) enum Place {
    NullPage,
    Text,
    Rodata,
    Data,
    StackGuard,
    Stack,
    DirectMap,
    Unknown,
}

impl Place {
    /// What lies at `addr`. Takes no lock.
    pub(crate) fn of(addr: usize) -> Place {
        let image = Image::new();
        match addr {
            _ if addr < PAGE => Place::NullPage,
            _ if image.text.contains(addr) => Place::Text,
            _ if image.rodata.contains(addr) => Place::Rodata,
            _ if image.data.contains(addr) => Place::Data,
            _ if image.guard.contains(addr) => Place::StackGuard,
            _ if image.stack.contains(addr) => Place::Stack,
            DIRECT_MAP..DIRECT_MAP_END => Place::DirectMap,
            _ => Place::Unknown,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::NullPage => "the null page",
            Place::Text => "kernel text",
            Place::Rodata => "kernel rodata",
            Place::Data => "kernel data",
            Place::StackGuard => "the guard page below the kernel stack",
            Place::Stack => "the kernel stack",
            Place::DirectMap => "the direct map",
            Place::Unknown => "no known area",
        })
    }
}

/// RAM as the firmware lists it, minus what is in use already.
fn boot_map() -> Result<RamMap, MmError> {
    let firmware = fw::firmware();
    let mut map: BootMap = BootMap::new();
    for &(start, size) in &firmware.ram {
        map.add_ram(start, size)?;
    }
    // The first MiB belongs to the firmware, and its page 8 starts other CPUs.
    map.reserve(0, 1 << 20)?;
    map.reserve(link::image_start() as u64, (link::image_end() - link::image_start()) as u64)?;
    if let Some(module) = firmware.module {
        map.reserve(module.start, module.len())?;
    }
    map.finish(PAGE.ilog2(), 46)
}

/// Brings the manager up; called once, before anything is allocated.
pub fn init() {
    let _ram = boot_map().expect("the firmware's memory map is usable");
    platform::start_tasks();
}
