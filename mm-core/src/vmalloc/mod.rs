//! Areas of virtually contiguous memory: `vmalloc`, `ioremap`, and what backs them.
//!
//! [`AreaFamily`] is what a backend gives; [`Mapped`] is the family over page tables, so that a backend with an MMU
//! writes only [`PageTable`](crate::PageTable).

mod area;
mod interval;
mod ioremaps;
mod mapped;
mod owned;
mod space;
mod unflushed;

pub use area::{Area, AreaHit, AreaInfo, AreaKind, Place};
pub use interval::Cursor;
pub use ioremaps::Ioremaps;
pub use mapped::Mapped;
pub use owned::{IoMapping, VmArea};
pub use unflushed::Unflushed;

use crate::addr::{Pfn, PhysAddr, VirtRange};
use crate::backend::Backend;
use crate::boot::RamMap;
use crate::error::{AllocError, FreeError, MmError};
use crate::gfp::{GFP_KERNEL, Gfp};
use crate::manager::Mm;
use crate::memory::Memory;
use crate::meta::MetaSize;
use crate::platform::Platform;
use crate::prot::{CacheMode, Prot};
use core::panic::Location;
use core::ptr::NonNull;
use core::time::Duration;

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
pub struct AreaRequest {
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
    /// Until when to wait for pages that are short, if the request may.
    pub until: Option<Duration>,
    /// Who asks.
    pub caller: &'static Location<'static>,
}

/// What the scan of a family found.
#[derive(Clone, Copy, Default)]
pub struct AreaTally {
    /// Live areas, ioremaps included.
    pub areas: usize,
    /// Frames behind them.
    pub frames: usize,
    /// Frames the family keeps ([`FrameKind::Held`](crate::FrameKind::Held)).
    pub held: usize,
    /// Records of areas it keeps for the next ones.
    pub records: usize,
    /// Slots of `kmap` that are taken.
    pub kmaps: usize,
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

    /// See [`Mm::vfree`].
    fn vfree(&self, memory: &Memory<P, B>, addr: usize) -> Result<(), FreeError>;

    /// See [`Mm::ioremap`]; the range is not empty, does not wrap, fits the physical width and is no RAM.
    fn ioremap(
        &self,
        memory: &Memory<P, B>,
        phys: PhysAddr,
        size: usize,
        cache: CacheMode,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, MmError>;

    /// See [`Mm::iounmap`].
    fn iounmap(&self, memory: &Memory<P, B>, addr: usize) -> Result<(), FreeError>;

    /// See [`VmArea::protect`].
    fn protect(&self, memory: &Memory<P, B>, addr: usize, prot: Prot) -> Result<(), MmError>;

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

    /// Gives back what the family keeps.
    fn drain(&self, memory: &Memory<P, B>);

    /// Scans everything. Not bounded.
    ///
    /// # Errors
    /// The broken rule, and where it was seen.
    fn check(&self, memory: &Memory<P, B>) -> Result<AreaTally, (&'static str, usize)>;
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Allocates `size` bytes of virtually contiguous memory, as Linux's `vmalloc`.
    ///
    /// With an MMU the pages are scattered, lie between guard pages, are read-write and never executable, and prefer
    /// HIGHMEM; each area takes whole units of 64 KiB of address space, its guard page included. Without one they are
    /// exactly as many contiguous pages, page-aligned, with no guard. Not zeroed.
    ///
    /// Context: task. Cost: per block and per batch of 32 entries; no lock is held for more.
    ///
    /// # Errors
    /// `ZeroSize`, `TooBig` (more than all memory, or without an MMU more than the largest block), `NoMemory`,
    /// `NoAddressSpace` with an MMU, `NoContig` without one, `NotReady`.
    #[track_caller]
    pub fn vmalloc(&self, size: usize) -> Result<NonNull<u8>, AllocError> {
        self.vmalloc_flags(size, GFP_KERNEL | Gfp::HIGHMEM, None, Location::caller())
    }

    /// [`vmalloc`](Self::vmalloc), which waits until `until` at most, a time of [`Platform::now`].
    ///
    /// # Errors
    /// As `vmalloc`.
    #[track_caller]
    pub fn vmalloc_deadline(&self, size: usize, until: Duration) -> Result<NonNull<u8>, AllocError> {
        self.vmalloc_flags(size, GFP_KERNEL | Gfp::HIGHMEM, Some(until), Location::caller())
    }

    /// [`vmalloc`](Self::vmalloc), zeroed.
    ///
    /// # Errors
    /// As `vmalloc`.
    #[track_caller]
    pub fn vzalloc(&self, size: usize) -> Result<NonNull<u8>, AllocError> {
        self.vmalloc_flags(size, GFP_KERNEL | Gfp::HIGHMEM | Gfp::ZERO, None, Location::caller())
    }

    fn vmalloc_flags(
        &self,
        size: usize,
        flags: Gfp,
        until: Option<Duration>,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        if size == 0 {
            return Err(AllocError::ZeroSize);
        }
        if !self.memory.is_ready() {
            return Err(AllocError::NotReady);
        }
        let flags = self.memory.admit(flags, caller)?;
        if size.div_ceil(B::PAGE_SIZE) > self.memory.managed_pages() {
            return Err(AllocError::TooBig);
        }
        let prot = Prot::ReadWrite;
        let request = AreaRequest { size, flags, prot, align: 1, entries: Entries::Largest, until: None, caller };
        match self.areas.vmalloc(&self.memory, &request) {
            Ok(area) => Ok(area),
            Err(error) => self.vmalloc_slow(&request, error, until),
        }
    }

    /// Everything the flags allow, for an area whose pages were not to be had at once.
    #[cold]
    #[inline(never)]
    fn vmalloc_slow(
        &self,
        request: &AreaRequest,
        error: AllocError,
        until: Option<Duration>,
    ) -> Result<NonNull<u8>, AllocError> {
        let (size, flags) = (request.size, request.flags);
        let again = || self.areas.vmalloc(&self.memory, request);
        let result = self.reclaim(flags, size.div_ceil(B::PAGE_SIZE), error, again);
        let result = result.or_else(|failed| match P::CAN_WAIT && failed.waits {
            true => {
                let until = Some(until.unwrap_or_else(|| self.memory.default_deadline()));
                // A page for its record comes first: one that was given back is kept for who asks next.
                let record = self.memory.meta_take(MetaSize::Large, flags, until)?;
                self.memory.meta_give(record, MetaSize::Large);
                self.areas.vmalloc(&self.memory, &AreaRequest { until, ..*request })
            }
            false => Err(failed.error),
        });
        result.inspect_err(|&error| crate::trace::area_failed(size, flags, error))
    }

    /// Frees an area of [`vmalloc`](Self::vmalloc). Null is fine.
    ///
    /// With an MMU nothing is reused before its translations are flushed, and they are when this returns.
    ///
    /// Context: task. Cost: as `vmalloc`.
    ///
    /// # Errors
    /// `DoubleFree` when nothing is (any more) allocated there, `Interior` (a guard page too), `Misaligned`,
    /// `WrongAllocator` for an ioremap or other memory, `Foreign`, `NotReady`; nothing was changed.
    pub fn vfree(&self, addr: *const u8) -> Result<(), FreeError> {
        match addr.addr() {
            0 => Ok(()),
            _ if !self.memory.is_ready() => Err(FreeError::NotReady),
            addr => self
                .areas
                .vfree(&self.memory, addr)
                .inspect_err(|&error| crate::trace::free_refused("vfree", addr, error)),
        }
    }

    /// Makes a device's registers reachable, uncached, as Linux's `ioremap`.
    ///
    /// With an MMU the range is mapped between guard pages, in whole units of 64 KiB of address space as for
    /// [`vmalloc`](Self::vmalloc), and the offset within the page is kept. Without one the
    /// result is the physical address itself, checked, tracked and listed. No RAM is taken.
    ///
    /// Context: task. Cost: as `vmalloc` without the frames.
    ///
    /// # Errors
    /// `Inval` for size 0 (and for address 0 without an MMU), `BadRange` when it wraps or passes the physical width,
    /// `IsRam`, `Alloc`. `AliasConflict`, when part of it is mapped with another cache mode, cannot happen while this
    /// call gives only one.
    #[track_caller]
    pub fn ioremap(&self, phys: PhysAddr, size: usize) -> Result<NonNull<u8>, MmError> {
        let caller = Location::caller();
        if !self.memory.is_ready() {
            return Err(AllocError::NotReady.into());
        }
        if size == 0 {
            return Err(MmError::Inval);
        }
        let end = phys.0.checked_add(size as u64).ok_or(MmError::BadRange)?;
        if (end - 1).checked_shr(B::PHYS_BITS).is_some_and(|above| above != 0) {
            return Err(MmError::BadRange);
        }
        let flags = self.memory.admit(GFP_KERNEL, caller)?;
        let is_ram = |r: &crate::frame::Region| {
            let (start, stop) = ((r.start() as u64) << B::PAGE_SHIFT, (r.end() as u64) << B::PAGE_SHIFT);
            phys.0 < stop && start < end
        };
        if self.memory.frames.regions().iter().any(is_ram) {
            return Err(MmError::IsRam);
        }
        let map = || self.areas.ioremap(&self.memory, phys, size, CacheMode::Uncached, caller);
        map().or_else(|error| match error {
            // A page for its record or its tables.
            MmError::Alloc(error) => {
                let mut other = None;
                let again = || {
                    map().map_err(|error| match error {
                        MmError::Alloc(error) => error,
                        error => {
                            other = Some(error);
                            AllocError::Unsupported
                        }
                    })
                };
                let result = self.reclaim(flags, 1, error, again);
                result.map_err(|failed| other.unwrap_or(failed.error.into()))
            }
            error => Err(error),
        })
    }

    /// Takes back an [`ioremap`](Self::ioremap). Null is fine; with an MMU so is any offset within the first page.
    ///
    /// # Errors
    /// As [`vfree`](Self::vfree); `WrongAllocator` for an area of vmalloc.
    pub fn iounmap(&self, addr: *const u8) -> Result<(), FreeError> {
        match addr.addr() {
            0 => Ok(()),
            _ if !self.memory.is_ready() => Err(FreeError::NotReady),
            addr => self
                .areas
                .iounmap(&self.memory, addr)
                .inspect_err(|&error| crate::trace::free_refused("iounmap", addr, error)),
        }
    }

    /// The frame behind an address of a vmalloc area; `None` elsewhere (a guard, an ioremap, freed).
    ///
    /// Context: any. Cost: one walk, under the lock of the tables.
    pub fn vmalloc_to_page(&self, addr: *const u8) -> Option<Pfn> {
        self.areas.to_page(&self.memory, addr.addr())
    }

    /// True when the address belongs to vmalloc: with an MMU the whole window, without one a live area.
    ///
    /// Context: any. Cost: constant with an MMU; without one a walk over at most the frames of the largest block.
    pub fn is_vmalloc_addr(&self, addr: *const u8) -> bool {
        self.areas_hold(addr.addr())
    }

    pub(crate) fn areas_hold(&self, addr: usize) -> bool {
        self.areas.contains(&self.memory, addr)
    }

    /// The area an address belongs to, or is a guard of, or belonged to lately: for fault reports.
    ///
    /// Context: any, also a fault handler; takes no lock. Cost: one walk for each page between the address and its
    /// area's guard.
    pub fn find_area(&self, addr: usize) -> Option<AreaHit> {
        self.areas.find(&self.memory, addr)
    }
}
