//! Areas of virtually contiguous memory: `vmalloc`, `ioremap`, and what backs them.
//!
//! [`AreaFamily`] is what a backend gives; [`Mapped`] is the family over page tables, so that a backend with an MMU
//! writes only [`PageTable`](crate::PageTable).

mod area;
mod calls;
mod copy;
mod deferred;
mod given;
mod interval;
mod ioremaps;
mod kv;
mod map;
mod mapped;
mod options;
mod owned;
mod space;
mod unflushed;

pub use crate::wait::Patience;
pub use area::{Area, AreaHit, AreaInfo, AreaKind, AreaUses, Place};
pub(crate) use deferred::AreaList;
pub use deferred::FreeBatch;
pub use interval::Cursor;
pub use ioremaps::Ioremaps;
pub use mapped::Mapped;
pub use options::{AreaGuards, AreaLife, AreaOptions};
pub use owned::{IoMapping, VmArea};
pub use unflushed::Unflushed;

use crate::addr::{Pfn, PhysAddr, VirtRange};
use crate::backend::Backend;
use crate::boot::RamMap;
use crate::error::{AllocError, FreeError, MmError};
use crate::gfp::Gfp;
#[cfg(doc)]
use crate::manager::Mm;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::prot::{CacheMode, Prot};
use core::panic::Location;
use core::ptr::NonNull;

/// Which page-table entries an area is mapped by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Entries {
    /// The largest that its size, its alignment and the frames at hand allow.
    #[default]
    Largest,
    /// The smallest only: for areas whose pages will differ in protection.
    Small,
}

/// What a caller wants of an area.
#[derive(Clone, Copy)]
pub struct AreaRequest<'a> {
    /// Length in bytes, not zero.
    pub size: usize,
    /// Where the frames may come from, and whether they are zeroed; validated.
    pub flags: Gfp,
    /// What the mapping allows.
    pub prot: Prot,
    /// What the first byte's address is a multiple of; a power of two.
    pub align: usize,
    /// Which entries map it.
    pub entries: Entries,
    /// What it is made for.
    pub uses: AreaUses,
    /// How to wait for pages that are short, if the request may.
    pub patience: Option<&'a Patience<'a>>,
    /// Who asks.
    pub caller: &'static Location<'static>,
}

/// An area nobody finds any more, which still has what it is made of.
#[derive(Clone, Copy)]
pub struct Withdrawn {
    /// Its record.
    pub record: u32,
    /// Its pages.
    pub pages: u32,
}

/// Which way bytes are copied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CopyWay {
    /// From the area.
    Read,
    /// To the area.
    Write,
}

/// What the scan of a family found.
#[derive(Clone, Copy, Default)]
pub struct AreaTally {
    /// Live areas, ioremaps included.
    pub areas: usize,
    /// Live mappings that have no record of their own.
    pub slots: usize,
    /// Frames behind them.
    pub frames: usize,
    /// Frames the family keeps ([`FrameKind::Held`](crate::FrameKind::Held)).
    pub held: usize,
    /// Records of hidden areas, and those it keeps for the next ones.
    pub records: usize,
    /// Slots of `kmap` that are taken.
    pub kmaps: usize,
    /// Frames that wait for a flush they will get, or that a CPU which did not answer may still reach.
    pub unflushed: usize,
}

/// The vmalloc family of a backend.
///
/// Sizes are checked against zero and flags are admitted before a call arrives here. All or nothing: an error leaves
/// the areas, the mappings and, caches aside, the free memory as they were.
///
/// # Safety
/// Blocks and records are used as [`Memory`]'s methods say: a block is marked with the kind it is used as, a record is
/// reached only between its taking and its giving back. Memory an area is made of belongs to nobody else until the area
/// is freed, and a pointer the family gives out is good for the area's size until then.
pub unsafe trait AreaFamily<P: Platform, B: Backend>: Send + Sync {
    /// An empty one.
    const NEW: Self;

    /// True when frees flush nothing and are bounded: then those of interrupts are not put off.
    const FREES_ANYWHERE: bool = false;

    /// True when `vfree` and `withdraw` refuse by themselves what is [`Mm::vm_unmap_ram`]'s to free.
    const TELLS_RAM: bool = false;

    /// False when a guard that was set stays so until reset: an area that has guards cannot be freed then, and none can
    /// be protected.
    fn clears_guards(&self, _memory: &Memory<P, B>) -> bool {
        true
    }

    /// Sets up, with the window of the address space; called once, by `Mm::init`.
    ///
    /// # Errors
    /// `Inval` for a window it cannot use, `NoUsableMemory` when its tables do not fit.
    fn init<const N: usize>(
        &self,
        memory: &Memory<P, B>,
        ram: &mut RamMap<N>,
        window: VirtRange,
    ) -> Result<(), MmError>;

    /// See [`Mm::vmalloc`].
    fn vmalloc(&self, memory: &Memory<P, B>, request: &AreaRequest) -> Result<NonNull<u8>, AllocError>;

    /// See [`Mm::vfree`], [`Mm::iounmap`], [`Mm::vunmap`]: frees the live area of `kind` at `addr`.
    fn vfree(&self, memory: &Memory<P, B>, addr: usize, kind: AreaKind) -> Result<(), FreeError>;

    /// See [`Mm::ioremap`]; the range is not empty, does not wrap, fits the physical width and is no RAM.
    fn ioremap(
        &self,
        memory: &Memory<P, B>,
        phys: PhysAddr,
        size: usize,
        cache: CacheMode,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, MmError>;

    /// See [`Mm::vmap`]; the frames are RAM, each once, and at least one.
    ///
    /// # Errors
    /// `Unsupported`, `Alloc`.
    fn vmap(
        &self,
        memory: &Memory<P, B>,
        frames: &[Pfn],
        prot: Prot,
        uses: AreaUses,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, MmError>;

    /// As [`vmap`](AreaFamily::vmap), read-write and for a short time; `None` where that is no other way.
    ///
    /// # Errors
    /// As `vmap`.
    #[inline]
    fn map_ram(
        &self,
        memory: &Memory<P, B>,
        frames: &[Pfn],
        caller: &'static Location<'static>,
    ) -> Result<Option<NonNull<u8>>, MmError> {
        let _ = (memory, frames, caller);
        Ok(None)
    }

    /// Takes back what [`map_ram`](AreaFamily::map_ram) mapped; `None` for an address that it cannot have.
    #[inline]
    fn unmap_ram(&self, memory: &Memory<P, B>, addr: usize, count: usize) -> Option<Result<(), FreeError>> {
        let _ = (memory, addr, count);
        None
    }

    /// What [`Mm::vm_unmap_ram`] refuses of an area of [`vmap`](AreaFamily::vmap), of which it is told that it is to be
    /// unmapped: before, only this family may know that `vfree` is not to free it.
    ///
    /// # Errors
    /// `WrongAllocator` for any that was not made for it, `WrongOrder` for another count; none where no area is.
    fn release_ram(&self, memory: &Memory<P, B>, addr: usize, count: usize) -> Result<(), FreeError> {
        match self.area_at(memory, addr) {
            Some((_, uses)) if !uses.contains(AreaUses::RAM) => Err(FreeError::WrongAllocator),
            Some((area, _)) if area.pages as usize != count => Err(FreeError::WrongOrder),
            _ => Ok(()),
        }
    }

    /// Hides the live area of `kind` at `addr`, for [`release`](AreaFamily::release): its record, which the caller may
    /// put into a list, and its pages.
    ///
    /// # Errors
    /// As [`Mm::vfree`].
    fn withdraw(&self, memory: &Memory<P, B>, addr: usize, kind: AreaKind) -> Result<Withdrawn, FreeError>;

    /// Frees a list of areas that were withdrawn, under one flush.
    fn release(&self, memory: &Memory<P, B>, first: u32);

    /// The area that begins at `addr`, if it is live.
    fn area_at(&self, memory: &Memory<P, B>, addr: usize) -> Option<(AreaInfo, AreaUses)>;

    /// The live area of [`Mm::vmalloc`] at `addr` has another size, of as many pages; false when there is none.
    fn set_size(&self, memory: &Memory<P, B>, addr: usize, size: usize) -> bool;

    /// Copies `bytes` bytes between the page of an area, or of what it maps of RAM, at `addr` and `buffer`; false when
    /// nothing is there. They lie in one page, and are at most 128.
    ///
    /// # Safety
    /// `buffer` is good for as many bytes, to be written or read.
    unsafe fn copy(&self, memory: &Memory<P, B>, addr: usize, buffer: *mut u8, bytes: usize, way: CopyWay) -> bool;

    /// See [`Mm::reserve_tables`].
    ///
    /// # Errors
    /// `NoMemory`; nothing was changed.
    fn reserve_tables(&self, memory: &Memory<P, B>, tables: usize) -> Result<(), AllocError>;

    /// See [`Mm::set_memory`]; the address is page-aligned.
    fn protect(&self, memory: &Memory<P, B>, addr: usize, pages: usize, prot: Prot) -> Result<(), MmError>;

    /// See [`Mm::vmalloc_to_page`].
    fn to_page(&self, memory: &Memory<P, B>, addr: usize) -> Option<Pfn>;

    /// See [`Mm::is_vmalloc_addr`].
    fn contains(&self, memory: &Memory<P, B>, addr: usize) -> bool;

    /// See [`Mm::find_area`].
    fn find(&self, memory: &Memory<P, B>, addr: usize) -> Option<AreaHit>;

    /// The next live area, by address; the cursor moves behind it.
    fn next(&self, memory: &Memory<P, B>, cursor: &mut Cursor) -> Option<AreaInfo>;

    /// See [`Mm::kmap`]; the frame is RAM and has no kernel address.
    ///
    /// # Errors
    /// `NoAddressSpace`.
    fn kmap(&self, memory: &Memory<P, B>, pfn: Pfn) -> Result<NonNull<u8>, AllocError> {
        let _ = (memory, pfn);
        Err(AllocError::NoAddressSpace)
    }

    /// See [`Mm::kunmap`]; the address is neither null, nor in the direct map, nor an area's.
    ///
    /// # Errors
    /// `DoubleFree`, `Misaligned`, `Foreign`.
    fn kunmap(&self, memory: &Memory<P, B>, addr: usize) -> Result<(), FreeError> {
        let _ = (memory, addr);
        Err(FreeError::Foreign)
    }

    /// Drops translations of `range`, or all, from this CPU's TLB.
    #[inline]
    fn flush_here(&self, memory: &Memory<P, B>, range: Option<VirtRange>) {
        let _ = (memory, range);
    }

    /// Flushes and gives back what was unmapped where it could not be flushed. Called where it can be.
    #[inline]
    fn release_late(&self, memory: &Memory<P, B>) {
        let _ = memory;
    }

    /// Gives back the address space the family keeps; false when it kept none.
    fn free_addresses(&self, memory: &Memory<P, B>) -> bool {
        let _ = memory;
        false
    }

    /// Gives back what the family keeps.
    fn drain(&self, memory: &Memory<P, B>);

    /// Scans everything, the list of hidden areas that begins with record `hidden` too. Not bounded.
    ///
    /// # Errors
    /// The broken rule, and where it was seen.
    fn check(&self, memory: &Memory<P, B>, hidden: u32) -> Result<AreaTally, (&'static str, usize)>;
}
