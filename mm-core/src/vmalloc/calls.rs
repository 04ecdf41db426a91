//! `vmalloc` and what is made of it, and the frees of areas.

use super::area::{AreaHit, AreaKind, AreaUses};
use super::copy::STEP;
use super::{AreaFamily, AreaOptions, AreaRequest, CopyWay};
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::{AllocError, FreeError, MmError, Packed};
use crate::gfp::{GFP_DMA32, GFP_KERNEL, Gfp};
use crate::manager::Mm;
use crate::meta::MetaSize;
use crate::platform::Platform;
use crate::prot::Prot;
use crate::wait::Patience;
use core::panic::Location;
use core::ptr::NonNull;
use core::time::Duration;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Allocates `size` bytes of virtually contiguous memory, as Linux's `vmalloc`.
    ///
    /// With an MMU the pages are scattered, lie between guard pages, are read-write and never executable, and prefer
    /// HIGHMEM; each area takes whole units of 64 KiB of address space, its guard page included, and one of 2 MiB or
    /// more begins at a 2 MiB boundary, so that runs of frames are mapped by entries of that size. Without one they are
    /// exactly as many contiguous pages, page-aligned, with no guard unless [`AreaOptions::guards`] asks for one. Not
    /// zeroed.
    ///
    /// Context: task. Cost: per block and per batch of 32 entries; no lock is held for more.
    ///
    /// # Errors
    /// `ZeroSize`, `TooBig` (more than all memory, or without an MMU more than the largest block), `NoMemory`,
    /// `NoAddressSpace` with an MMU, `NoContig` without one, `NotReady`.
    #[track_caller]
    pub fn vmalloc(&self, size: usize) -> Result<NonNull<u8>, AllocError> {
        let caller = Location::caller();
        if cfg!(feature = "small") {
            return self.vmalloc_plain(size, caller).result();
        }
        self.vmalloc_at(size, &AreaOptions::new(), caller)
    }

    /// [`vmalloc`](Self::vmalloc) by a call, with nothing of what other options need.
    #[inline(never)]
    fn vmalloc_plain(&self, size: usize, caller: &'static Location<'static>) -> Packed {
        const PLAIN: &AreaOptions = &AreaOptions::new();
        Packed::new(self.vmalloc_at(size, PLAIN, caller))
    }

    /// An area, without reclaim.
    #[inline(always)]
    pub(crate) fn area_now(
        &self,
        size: usize,
        options: &AreaOptions,
        flags: Gfp,
        caller: &'static Location<'static>,
    ) -> Packed {
        Packed::new(self.areas.vmalloc(&self.memory, &options.request(size, flags, caller)))
    }

    /// [`vmalloc`](Self::vmalloc), which waits until `until` at most, a time of [`Platform::now`].
    ///
    /// # Errors
    /// As `vmalloc`.
    #[track_caller]
    pub fn vmalloc_deadline(&self, size: usize, until: Duration) -> Result<NonNull<u8>, AllocError> {
        self.vmalloc_until(size, &AreaOptions::new(), Some(until), Location::caller())
    }

    /// [`vmalloc`](Self::vmalloc), zeroed.
    ///
    /// # Errors
    /// As `vmalloc`.
    #[track_caller]
    pub fn vzalloc(&self, size: usize) -> Result<NonNull<u8>, AllocError> {
        const ZEROED: AreaOptions = AreaOptions::new().flags(GFP_KERNEL.union(Gfp::HIGHMEM).union(Gfp::ZERO));
        self.vmalloc_at(size, &ZEROED, Location::caller())
    }

    /// [`vzalloc`](Self::vzalloc) for memory that users will see: [`remap_vmalloc_range`](Self::remap_vmalloc_range)
    /// hands out its frames.
    ///
    /// # Errors
    /// As `vmalloc`.
    #[track_caller]
    pub fn vmalloc_user(&self, size: usize) -> Result<NonNull<u8>, AllocError> {
        self.vmalloc_at(size, &AreaOptions::new().user(), Location::caller())
    }

    /// [`vmalloc`](Self::vmalloc) from frames below 4 GiB.
    ///
    /// # Errors
    /// As `vmalloc`.
    #[track_caller]
    pub fn vmalloc_32(&self, size: usize) -> Result<NonNull<u8>, AllocError> {
        self.vmalloc_at(size, &self.below_4_gib(), Location::caller())
    }

    /// [`vmalloc_user`](Self::vmalloc_user) from frames below 4 GiB.
    ///
    /// # Errors
    /// As `vmalloc`.
    #[track_caller]
    pub fn vmalloc_32_user(&self, size: usize) -> Result<NonNull<u8>, AllocError> {
        self.vmalloc_at(size, &self.below_4_gib().user(), Location::caller())
    }

    fn below_4_gib(&self) -> AreaOptions {
        const LOW: AreaOptions = AreaOptions::new().flags(GFP_DMA32.union(GFP_KERNEL));
        // A machine without memory above has no zone of its own for what lies below.
        let below = |region: &crate::frame::Region| u64::from(region.end()) << B::PAGE_SHIFT <= 1 << 32;
        if self.memory.frames.regions().iter().all(below) { AreaOptions::new() } else { LOW }
    }

    /// [`vmalloc`](Self::vmalloc) near NUMA node `node`: `None` and node 0 are the one there is.
    ///
    /// # Errors
    /// `Unsupported` for any other node; else as `vmalloc`.
    #[track_caller]
    pub fn vmalloc_node(&self, size: usize, node: Option<u32>) -> Result<NonNull<u8>, AllocError> {
        if node.is_some_and(|node| node != 0) {
            return Err(AllocError::Unsupported);
        }
        self.vmalloc_at(size, &AreaOptions::new(), Location::caller())
    }

    /// [`vmalloc`](Self::vmalloc) with flags, protection, alignment and entries of the caller's choice, as Linux's
    /// `__vmalloc`.
    ///
    /// # Errors
    /// `BadAlign` for an alignment that is no power of two or above the largest block, `BadFlags`, `Unsupported` for a
    /// protection the backend cannot give, `NoGuard` when it asks for guards, or without an MMU for a protection, and
    /// the machine has no region left; else as `vmalloc`.
    #[track_caller]
    pub fn vmalloc_with(&self, size: usize, options: &AreaOptions) -> Result<NonNull<u8>, AllocError> {
        let align = options.alignment();
        if !align.is_power_of_two() || align > B::PAGE_SIZE << B::MAX_ORDER {
            return Err(AllocError::BadAlign);
        }
        let (caller, prot) = (Location::caller(), options.protection());
        if prot == Prot::ReadWrite || (B::HAS_PROTECT && prot == Prot::Read) {
            return self.vmalloc_at(size, options, caller);
        }
        // What asked for guards that stay could not be freed again when it cannot be protected.
        if (!B::HAS_PROTECT && !B::HAS_REGIONS) || !self.areas.clears_guards(&self.memory) {
            return Err(AllocError::Unsupported);
        }
        // Never writable here and executable there: made readable first.
        let area = self.vmalloc_at(size, &options.prot(Prot::Read), caller)?;
        match self.set_memory(area.as_ptr(), size.div_ceil(B::PAGE_SIZE), prot) {
            Ok(()) => Ok(area),
            Err(error) => {
                let _ = self.vfree(area.as_ptr());
                Err(match error {
                    MmError::Alloc(error) => error,
                    MmError::NoGuard => AllocError::NoGuard,
                    _ => AllocError::Unsupported,
                })
            }
        }
    }

    #[inline(always)]
    pub(super) fn vmalloc_at(
        &self,
        size: usize,
        options: &AreaOptions,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        self.vmalloc_until(size, options, None, caller)
    }

    #[inline(always)]
    fn vmalloc_until(
        &self,
        size: usize,
        options: &AreaOptions,
        until: Option<Duration>,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        if size == 0 {
            return Err(AllocError::ZeroSize);
        }
        if !self.is_ready_for_areas() {
            return Err(AllocError::NotReady);
        }
        let flags = self.memory.admit(options.gfp(), caller)?;
        if size.div_ceil(B::PAGE_SIZE) > self.memory.managed_pages() {
            return Err(AllocError::TooBig);
        }
        let request = options.request(size, flags, caller);
        self.use_areas();
        let made = if Self::OBTAINS && !B::HAS_MMU {
            // Among what is reclaimed, what was put off comes first too.
            let mut made = self.area_now(size, options, flags, caller);
            if made.result().is_err()
                && let Some(again) = self.again()
            {
                made = (again.area)(self, size, options, caller, made);
            }
            made.result().inspect_err(|&error| crate::trace::area_failed(size, flags, error))
        } else {
            match self.areas.vmalloc(&self.memory, &request) {
                Ok(area) => Ok(area),
                // A copy, so that the request need not be in memory where there is no error.
                Err(error) => self.vmalloc_slow(&{ request }, error, until),
            }
        };
        self.made_area(made, size, flags, caller)
    }

    /// Frees what was put off, and for want of address space what is kept of that; false when there was nothing.
    pub(super) fn free_put_off(&self, error: AllocError) -> bool {
        let put_off = self.flush_deferred() != 0;
        let kept = error == AllocError::NoAddressSpace && self.areas.free_addresses(&self.memory);
        put_off || kept
    }

    /// Everything the flags allow, for an area that was not to be had at once: first, what was put off.
    #[cold]
    #[inline(never)]
    fn vmalloc_slow(
        &self,
        request: &AreaRequest,
        mut error: AllocError,
        until: Option<Duration>,
    ) -> Result<NonNull<u8>, AllocError> {
        let (size, flags) = (request.size, request.flags);
        if self.free_put_off(error) {
            match self.areas.vmalloc(&self.memory, request) {
                Ok(area) => return Ok(area),
                Err(again) => error = again,
            }
        }
        let again = || self.areas.vmalloc(&self.memory, request);
        let result = self.reclaim(flags, size.div_ceil(B::PAGE_SIZE), error, again);
        let result = result.or_else(|failed| match P::CAN_WAIT && failed.waits {
            true => {
                let until = until.unwrap_or_else(|| self.memory.default_deadline());
                let tend = || self.tend();
                let patience = Patience { until, tend: &tend };
                let patience = Some(&patience);
                // A page for its record comes first: this one keeps it from others who wait.
                let waited = self.memory.meta_take(MetaSize::Large, flags, patience).and_then(|record| {
                    let area = self.areas.vmalloc(&self.memory, &AreaRequest { patience, ..*request });
                    self.memory.meta_give(record, MetaSize::Large);
                    area
                });
                waited.or_else(|error| self.at_last(error, || self.areas.vmalloc(&self.memory, request)))
            }
            false => Err(failed.error),
        });
        result.inspect_err(|&error| crate::trace::area_failed(size, flags, error))
    }

    /// Changes the size of an area, as Linux's `vrealloc`: null allocates, size 0 frees and returns `None`, and the
    /// contents up to the smaller size are kept.
    ///
    /// An area stays where it is while the new size takes as many pages; else a new one is made as `vmalloc` does with
    /// these flags, and with the guards and the life the old one asked for, the smaller of both sizes copied, and the
    /// old one freed. With `ZERO` what lies behind them is zero either way.
    ///
    /// Context: task. Cost: as `vmalloc` and `vfree`, plus the copy.
    ///
    /// # Errors
    /// `BadPointer` for anything that is not the start of an area of `vmalloc`; `Unsupported` for another number of
    /// pages when the area's guards stay until reset; else as `vmalloc`. The old area is unchanged then.
    ///
    /// # Safety
    /// Nobody writes to the area meanwhile, and it may be read.
    #[track_caller]
    pub unsafe fn vrealloc(&self, area: *mut u8, size: usize, flags: Gfp) -> Result<Option<NonNull<u8>>, AllocError> {
        let caller = Location::caller();
        let options = AreaOptions::new().flags(flags);
        if area.is_null() {
            return if size == 0 { Ok(None) } else { self.vmalloc_at(size, &options, caller).map(Some) };
        }
        let Some((old, uses)) =
            self.areas.area_at(&self.memory, area.addr()).filter(|(a, _)| a.kind == AreaKind::Alloc)
        else {
            return Err(AllocError::BadPointer);
        };
        let same_pages = size.div_ceil(B::PAGE_SIZE) == old.pages as usize;
        if !same_pages && uses.contains(AreaUses::GUARDED) && !self.areas.clears_guards(&self.memory) {
            return Err(AllocError::Unsupported);
        }
        if size == 0 {
            self.vfree(area).map_err(|_| AllocError::BadPointer)?;
            return Ok(None);
        }
        flags.validate()?;
        if same_pages && self.areas.set_size(&self.memory, area.addr(), size) {
            if flags.contains(Gfp::ZERO) {
                self.zero_behind(area.addr(), size.min(old.size));
            }
            return Ok(NonNull::new(area));
        }
        let new = self.vmalloc_at(size, &options.guards(uses.guards()).life(uses.life()), caller)?;
        // SAFETY: the new area is nobody else's, and the old one may be read, by the caller; frame by frame, for no
        // address of an area is used here.
        let copied = unsafe { self.copy_area(area.addr(), new.as_ptr().addr(), size.min(old.size)) };
        debug_assert!(copied, "an area has no frame");
        self.vfree(area).map_err(|_| AllocError::BadPointer)?;
        Ok(Some(new))
    }

    /// Clears what lies behind the first `kept` bytes of an area in their page.
    #[cold]
    fn zero_behind(&self, area: usize, kept: usize) {
        let mut zeros = [0u8; STEP];
        let end = (area + kept).next_multiple_of(B::PAGE_SIZE);
        // The area may be read-only, which the family's copy knows how to pass.
        for at in (area + kept..end).step_by(STEP) {
            let bytes = STEP.min(end - at);
            // SAFETY: the buffer has room for a step, and the area's owner is here.
            unsafe { self.areas.copy(&self.memory, at, zeros.as_mut_ptr(), bytes, CopyWay::Write) };
        }
    }

    /// Frees an area of [`vmalloc`](Self::vmalloc). Null is fine.
    ///
    /// With an MMU nothing is reused before its translations are flushed, and they are when this returns; but in an
    /// interrupt the area is only hidden, and freed by the next [`flush_deferred`](Self::flush_deferred),
    /// [`drain`](Self::drain), or request that finds too little; or, once 32 areas or 1024 pages are hidden so, by the
    /// next `vmalloc`, `ioremap`, `vmap` or free of one in a task.
    ///
    /// Context: any. Cost: as `vmalloc`; constant in an interrupt.
    ///
    /// # Errors
    /// `DoubleFree` when nothing is (any more) allocated there, `Interior` (a guard page too), `Misaligned`, `Reserved`
    /// for an area whose guards stay until reset ([`AreaGuards::Kept`](super::AreaGuards::Kept)), `WrongAllocator` for
    /// an ioremap or other memory, `Foreign`, `NotReady`; nothing was changed.
    #[inline]
    pub fn vfree(&self, addr: *const u8) -> Result<(), FreeError> {
        self.freed_area(self.free_area("vfree", addr.addr(), AreaKind::Alloc), addr)
    }

    #[inline(always)]
    pub(super) fn free_area(&self, call: &'static str, addr: usize, kind: AreaKind) -> Result<(), FreeError> {
        if addr == 0 {
            return Ok(());
        }
        if !self.is_ready_for_areas() {
            return Err(FreeError::NotReady);
        }
        let result = if !B::Areas::<P>::FREES_ANYWHERE && self.memory.puts_frees_off() {
            self.defer_free(addr, kind)
        } else {
            self.areas.vfree(&self.memory, addr, kind)
        };
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                crate::trace::free_refused(call, addr, error);
                Err(error)
            }
        }
    }

    /// Changes what `pages` pages of an area of `vmalloc` from `addr` on allow, as Linux's `set_memory_ro` and its kin.
    ///
    /// A 2 MiB entry that is meant in part is split. Before pages become executable, the direct map's alias of their
    /// frames becomes read-only, and it stays so until they are not executable any more or freed: no frame is ever both
    /// writable and executable. (Windows of HIGHMEM frames, which come and go, are not looked at.)
    ///
    /// Without an MMU only a whole area can be protected, if its pages are a power of two and it is aligned to its
    /// size, which it is unless it has guards and was not asked to be aligned: that takes one region of an MPU or PMP,
    /// until it is `ReadWrite` again or freed.
    ///
    /// Context: task. Cost: per batch of 32 entries, and one flush; for `ReadExecute`, and back, per block too.
    /// Constant without an MMU.
    ///
    /// # Errors
    /// `Unsupported` without an MMU for any other area, or without regions; `NoGuard` when none is free; `Inval` for no
    /// pages or an address that is not page-aligned; `NotMapped` when the pages are not all of one live area of
    /// `vmalloc`; `Alloc` when an entry cannot be split; nothing was changed.
    pub fn set_memory(&self, addr: *const u8, pages: usize, prot: Prot) -> Result<(), MmError> {
        if !B::HAS_PROTECT && !B::HAS_REGIONS {
            return Err(MmError::Unsupported);
        }
        if pages == 0 || !addr.addr().is_multiple_of(B::PAGE_SIZE) {
            return Err(MmError::Inval);
        }
        self.or_reclaim(1, || self.areas.protect(&self.memory, addr.addr(), pages, prot))
    }

    /// The frame behind an address of a vmalloc area; `None` elsewhere (a guard, an ioremap, freed).
    ///
    /// Context: any. Cost: one look at the table used last, or a walk, under the lock of the tables.
    #[inline]
    pub fn vmalloc_to_page(&self, addr: *const u8) -> Option<Pfn> {
        self.areas.to_page(&self.memory, addr.addr())
    }

    /// [`vmalloc_to_page`](Self::vmalloc_to_page) as a number, as Linux's `vmalloc_to_pfn`.
    #[inline]
    pub fn vmalloc_to_pfn(&self, addr: *const u8) -> Option<u32> {
        self.vmalloc_to_page(addr).map(|pfn| pfn.0)
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

    /// Calls `map` with the number and the frame of each page of an area of [`vmalloc_user`](Self::vmalloc_user) that
    /// `size` bytes, `offset` pages behind its start, touch: the kernel's side of Linux's `remap_vmalloc_range`.
    ///
    /// Context: task. Cost: one walk for each page; no lock is held while `map` runs.
    ///
    /// # Errors
    /// `Inval` when `area` is not the start of such an area, or size 0; `BadRange` when the range is not all inside;
    /// the error of `map`, which is not called any more then.
    pub fn remap_vmalloc_range(
        &self,
        area: *const u8,
        offset: usize,
        size: usize,
        mut map: impl FnMut(usize, Pfn) -> Result<(), MmError>,
    ) -> Result<(), MmError> {
        let found = self.areas.area_at(&self.memory, area.addr());
        let Some((info, _)) = found.filter(|(_, uses)| uses.contains(AreaUses::USER) && size != 0) else {
            return Err(MmError::Inval);
        };
        let pages = size.div_ceil(B::PAGE_SIZE);
        if offset.checked_add(pages).is_none_or(|end| end > info.pages as usize) {
            return Err(MmError::BadRange);
        }
        for page in offset..offset + pages {
            let at = area.wrapping_add(page * B::PAGE_SIZE);
            map(page - offset, self.vmalloc_to_page(at).ok_or(MmError::NotMapped)?)?;
        }
        Ok(())
    }

    /// Keeps `tables` page-table frames and as many records of areas aside, instead of as many as before, so that a later
    /// mapping does not fail for want of one. They are used when no other memory is to be had, filled up again by freed
    /// areas, and not given back by [`drain`](Self::drain), but by a call for fewer.
    ///
    /// One call needs one record, of which a page holds 42, and at most three tables for each 2 MiB it maps in small
    /// entries, and three more. So with six kept any one [`ioremap`](Self::ioremap) of up to 2 MiB succeeds with no memory
    /// at all while there is address space, and so does a [`vmap`](Self::vmap) that needs no sort. Without an MMU there are
    /// no tables, and nothing is kept.
    ///
    /// Context: task. Cost: one page operation for each table, and one descriptor.
    ///
    /// # Errors
    /// `NoMemory`, `NotReady`; nothing was changed.
    pub fn reserve_tables(&self, tables: usize) -> Result<(), AllocError> {
        if !self.is_ready_for_areas() {
            return Err(AllocError::NotReady);
        }
        let again = || self.areas.reserve_tables(&self.memory, tables);
        again().or_else(|error| self.reclaim(GFP_KERNEL, tables, error, again).map_err(|failed| failed.error))
    }

    /// The area an address belongs to, or is a guard of, or belonged to lately: for fault reports.
    ///
    /// Context: any, also a fault handler; takes no lock with one CPU, and with several none that this CPU may hold:
    /// then nothing is found. Cost: one walk for each page between the address and its area's guard.
    pub fn find_area(&self, addr: usize) -> Option<AreaHit> {
        self.areas.find(&self.memory, addr)
    }
}
