//! `RawKmemCache`: a cache of objects that are bytes.

use super::{Control, MAX_NUMBER, PLACE};
use crate::backend::Backend;
use crate::cache::CacheFlags;
use crate::error::{AllocError, FreeError, MmError};
use crate::frame::FrameKind;
use crate::gfp::{GFP_KERNEL, Gfp};
use crate::global::Manager;
use crate::lock::Locked;
use crate::manager::Mm;
use crate::meta::{MetaSize, UNIT};
use crate::platform::{Bug, Platform};
#[cfg(not(feature = "slab-debug"))]
use crate::slab::Geometry;
use crate::slab::{self, CacheState, Given, Hooks, SlabCounts};
use core::ffi::c_void;
use core::panic::Location;
use core::ptr::NonNull;

/// A cache of objects of one size, as Linux's `kmem_cache`. Dropping it destroys it, or reports that it is busy.
///
/// [`KmemCache`](crate::KmemCache) is the same for values of a type.
pub struct RawKmemCache<M: Manager> {
    control: NonNull<Control<M::Platform>>,
    pub(super) manager: M,
}

// SAFETY: the control block is only changed under locks.
unsafe impl<M: Manager + Send> Send for RawKmemCache<M> {}
// SAFETY: as above.
unsafe impl<M: Manager + Sync> Sync for RawKmemCache<M> {}

impl<M: Manager> RawKmemCache<M> {
    /// [`Mm::kmem_cache_create`] with a handle of the caller's choice.
    ///
    /// # Errors
    /// As `kmem_cache_create`.
    #[track_caller]
    pub fn new_in(
        name: &'static str,
        size: usize,
        align: usize,
        flags: CacheFlags,
        constructor: Option<fn(NonNull<u8>)>,
        manager: M,
    ) -> Result<Self, MmError> {
        Self::with_hooks(name, size, align, flags, constructor.map_or(Hooks::NONE, Hooks::of_bytes), manager)
    }

    /// [`new_in`](Self::new_in) with a constructor in C, or with none.
    ///
    /// # Errors
    /// As `kmem_cache_create`.
    ///
    /// # Safety
    /// The constructor may be called with any memory of `size` bytes, aligned as asked, for as long as the cache lives;
    /// it does not unwind.
    #[track_caller]
    pub unsafe fn with_c_constructor(
        name: &'static str,
        size: usize,
        align: usize,
        flags: CacheFlags,
        constructor: Option<unsafe extern "C" fn(*mut c_void)>,
        manager: M,
    ) -> Result<Self, MmError> {
        Self::with_hooks(name, size, align, flags, constructor.map_or(Hooks::NONE, Hooks::of_c), manager)
    }

    #[track_caller]
    pub(super) fn with_hooks(
        name: &'static str,
        size: usize,
        align: usize,
        flags: CacheFlags,
        hooks: Hooks,
        manager: M,
    ) -> Result<Self, MmError> {
        if name.is_empty() || size == 0 || flags.bits() & !CacheFlags::all().bits() != 0 {
            return Err(MmError::Inval);
        }
        if align != 0 && !align.is_power_of_two() {
            return Err(AllocError::BadAlign.into());
        }
        let line = if flags.contains(CacheFlags::HWCACHE_ALIGN) { M::Backend::CACHE_LINE } else { 8 };
        let align = if align == 0 { line } else { align };
        let largest = M::Backend::PAGE_SIZE << M::Backend::MAX_ORDER;
        if align > largest {
            return Err(AllocError::BadAlign.into());
        }
        let align = align.max(line);
        let slot = size.checked_next_multiple_of(align).filter(|s| *s <= largest).ok_or(AllocError::TooBig)?;
        #[cfg(not(feature = "slab-debug"))]
        let geometry = Geometry::for_cache(slot, align, M::Backend::PAGE_SIZE);
        #[cfg(feature = "slab-debug")]
        let (geometry, hooks) = super::guarded::cut::<M::Backend>((size, slot, align), flags, hooks)?;
        let mm = manager.mm();
        const {
            let size = MetaSize::Control.bytes();
            assert!(size_of::<Control<M::Platform>>() <= size, "the platform's lock is too large for a cache");
            assert!(align_of::<Control<M::Platform>>() <= UNIT, "the platform's lock is aligned to more than 32 bytes");
            assert!(MetaSize::Control.per_page(M::Backend::PAGE_SIZE) != 0, "a page is too small for a cache");
        }
        let how = mm.memory.admit(GFP_KERNEL, Location::caller())?;
        let take = || mm.memory.meta_take(MetaSize::Control, how, None);
        let id = take().or_else(|error| mm.reclaim(how, 1, error, take).map_err(|failed| failed.error))?;
        let control = mm.memory.meta_ptr::<Control<M::Platform>>(id);
        let block = Control {
            name,
            object_size: size,
            flags,
            geometry,
            state: Locked::new(CacheState::new()),
            hooks,
            number: 0,
            id,
            next: core::ptr::null_mut(),
        };
        // SAFETY: ours, long enough, and descriptors are aligned to 32 bytes.
        unsafe { control.write(block) };
        match Self::list(mm, control) {
            // SAFETY: descriptors are not at address 0.
            Ok(()) => Ok(RawKmemCache { control: unsafe { NonNull::new_unchecked(control) }, manager }),
            Err(error) => {
                mm.memory.meta_give(id, MetaSize::Control);
                Err(error)
            }
        }
    }

    /// Lists a control block behind the lowest unused number.
    fn list(mm: &Mm<M::Platform, M::Backend>, control: *mut Control<M::Platform>) -> Result<(), MmError> {
        mm.use_caches();
        let mut first = mm.caches.first.lock();
        let mut link: *mut *mut Control<M::Platform> = &raw mut first.0;
        let mut number = 0;
        let mut place = None;
        // SAFETY: listed control blocks are live, the lock is held, and `control` is ours until it is listed. No
        // reference to a listed block is made: its owner may use it meanwhile.
        unsafe {
            while !(*link).is_null() {
                let other = *link;
                if (*other).name == (*control).name {
                    return Err(MmError::Exists);
                }
                if place.is_none() && (*other).number != number {
                    place = Some(link);
                }
                number += u16::from(place.is_none());
                link = &raw mut (*other).next;
            }
            if number > MAX_NUMBER {
                return Err(AllocError::NoMemory.into());
            }
            let place = place.unwrap_or(link);
            (*control).number = number;
            #[cfg(feature = "small")]
            (*control).state.lock().set_up(&raw const (*control).geometry, FrameKind::CacheSlab, number as u8);
            (*control).next = *place;
            *place = control;
        }
        Ok(())
    }

    pub(super) fn control(&self) -> &Control<M::Platform> {
        // SAFETY: the control block lives until the cache is destroyed, which takes `self`.
        unsafe { self.control.as_ref() }
    }

    /// Takes an object: in the state its constructor or its last owner left it in; without a constructor undefined,
    /// or zeroes when the flags hold `ZERO`.
    ///
    /// Context: any; a task when the flags hold `WAIT`. Cost: as `kmalloc`; a new slab runs the constructor on each of
    /// its objects.
    ///
    /// # Errors
    /// `BadFlags` (also for `DMA` and `DMA32`, which the cache decides, and for `ZERO` with a constructor), `NoMemory`,
    /// `NoContig`.
    #[inline]
    #[track_caller]
    pub fn alloc(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let (mm, control) = (self.manager.mm(), self.control());
        let (asked, caller) = (flags, Location::caller());
        let (flags, zero) = self.admit(flags, caller)?;
        let mut state = control.state.lock();
        let object = match state.take() {
            Some(object) => {
                drop(state);
                object
            }
            None => mm.cache_slow(control, state.suspend(), flags).result()?,
        };
        #[cfg(feature = "slab-debug")]
        let object = if control.hooks.guarded.is_some() { self.sound(object, flags)? } else { object };
        if zero {
            // SAFETY: the object is ours and that long.
            unsafe { object.write_bytes(0, control.object_size) };
        }
        mm.made_cached(object.as_ptr(), control.name, control.object_size, asked, caller);
        Ok(object)
    }

    /// The flags to take pages with, and whether to zero objects.
    #[inline(always)]
    pub(super) fn admit(&self, flags: Gfp, caller: &'static Location<'static>) -> Result<(Gfp, bool), AllocError> {
        let asked = flags.contains(Gfp::ZERO);
        let mut flags = self.manager.mm().memory.admit(flags, caller)?.difference(Gfp::HIGHMEM);
        if flags.intersects(PLACE) || (asked && self.control().hooks.has_constructor()) {
            return Err(AllocError::BadFlags);
        }
        let zero = asked || (cfg!(feature = "init-on-alloc") && self.control().hooks.may_be_zeroed());
        flags = flags.difference(Gfp::ZERO);
        if self.control().flags.contains(CacheFlags::CACHE_DMA) {
            flags |= Gfp::DMA;
        }
        Ok((flags, zero))
    }

    /// Gives an object back. With a constructor its next owner gets it as it is.
    ///
    /// Context: any. Cost: as `kfree`.
    ///
    /// # Errors
    /// `WrongCache` for an object of another cache, `WrongAllocator` for other memory, `DoubleFree`, `Interior`,
    /// `Foreign`, `Reserved`; nothing was changed.
    #[inline]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    pub fn free(&self, ptr: *const u8) -> Result<(), FreeError> {
        let freed = self.free_at(ptr.addr());
        if freed.is_ok() { self.manager.mm().freed_cached(freed, self.control().name, ptr) } else { freed }
    }

    #[inline(always)]
    #[cfg_attr(feature = "slab-debug", track_caller)]
    fn free_at(&self, addr: usize) -> Result<(), FreeError> {
        let mm = self.manager.mm();
        #[cfg(feature = "slab-debug")]
        if let Some(guarded) = &self.control().hooks.guarded {
            return self.free_guarded(guarded, addr);
        }
        if let Some((_, frame)) = mm.memory.frames.find(mm.memory.backend.direct_frame(addr)) {
            let control = self.control();
            let state = control.state.lock();
            let head = frame.head();
            // The frame's own record tells the cache: another's descriptor is guarded by another lock.
            if head.is(FrameKind::CacheSlab) {
                if head.class() != control.number as usize {
                    return Err(FreeError::WrongCache);
                }
                let slots = Some(control.geometry.slots);
                // SAFETY: the frame names a live slab of this cache, whose lock is held, for as long as its head says
                // so.
                return match unsafe { slab::give(mm.memory.meta_ptr(frame.link()), addr, slots) } {
                    Given::Inside => Ok(()),
                    Given::First(slab, w) | Given::Edge(slab, w) => {
                        mm.cache_edge(control, state.suspend(), (slab, w), addr)
                    }
                    Given::Refused(error) => Err(error),
                };
            }
        }
        Err(self.refusal(addr))
    }

    /// Whether [`free`](Self::free) would take an object.
    ///
    /// # Errors
    /// What it would say.
    pub(crate) fn check_object(&self, addr: usize) -> Result<(), FreeError> {
        let mm = self.manager.mm();
        let Some((_, frame)) = mm.memory.frames.find(mm.memory.backend.direct_frame(addr)) else {
            return Err(self.refusal(addr));
        };
        let (head, slabs) = (frame.head(), mm.cache_slabs(self.control()));
        if !head.is(FrameKind::CacheSlab) {
            return Err(self.refusal(addr));
        }
        if head.class() != slabs.owner as usize {
            return Err(FreeError::WrongCache);
        }
        let offset = addr & (M::Backend::PAGE_SIZE - 1) | (head.count() as usize) << M::Backend::PAGE_SHIFT;
        match slabs.geometry.slot(offset) {
            Some(slot) if slot < slabs.geometry.slots as usize => {}
            _ => return Err(FreeError::Interior),
        }
        if slabs.is_live(frame, head, addr) { Ok(()) } else { Err(FreeError::DoubleFree) }
    }

    /// Why an address that is in no slab of a cache is refused.
    #[cold]
    pub(super) fn refusal(&self, addr: usize) -> FreeError {
        let mm = self.manager.mm();
        if mm.areas_hold(addr) { FreeError::WrongAllocator } else { mm.memory.refusal(addr) }
    }

    /// The manager's handle.
    pub fn manager(&self) -> M {
        self.manager
    }

    /// The cache's name.
    pub fn name(&self) -> &'static str {
        self.control().name
    }

    /// True when objects keep a state from one owner to the next.
    pub(crate) fn has_constructor(&self) -> bool {
        self.control().hooks.has_constructor()
    }

    /// Bytes of an object, as asked for.
    pub fn object_size(&self) -> usize {
        self.control().object_size
    }

    /// How full it is. Walks the cache's slabs.
    pub fn counts(&self) -> SlabCounts {
        self.manager.mm().cache_slabs(self.control()).counts()
    }

    /// Gives back the slab that is kept though nothing of it is in use, as Linux's `kmem_cache_shrink`; its objects are
    /// destroyed. Returns how many pages that were; none with feature `small`, where nothing is kept.
    ///
    /// Context: any. Cost: as one slab's free.
    pub fn shrink(&self) -> usize {
        let mm = self.manager.mm();
        let Some(detached) = mm.cache_slabs(self.control()).detach_kept() else { return 0 };
        let pages = detached.pages();
        detached.give(&mm.memory);
        pages
    }

    /// Destroys the cache.
    ///
    /// Context: task. Cost: proportional to the number of caches; a busy one counts its objects, slab by slab, for the
    /// error.
    ///
    /// # Errors
    /// The cache itself with `Busy` and the number of live objects, when there are any.
    pub fn destroy(self) -> Result<(), (Self, MmError)> {
        match self.unlist() {
            Ok(()) => {
                let this = core::mem::ManuallyDrop::new(self);
                this.give_control();
                Ok(())
            }
            Err(error) => Err((self, error)),
        }
    }

    /// Gives the control block back, which is on no list any more.
    fn give_control(&self) {
        let id = self.control().id;
        self.manager.mm().memory.meta_give(id, MetaSize::Control);
    }

    /// Empties the cache and takes it off the list, unless it is busy.
    fn unlist(&self) -> Result<(), MmError> {
        let mm = self.manager.mm();
        let slabs = mm.cache_slabs(self.control());
        if !slabs.is_idle() {
            return Err(MmError::Busy(slabs.counts().active));
        }
        slabs.drain();
        let mut first = mm.caches.first.lock();
        let mut link: *mut *mut Control<M::Platform> = &raw mut first.0;
        // SAFETY: listed control blocks are live, and the lock is held.
        unsafe {
            while !(*link).is_null() {
                let other = *link;
                if other == self.control.as_ptr() {
                    *link = (*other).next;
                    break;
                }
                link = &raw mut (*other).next;
            }
        }
        Ok(())
    }
}

impl<M: Manager> Drop for RawKmemCache<M> {
    fn drop(&mut self) {
        let mm = self.manager.mm();
        match self.unlist() {
            Ok(()) => self.give_control(),
            Err(MmError::Busy(objects)) => mm.platform().bug(&Bug::CacheBusy { objects }),
            Err(_) => {}
        }
    }
}
