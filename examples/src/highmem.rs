//! Memory without a kernel address: what a machine has of it, and that an area made of it holds what is written.

use crate::board::{self, Backend, MM, say};
use rtmm::{Backend as _, KMap, Pfn};

/// Bytes of the area that is made.
const SIZE: usize = 16 * Backend::PAGE_SIZE;

/// The physical address of a frame.
fn phys(pfn: Pfn) -> u64 {
    pfn.phys(Backend::PAGE_SHIFT).0
}

/// True when this machine has memory past the direct map.
pub fn exists() -> bool {
    let end = MM.zoneinfo().zones().iter().map(|zone| zone.span.1).max().unwrap_or(0);
    phys(Pfn(end)) > MM.backend().lowmem_end()
}

/// Makes an area, fills it by its own addresses, and compares each page with what its frame holds by an address that
/// `kmap` gives.
///
/// # Errors
/// What went wrong.
pub fn show() -> Result<(), &'static str> {
    if !exists() {
        say!("{} has no HIGHMEM: every frame has a kernel address", board::NAME);
    }
    let low_end = MM.backend().lowmem_end();
    let area = MM.vmalloc(SIZE).map_err(|_| "no memory for the area")?;
    // SAFETY: the area is as long, and ours.
    let bytes = unsafe { core::slice::from_raw_parts_mut(area.as_ptr(), SIZE) };
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (at / Backend::PAGE_SIZE * 31 + at) as u8;
    }
    let mut past = 0;
    for (number, page) in bytes.chunks(Backend::PAGE_SIZE).enumerate() {
        // Without an MMU an area's frames are those of the direct map.
        let pfn = MM.vmalloc_to_page(page.as_ptr()).ok_or("a page of the area has no frame")?;
        let mapped = KMap::new_in(pfn, &MM).map_err(|_| "kmap found no slot")?;
        // SAFETY: a page of RAM, mapped until the end of this round; nobody writes to it.
        let seen = unsafe { core::slice::from_raw_parts(mapped.as_ptr(), page.len()) };
        if seen != page {
            return Err("kmap shows something else than the area");
        }
        past += usize::from(phys(pfn) >= low_end);
        if number == 0 {
            say!(
                "area at {:p}: its first page is frame {:#x}, physical address {:#x}{}",
                page.as_ptr(),
                pfn.0,
                phys(pfn),
                if phys(pfn) >= low_end { ", which has no kernel address" } else { "" }
            );
            say!("the same bytes by kmap at {:p}", mapped.as_ptr());
        }
    }
    if exists() {
        let pages = SIZE / Backend::PAGE_SIZE;
        say!("{} of its {} pages lie past the {} MiB that have one", past, pages, low_end >> 20);
        if past != pages {
            return Err("an area was made of memory with an address while there was other");
        }
    }
    MM.vfree(area.as_ptr()).map_err(|_| "the area was not freed")
}
