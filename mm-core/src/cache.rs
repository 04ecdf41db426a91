//! `KmemCache`: objects of one size in slabs of their own.

use crate::backend::Backend;
use crate::error::{AllocError, FreeError, MmError, Packed};
use crate::frame::FrameKind;
use crate::gfp::{GFP_KERNEL, Gfp};
use crate::global::Manager;
use crate::lock::Locked;
use crate::manager::Mm;
use crate::meta::{MetaSize, UNIT};
use crate::platform::{Bug, Platform, RawLock};
use crate::slab::{self, CacheState, Geometry, Given, Slab, SlabCounts, Slabs};
use core::panic::Location;
use core::ptr::NonNull;

/// How a cache's objects are placed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct CacheFlags(pub u32);

bitflags::bitflags! {
    impl CacheFlags: u32 {
        /// `SLAB_HWCACHE_ALIGN`: objects start on a cache line.
        const HWCACHE_ALIGN = 1 << 13;
        /// `SLAB_CACHE_DMA`: objects lie below the DMA limit.
        const CACHE_DMA = 1 << 14;
    }
}

/// Flags an allocation from a cache may not choose: the cache chose.
const PLACE: Gfp = Gfp::DMA.union(Gfp::DMA32);
/// Frame records name the cache of a slab by one byte.
const MAX_NUMBER: u16 = 0xff;

/// A cache's control block, in a descriptor of its own, chained by ascending number.
pub(crate) struct Control<P: Platform> {
    pub(crate) name: &'static str,
    pub(crate) object_size: usize,
    flags: CacheFlags,
    pub(crate) geometry: Geometry,
    state: Locked<P::Lock, CacheState>,
    number: u16,
    /// The descriptor it lies in.
    id: u32,
    next: *mut Control<P>,
}

/// All caches of a manager.
pub(crate) struct CacheList<P: Platform> {
    first: Locked<P::Lock, First<P>>,
}

struct First<P: Platform>(*mut Control<P>);

// SAFETY: control blocks are reached under the list's lock, or by the cache's owner.
unsafe impl<P: Platform> Send for First<P> {}

impl<P: Platform> CacheList<P> {
    pub(crate) const fn new() -> Self {
        CacheList { first: Locked::new(First(core::ptr::null_mut())) }
    }
}

/// What slabinfo tells of a cache.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CacheInfo {
    /// Its name.
    pub name: &'static str,
    /// Bytes a caller asked for.
    pub object_size: usize,
    /// Bytes from one object to the next.
    pub slot_size: usize,
    /// Objects in a slab.
    pub per_slab: usize,
    /// Pages in a slab.
    pub pages: usize,
    /// How full it is.
    pub counts: SlabCounts,
}

/// A cache of objects of one size, as Linux's `kmem_cache`. Dropping it destroys it, or reports that it is busy.
pub struct KmemCache<M: Manager> {
    control: NonNull<Control<M::Platform>>,
    manager: M,
}

// SAFETY: the control block is only changed under locks.
unsafe impl<M: Manager + Send> Send for KmemCache<M> {}
// SAFETY: as above.
unsafe impl<M: Manager + Sync> Sync for KmemCache<M> {}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Makes a cache of objects of `size` bytes, aligned to `align` (a power of two, or 0 for 8).
    ///
    /// Context: task. Cost: proportional to the number of caches, of which there are at most 256. Names are unique.
    ///
    /// # Errors
    /// `Inval` for size 0, `Alloc(BadAlign)`, `Alloc(TooBig)` above the largest block, `Exists` for a name in use,
    /// `Alloc(NoMemory)`.
    #[track_caller]
    pub fn kmem_cache_create(
        &self,
        name: &'static str,
        size: usize,
        align: usize,
        flags: CacheFlags,
    ) -> Result<KmemCache<&Self>, MmError> {
        KmemCache::new_in(name, size, align, flags, self)
    }

    /// The current word of a cache is used up.
    #[inline(never)]
    fn cache_slow(&self, control: &Control<P>, token: <P::Lock as RawLock>::Token, flags: Gfp) -> Packed {
        let slabs = self.cache_slabs(control);
        // SAFETY: `alloc` locked this state, and left its section to this function.
        let mut state = unsafe { slabs.state.resume(token) };
        match slabs.advance(&mut state) {
            Some(object) => Packed::new(Ok(object)),
            None => {
                drop(state);
                Packed::new(slabs.grow(flags))
            }
        }
    }

    /// Word `w` of a live slab, not the current word, got its first free slot or perhaps its last.
    #[inline(never)]
    fn cache_edge(
        &self,
        control: &Control<P>,
        token: <P::Lock as RawLock>::Token,
        slab: *mut Slab,
        w: usize,
    ) -> Result<(), FreeError> {
        let slabs = self.cache_slabs(control);
        // SAFETY: `free` locked this state, and left its section to this function.
        let state = unsafe { slabs.state.resume(token) };
        slabs.settle(state, slab, w);
        Ok(())
    }

    pub(crate) fn cache_slabs<'a>(&'a self, control: &'a Control<P>) -> Slabs<'a, P, B> {
        Slabs {
            memory: &self.memory,
            geometry: &control.geometry,
            state: &control.state,
            kind: FrameKind::CacheSlab,
            owner: control.number as u8,
        }
    }

    /// Gives back the slab each cache keeps.
    pub(crate) fn drain_caches(&self) {
        let mut index = 0;
        // Detached under the list's lock, which keeps the cache; given back, with what that logs, behind it.
        while let Some(detached) = self.with_cache(index, |control| self.cache_slabs(control).detach_kept()) {
            if let Some(detached) = detached {
                detached.give(&self.memory);
            }
            index += 1;
        }
    }

    /// Pages of a slab of cache `number` when it holds one object, and marks its first frame only; else 1.
    pub(crate) fn pages_behind_first(&self, number: usize) -> usize {
        let mut index = 0;
        let of = |control: &Control<P>| (control.number as usize, control.geometry);
        while let Some((found, geometry)) = self.with_cache(index, of) {
            if found == number {
                return if geometry.slots == 1 { geometry.pages as usize } else { 1 };
            }
            index += 1;
        }
        1
    }

    /// Runs `f` on the `index`-th cache. The list's lock is held: a cache cannot go meanwhile.
    pub(crate) fn with_cache<R>(&self, index: usize, f: impl FnOnce(&Control<P>) -> R) -> Option<R> {
        let first = self.caches.first.lock();
        let mut at = first.0;
        for _ in 0..index {
            // SAFETY: listed control blocks are live, and the lock is held.
            at = unsafe { at.as_ref()?.next };
        }
        // SAFETY: as above.
        unsafe { at.as_ref() }.map(f)
    }

    pub(crate) fn cache_info(&self, index: usize) -> Option<CacheInfo> {
        self.with_cache(index, |control| CacheInfo {
            name: control.name,
            object_size: control.object_size,
            slot_size: control.geometry.size as usize,
            per_slab: control.geometry.slots as usize,
            pages: control.geometry.pages as usize,
            counts: self.cache_slabs(control).counts(),
        })
    }
}

impl<M: Manager> KmemCache<M> {
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
        let geometry = Geometry::for_cache(slot, align, M::Backend::PAGE_SIZE);
        let mm = manager.mm();
        const {
            let size = MetaSize::Control.bytes();
            assert!(size_of::<Control<M::Platform>>() <= size, "the platform's lock is too large for a cache");
            assert!(align_of::<Control<M::Platform>>() <= UNIT, "the platform's lock is aligned to more than 32 bytes");
        }
        mm.memory.admit(GFP_KERNEL, Location::caller())?;
        let id = mm.memory.meta_take(MetaSize::Control, GFP_KERNEL)?;
        let control = mm.memory.meta_ptr::<Control<M::Platform>>(id);
        let block = Control {
            name,
            object_size: size,
            flags,
            geometry,
            state: Locked::new(CacheState::new()),
            number: 0,
            id,
            next: core::ptr::null_mut(),
        };
        // SAFETY: ours, long enough, and descriptors are aligned to 32 bytes.
        unsafe { control.write(block) };
        match Self::list(mm, control) {
            // SAFETY: descriptors are not at address 0.
            Ok(()) => Ok(KmemCache { control: unsafe { NonNull::new_unchecked(control) }, manager }),
            Err(error) => {
                mm.memory.meta_give(id, MetaSize::Control);
                Err(error)
            }
        }
    }

    /// Lists a control block behind the lowest unused number.
    fn list(mm: &Mm<M::Platform, M::Backend>, control: *mut Control<M::Platform>) -> Result<(), MmError> {
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
            (*control).next = *place;
            *place = control;
        }
        Ok(())
    }

    fn control(&self) -> &Control<M::Platform> {
        // SAFETY: the control block lives until the cache is destroyed, which takes `self`.
        unsafe { self.control.as_ref() }
    }

    /// Takes an object; undefined contents unless the flags hold `ZERO`.
    ///
    /// Context: any; a task when the flags hold `WAIT`. Cost: as `kmalloc`.
    ///
    /// # Errors
    /// `BadFlags` (also for `DMA` and `DMA32`, which the cache decides), `NoMemory`, `NoContig`.
    #[inline]
    #[track_caller]
    pub fn alloc(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let (mm, control) = (self.manager.mm(), self.control());
        let mut flags = mm.memory.admit(flags, Location::caller())?.difference(Gfp::HIGHMEM);
        if flags.intersects(PLACE) {
            return Err(AllocError::BadFlags);
        }
        let zero = flags.contains(Gfp::ZERO);
        flags = flags.difference(Gfp::ZERO);
        if control.flags.contains(CacheFlags::CACHE_DMA) {
            flags |= Gfp::DMA;
        }
        let mut state = control.state.lock();
        let object = match state.take(control.geometry.size as usize) {
            Some(object) => {
                drop(state);
                object
            }
            None => mm.cache_slow(control, state.suspend(), flags).result()?,
        };
        if zero {
            // SAFETY: the object is ours and that long.
            unsafe { object.write_bytes(0, control.object_size) };
        }
        Ok(object)
    }

    /// Gives an object back.
    ///
    /// Context: any. Cost: as `kfree`.
    ///
    /// # Errors
    /// `WrongCache` for an object of another cache, `WrongAllocator` for other memory, `DoubleFree`, `Interior`,
    /// `Foreign`, `Reserved`; nothing was changed.
    #[inline]
    pub fn free(&self, ptr: *const u8) -> Result<(), FreeError> {
        let (mm, addr) = (self.manager.mm(), ptr.addr());
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
                    Given::Edge(slab, w) => mm.cache_edge(control, state.suspend(), slab, w),
                    Given::Refused(error) => Err(error),
                };
            }
        }
        Err(if mm.areas_hold(addr) { FreeError::WrongAllocator } else { mm.memory.refusal(addr) })
    }

    /// The cache's name.
    pub fn name(&self) -> &'static str {
        self.control().name
    }

    /// Bytes of an object, as asked for.
    pub fn object_size(&self) -> usize {
        self.control().object_size
    }

    /// How full it is. Walks the cache's slabs.
    pub fn counts(&self) -> SlabCounts {
        self.manager.mm().cache_slabs(self.control()).counts()
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

impl<M: Manager> Drop for KmemCache<M> {
    fn drop(&mut self) {
        let mm = self.manager.mm();
        match self.unlist() {
            Ok(()) => self.give_control(),
            Err(MmError::Busy(objects)) => mm.platform().bug(&Bug::CacheBusy { objects }),
            Err(_) => {}
        }
    }
}
