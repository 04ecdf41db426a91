//! What lies at an address, in words for a fault report.

use crate::image;
use crate::memory::{DIRECT_MAP, DIRECT_MAP_END};
use crate::mm::MM;
use core::fmt;
use rtmm::{AreaHit, VirtRange};

/// What lies at an address.
pub(crate) enum Place {
    /// The first page, where null pointers lead.
    Null,
    /// A part of the kernel's image.
    Image(&'static str),
    /// The direct map, outside the image.
    DirectMap,
    /// The direct map's view of a part of the image.
    Alias(&'static str),
    /// A vmalloc area, or a guard beside one.
    Area(AreaHit),
    /// Nothing this kernel knows.
    Unknown,
}

impl Place {
    /// What lies at `addr`. Takes no lock.
    pub(crate) fn of(addr: usize) -> Place {
        let parts: [(VirtRange, &'static str); 5] = [
            (image::text(), "kernel text"),
            (image::rodata(), "kernel rodata"),
            (image::data(), "kernel data"),
            (image::stack_guard(), "the guard page below the kernel stack"),
            (image::stack(), "the kernel stack"),
        ];
        let part = |addr| parts.iter().find(|(range, _)| range.contains(addr)).map(|&(_, name)| name);
        match addr {
            ..0x1000 => Place::Null,
            DIRECT_MAP..DIRECT_MAP_END => {
                image::virt(addr - DIRECT_MAP).and_then(part).map_or(Place::DirectMap, Place::Alias)
            }
            _ => match part(addr) {
                Some(name) => Place::Image(name),
                None => MM.find_area(addr).map_or(Place::Unknown, Place::Area),
            },
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
            Place::Area(hit) => hit.fmt(f),
            Place::Unknown => f.write_str("no known area"),
        }
    }
}
