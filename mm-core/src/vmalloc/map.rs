//! Mappings of what is there already: devices, and the caller's own pages.

use super::AreaFamily;
use super::area::{AreaKind, AreaUses};
use super::given::Given;
use crate::addr::{Pfn, PhysAddr, PhysRange};
use crate::backend::Backend;
use crate::error::{AllocError, FreeError, MmError};
use crate::frame::Region;
use crate::gfp::GFP_KERNEL;
use crate::manager::Mm;
use crate::platform::Platform;
use crate::prot::{CacheMode, Prot};
use core::panic::Location;
use core::ptr::NonNull;

impl<P: Platform, B: Backend> Mm<P, B> {
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
    /// `IsRam`, `AliasConflict` when a page of it is mapped with another cache mode, `Alloc`.
    #[track_caller]
    pub fn ioremap(&self, phys: PhysAddr, size: usize) -> Result<NonNull<u8>, MmError> {
        self.ioremap_at(phys, size, CacheMode::Uncached, Location::caller())
    }

    /// [`ioremap`](Self::ioremap), write-combining: stores may be gathered and come late, as a framebuffer likes it.
    ///
    /// # Errors
    /// As `ioremap`.
    #[track_caller]
    pub fn ioremap_wc(&self, phys: PhysAddr, size: usize) -> Result<NonNull<u8>, MmError> {
        self.ioremap_at(phys, size, CacheMode::WriteCombining, Location::caller())
    }

    /// [`ioremap`](Self::ioremap), write-through: loads are cached, stores reach the device at once.
    ///
    /// # Errors
    /// As `ioremap`.
    #[track_caller]
    pub fn ioremap_wt(&self, phys: PhysAddr, size: usize) -> Result<NonNull<u8>, MmError> {
        self.ioremap_at(phys, size, CacheMode::WriteThrough, Location::caller())
    }

    /// [`ioremap`](Self::ioremap), cached as memory is: for firmware tables and memory behind a bus.
    ///
    /// # Errors
    /// As `ioremap`.
    #[track_caller]
    pub fn ioremap_cache(&self, phys: PhysAddr, size: usize) -> Result<NonNull<u8>, MmError> {
        self.ioremap_at(phys, size, CacheMode::WriteBack, Location::caller())
    }

    pub(super) fn ioremap_at(
        &self,
        phys: PhysAddr,
        size: usize,
        cache: CacheMode,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, MmError> {
        if !self.is_ready_for_areas() {
            return Err(AllocError::NotReady.into());
        }
        if size == 0 {
            return Err(MmError::Inval);
        }
        let end = phys.0.checked_add(size as u64).ok_or(MmError::BadRange)?;
        if (end - 1).checked_shr(B::PHYS_BITS).is_some_and(|above| above != 0) {
            return Err(MmError::BadRange);
        }
        self.memory.admit(GFP_KERNEL, caller)?;
        let range = PhysRange { start: phys.0, end };
        let (regions, bytes) = (self.memory.frames.regions(), |pfn: u32| u64::from(pfn) << B::PAGE_SHIFT);
        let is_ram = |r: &Region| range.overlaps(PhysRange { start: bytes(r.start()), end: bytes(r.end()) });
        // Mostly a device is above all RAM.
        if regions.last().is_some_and(|last| range.start < bytes(last.end())) && regions.iter().any(is_ram) {
            return Err(MmError::IsRam);
        }
        self.or_reclaim(1, || self.areas.ioremap(&self.memory, phys, size, cache, caller))
    }

    /// Takes back an [`ioremap`](Self::ioremap). Null is fine; with an MMU so is any offset within the first page.
    ///
    /// # Errors
    /// As [`vfree`](Self::vfree); `WrongAllocator` for an area of vmalloc.
    pub fn iounmap(&self, addr: *const u8) -> Result<(), FreeError> {
        let page = if B::HAS_MMU { addr.addr() & !(B::PAGE_SIZE - 1) } else { 0 };
        self.free_area("iounmap", if page == 0 { addr.addr() } else { page }, AreaKind::Ioremap)
    }

    /// Maps pages the caller has, one after the other, as Linux's `vmap`. They stay the caller's.
    ///
    /// The mapping is write-back, as memory is. Without an MMU pages that are neighbours anyway, in this order, give the
    /// address of the first; others are `Unsupported`, and so is any protection but `ReadWrite`.
    ///
    /// Context: task. Cost: as `vmalloc` without the frames; pages in more than 8 ascending runs, or in runs of which
    /// neither lies in a gap of the other, cost a sort.
    ///
    /// # Errors
    /// `Alloc(ZeroSize)` for no pages, `Alloc(TooBig)` for more than all memory; `Inval` for a page that is given twice, is
    /// no RAM of this manager, free, or its own; `Unsupported` for `ReadExecute`, and with an MMU for `ReadWrite` of a page
    /// of a `vmalloc` area, which may be made executable; `Alloc`.
    #[track_caller]
    pub fn vmap(&self, pages: &[Pfn], prot: Prot) -> Result<NonNull<u8>, MmError> {
        let caller = Location::caller();
        self.check_map(pages, prot, caller, || self.is_ready_for_areas())?;
        self.or_reclaim(1, || self.areas.vmap(&self.memory, pages, prot, AreaUses::empty(), caller))
    }

    /// Takes back a [`vmap`](Self::vmap). Null is fine.
    ///
    /// # Errors
    /// As [`vfree`](Self::vfree); `WrongAllocator` for anything else, also a mapping of
    /// [`vm_map_ram`](Self::vm_map_ram).
    pub fn vunmap(&self, addr: *const u8) -> Result<(), FreeError> {
        self.refuse_ram(addr.addr())?;
        self.free_area("vunmap", addr.addr(), AreaKind::Map)
    }

    /// A mapping of [`vm_map_ram`](Self::vm_map_ram) goes back by its own call.
    #[inline(always)]
    pub(super) fn refuse_ram(&self, addr: usize) -> Result<(), FreeError> {
        if B::Areas::<P>::TELLS_RAM {
            return Ok(());
        }
        match self.areas.area_at(&self.memory, addr) {
            Some((_, uses)) if uses.contains(AreaUses::RAM) => Err(FreeError::WrongAllocator),
            _ => Ok(()),
        }
    }

    /// A [`vmap`](Self::vmap) for a short time, read-write, as Linux's `vm_map_ram`.
    ///
    /// With an MMU up to 32 pages are mapped in a block whose address space and page table were made by an earlier call, between
    /// unmapped pages; up to four blocks of 64 pages are kept until [`drain`](Self::drain). More pages, and what finds the
    /// blocks full, are mapped as by `vmap`.
    ///
    /// Context: task. Cost: in a block a few instructions a page.
    ///
    /// # Errors
    /// As `vmap`.
    #[track_caller]
    pub fn vm_map_ram(&self, pages: &[Pfn]) -> Result<NonNull<u8>, MmError> {
        let (caller, prot) = (Location::caller(), Prot::ReadWrite);
        // In a block no area is made, so nobody's free is done before.
        self.check_map(pages, prot, caller, || self.memory.is_ready())?;
        match self.or_reclaim(1, || self.areas.map_ram(&self.memory, pages, caller))? {
            Some(mapped) => Ok(mapped),
            None => {
                self.is_ready_for_areas();
                self.or_reclaim(1, || self.areas.vmap(&self.memory, pages, prot, AreaUses::RAM, caller))
            }
        }
    }

    /// Takes back a [`vm_map_ram`](Self::vm_map_ram) of as many pages. Its addresses are used again only after their flush.
    ///
    /// Context: any. Cost: in a block one flush, and a few instructions a page; else as [`vfree`](Self::vfree).
    ///
    /// # Errors
    /// `WrongOrder` for another count, `WrongAllocator` for any other area; else as [`vfree`](Self::vfree).
    pub fn vm_unmap_ram(&self, addr: *const u8, count: usize) -> Result<(), FreeError> {
        if let Some(unmapped) = self.areas.unmap_ram(&self.memory, addr.addr(), count) {
            return unmapped.inspect_err(|&error| crate::trace::free_refused("vm_unmap_ram", addr.addr(), error));
        }
        self.areas.release_ram(&self.memory, addr.addr(), count)?;
        // Of nothing there, the free says why.
        self.free_area("vm_unmap_ram", addr.addr(), AreaKind::Map)
    }

    /// What [`vmap`](Self::vmap) refuses.
    #[inline(always)]
    fn check_map(
        &self,
        pages: &[Pfn],
        prot: Prot,
        caller: &'static Location<'static>,
        is_ready: impl FnOnce() -> bool,
    ) -> Result<(), MmError> {
        if !is_ready() {
            return Err(AllocError::NotReady.into());
        }
        if pages.is_empty() {
            return Err(AllocError::ZeroSize.into());
        }
        self.memory.admit(GFP_KERNEL, caller)?;
        if pages.len() > self.memory.managed_pages() {
            return Err(AllocError::TooBig.into());
        }
        // Whoever else writes to them could then write code.
        if prot.executable() || (!B::HAS_PROTECT && prot != Prot::ReadWrite) {
            return Err(MmError::Unsupported);
        }
        let given = self.check_pages(pages)?;
        if B::HAS_PROTECT && prot.writable() && given == Given::OfArea {
            return Err(MmError::Unsupported);
        }
        Ok(())
    }

    /// Makes an attempt; another one when frees that were put off stood in the way; and when it is memory or address
    /// space that lacks, one after each step of reclaim for `pages`.
    #[inline(always)]
    pub(super) fn or_reclaim<T>(
        &self,
        pages: usize,
        mut attempt: impl FnMut() -> Result<T, MmError>,
    ) -> Result<T, MmError> {
        self.use_areas();
        match attempt() {
            Ok(made) => Ok(made),
            Err(error) => self.reclaim_for(pages, error, attempt),
        }
    }

    /// The further attempts.
    #[cold]
    #[inline(never)]
    fn reclaim_for<T>(
        &self,
        pages: usize,
        error: MmError,
        mut attempt: impl FnMut() -> Result<T, MmError>,
    ) -> Result<T, MmError> {
        let lacks = match error {
            MmError::Alloc(error) => error,
            MmError::AliasConflict => AllocError::NoMemory,
            error => return Err(error),
        };
        let error = if self.free_put_off(lacks) { attempt() } else { Err(error) };
        match error {
            Err(MmError::Alloc(error)) => {
                let again = || match attempt() {
                    Err(MmError::Alloc(error)) => Err(error),
                    result => Ok(result),
                };
                self.reclaim(GFP_KERNEL, pages, error, again).unwrap_or_else(|failed| Err(failed.error.into()))
            }
            result => result,
        }
    }
}
