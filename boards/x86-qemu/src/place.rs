//! What lies at an address, in words for a fault report.

use crate::image::Image;
use core::fmt;
use rtmm::{AreaHit, VirtRange};

/// A board's address space.
pub struct Layout {
    /// The program.
    pub image: Image,
    /// The room for the direct map.
    pub direct: VirtRange,
    /// Where frames without an address are mapped for a while.
    pub windows: VirtRange,
    /// The manager's areas.
    pub find_area: fn(usize) -> Option<AreaHit>,
    /// The manager's free pages, where they are hidden.
    #[cfg(feature = "debug-pagealloc")]
    pub find_freed: fn(usize) -> Option<rtmm::FreedPage>,
}

/// What lies at an address.
pub enum Place {
    /// The first page, where null pointers lead.
    Null,
    /// A part of the kernel's image.
    Image(&'static str),
    /// The direct map, outside the image.
    DirectMap,
    /// The direct map's view of a part of the image that is mapped elsewhere.
    Alias(&'static str),
    /// A free page that is hidden.
    #[cfg(feature = "debug-pagealloc")]
    Freed(rtmm::FreedPage),
    /// A window for frames without an address.
    Window,
    /// A vmalloc area, or a guard beside one.
    Area(AreaHit),
    /// Nothing this kernel knows.
    Unknown,
}

impl Layout {
    /// What lies at `addr`. Takes no lock.
    pub fn place(&self, addr: usize) -> Place {
        let image = &self.image;
        let parts: [(VirtRange, &'static str); 5] = [
            (image.text(), "kernel text"),
            (image.rodata(), "kernel rodata"),
            (image.data(), "kernel data"),
            (image.stack_guard(), "the guard page below the kernel stack"),
            (image.stack(), "the kernel stack"),
        ];
        #[cfg(feature = "debug-pagealloc")]
        if let Some(page) = (self.find_freed)(addr) {
            return Place::Freed(page);
        }
        let part = |addr| parts.iter().find(|(range, _)| range.contains(addr)).map(|&(_, name)| name);
        if addr < 0x1000 {
            Place::Null
        } else if let Some(name) = part(addr) {
            Place::Image(name)
        } else if self.direct.contains(addr) {
            image.virt(addr - self.direct.start).and_then(part).map_or(Place::DirectMap, Place::Alias)
        } else if self.windows.contains(addr) {
            Place::Window
        } else {
            (self.find_area)(addr).map_or(Place::Unknown, Place::Area)
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Null => f.write_str("the null page"),
            Place::Image(name) => f.write_str(name),
            Place::DirectMap => f.write_str("the direct map"),
            Place::Alias(name) => write!(f, "the direct map of {name}"),
            #[cfg(feature = "debug-pagealloc")]
            Place::Freed(page) => page.fmt(f),
            Place::Window => f.write_str("a window for high memory"),
            Place::Area(hit) => hit.fmt(f),
            Place::Unknown => f.write_str("no known area"),
        }
    }
}
