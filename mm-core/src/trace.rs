//! What the slow paths log: through defmt with feature `defmt`, and nothing without.
//!
//! No lock is held when something is logged. Failures are warnings, which `__GFP_NOWARN` silences; the rest is debug.

use crate::error::AllocError;
use crate::gfp::Gfp;

/// An allocation of pages failed.
#[cold]
#[inline(never)]
pub(crate) fn pages_failed(pages: usize, flags: Gfp, error: AllocError) {
    if !flags.contains(Gfp::NOWARN) {
        #[cfg(feature = "defmt")]
        defmt::warn!("page allocation failure: {=usize} pages, {}: {}", pages, flags, error);
    }
    let _ = (pages, error);
}

/// An area could not be made.
#[cold]
#[inline(never)]
pub(crate) fn area_failed(size: usize, flags: Gfp, error: AllocError) {
    if !flags.contains(Gfp::NOWARN) {
        #[cfg(feature = "defmt")]
        defmt::warn!("vmalloc of {=usize} bytes failed: {}", size, error);
    }
    let _ = (size, error);
}

/// A free was refused.
#[cold]
#[inline(never)]
pub(crate) fn free_refused(call: &'static str, addr: usize, error: crate::error::FreeError) {
    #[cfg(feature = "defmt")]
    defmt::warn!("{=str}({=usize:#x}) refused: {}", call, addr, error);
    let _ = (call, addr, error);
}

/// A cache got a new slab, or gave one back.
#[inline(always)]
pub(crate) fn slab(made: bool, size: u32, pages: u16, pfn: u32) {
    #[cfg(feature = "defmt")]
    if made {
        defmt::debug!("new slab of {=u32}-byte objects: {=u16} pages at frame {=u32:#x}", size, pages, pfn);
    } else {
        defmt::debug!("slab of {=u32}-byte objects went back: {=u16} pages at frame {=u32:#x}", size, pages, pfn);
    }
    let _ = (made, size, pages, pfn);
}

/// A run of pages was not to be had in one block; vmalloc goes on with smaller ones.
#[inline(always)]
pub(crate) fn smaller_blocks(wanted: usize) {
    #[cfg(feature = "defmt")]
    defmt::debug!("no block of {=usize} pages: mapping smaller ones", wanted);
    let _ = wanted;
}

/// The manager took over the RAM.
#[inline(always)]
pub(crate) fn ready(managed: usize, page_size: usize) {
    #[cfg(feature = "defmt")]
    defmt::info!("memory: {=usize} pages of {=usize} bytes", managed, page_size);
    let _ = (managed, page_size);
}
