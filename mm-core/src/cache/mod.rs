//! Caches: objects of one size in slabs of their own.

mod bulk;
mod deadline;
#[cfg(feature = "slab-debug")]
mod guarded;
mod raw;
mod sheaf;
mod typed;

pub use raw::RawKmemCache;
pub use sheaf::{RawSheaf, Sheaf};
pub use typed::{CacheBox, KmemCache};

use crate::backend::Backend;
use crate::error::{FreeError, MmError, Packed};
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::lock::Locked;
use crate::manager::Mm;
use crate::platform::{Platform, RawLock};
use crate::slab::{CacheState, Geometry, Hooks, Slab, SlabCounts, Slabs};
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
        /// `SLAB_RED_ZONE`: 64 bytes on both sides of each object are watched.
        #[cfg(feature = "slab-debug")]
        const RED_ZONE = 1 << 10;
        /// `SLAB_POISON`: free objects are filled with 0x6b, and must be so when they are taken. Not with a constructor.
        #[cfg(feature = "slab-debug")]
        const POISON = 1 << 11;
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
    hooks: Hooks,
    state: Locked<P::Lock, CacheState>,
    number: u16,
    /// The descriptor it lies in.
    id: u32,
    next: *mut Control<P>,
}

#[cfg(feature = "small")]
impl<P: Platform> Control<P> {
    /// The hooks of the cache that is cut by `geometry`.
    ///
    /// # Safety
    /// That is of a live control block, by a pointer to all of it.
    pub(crate) unsafe fn hooks_of<'a>(geometry: *const Geometry) -> &'a Hooks {
        let (from, to) = (core::mem::offset_of!(Control<P>, geometry), core::mem::offset_of!(Control<P>, hooks));
        // SAFETY: by the caller's word.
        unsafe { &*geometry.byte_offset(to as isize - from as isize).cast() }
    }
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

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Makes a cache of objects of `size` bytes, aligned to `align` (a power of two, or 0 for 8), as Linux's
    /// `kmem_cache_create`.
    ///
    /// The constructor, if there is one, runs on each object when a slab is carved, not when one is taken: objects keep
    /// the state they are freed in. It runs outside every lock and may allocate, though not from this cache.
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
        constructor: Option<fn(NonNull<u8>)>,
    ) -> Result<RawKmemCache<&Self>, MmError> {
        RawKmemCache::new_in(name, size, align, flags, constructor, self)
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
                Packed::new(slabs.alloc_slab(flags, None))
            }
        }
    }

    /// See [`Slabs::settle`].
    #[inline(never)]
    fn cache_edge(
        &self,
        control: &Control<P>,
        token: <P::Lock as RawLock>::Token,
        (slab, w): (*mut Slab, usize),
        addr: usize,
    ) -> Result<(), FreeError> {
        let slabs = self.cache_slabs(control);
        // SAFETY: `free` locked this state, and left its section to this function.
        let state = unsafe { slabs.state.resume(token) };
        slabs.settle(state, slab, w, addr);
        Ok(())
    }

    pub(crate) fn cache_slabs<'a>(&'a self, control: &'a Control<P>) -> Slabs<'a, P, B> {
        let who = (FrameKind::CacheSlab, control.number as u8);
        Slabs::new(self, &control.geometry, &control.state, who, &control.hooks)
    }

    /// Gives back the slab each cache keeps.
    #[cfg_attr(feature = "small", allow(dead_code))]
    pub(crate) fn drain_caches(&self) {
        let mut index = 0;
        // Detached under the list's lock, which keeps the cache; given back, with what that logs, behind it.
        loop {
            let first = self.caches.first.lock();
            let Some(control) = self.nth_cache(&first, index) else { return };
            let detached = self.cache_slabs(control).detach_kept();
            drop(first);
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
                return if geometry.marked == 1 { geometry.pages as usize } else { 1 };
            }
            index += 1;
        }
        1
    }

    /// Runs `f` on the cache with a number. The list's lock is held: the cache cannot go meanwhile.
    #[cfg(feature = "page-owner")]
    pub(crate) fn with_numbered_cache<R>(&self, number: usize, f: impl FnOnce(Slabs<'_, P, B>) -> R) -> Option<R> {
        let first = self.caches.first.lock();
        let mut at = first.0;
        // SAFETY: listed control blocks are live, and the lock is held.
        while let Some(control) = unsafe { at.as_ref() } {
            if control.number as usize == number {
                return Some(f(self.cache_slabs(control)));
            }
            at = control.next;
        }
        None
    }

    /// Runs `f` on the `index`-th cache. The list's lock is held: a cache cannot go meanwhile.
    pub(crate) fn with_cache<R>(&self, index: usize, f: impl FnOnce(&Control<P>) -> R) -> Option<R> {
        let first = self.caches.first.lock();
        self.nth_cache(&first, index).map(f)
    }

    fn nth_cache<'a>(&self, first: &'a First<P>, index: usize) -> Option<&'a Control<P>> {
        let mut at = first.0;
        for _ in 0..index {
            // SAFETY: listed control blocks are live, and the lock is held while its value is borrowed.
            at = unsafe { at.as_ref()?.next };
        }
        // SAFETY: as above.
        unsafe { at.as_ref() }
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
