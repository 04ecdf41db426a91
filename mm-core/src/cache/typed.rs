//! `KmemCache`: a cache of values of one type, kept constructed.

use super::{RawKmemCache, Sheaf};
use crate::cache::CacheFlags;
use crate::error::{AllocError, FreeError, MmError};
use crate::gfp::Gfp;
use crate::global::Manager;
use crate::platform::{Bug, Platform};
use crate::slab::{Hooks, SlabCounts};
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::time::Duration;

/// A cache of values of type `T`. Dropping it destroys it, or reports that it is busy.
///
/// Values are made when a slab is carved and dropped when it goes back, not with each allocation: whoever takes one
/// finds it as it was made, or as its last owner left it. What is costly to make (a lock, a list head, a buffer) is
/// made once.
///
/// ```
/// use mm_core::{CacheFlags, GFP_KERNEL, KmemCache, Manager, MmError};
///
/// struct Request {
///     uses: u32,
///     sector: u64,
/// }
///
/// fn requests(mm: impl Manager) -> Result<(), MmError> {
///     let cache = KmemCache::new_in("request", || Request { uses: 0, sector: 0 }, CacheFlags::empty(), mm)?;
///     let mut request = cache.alloc(GFP_KERNEL)?;
///     request.uses += 1;
///     request.sector = 64;
///     drop(request); // back to the cache, as it is
///     assert_eq!(cache.alloc(GFP_KERNEL)?.uses, 1);
///     cache.destroy().map_err(|(_, error)| error)
/// }
/// ```
pub struct KmemCache<T: 'static, M: Manager> {
    raw: RawKmemCache<M>,
    /// Values are made and dropped by whoever holds the cache.
    values: PhantomData<T>,
}

// SAFETY: values go from one thread to another through the cache, never two at a time.
unsafe impl<T: Send, M: Manager + Send> Send for KmemCache<T, M> {}
// SAFETY: as above; a shared cache gives no shared values.
unsafe impl<T: Send, M: Manager + Sync> Sync for KmemCache<T, M> {}

impl<T: Send, M: Manager> KmemCache<T, M> {
    /// Makes a cache of values that `constructor` returns.
    ///
    /// The constructor, and the values' drop, run outside every lock, in the context of whoever needs a slab or gives
    /// one back, `Mm::drain` included. They may allocate and free, though not in this cache.
    ///
    /// Context: task. Cost: proportional to the number of caches, of which there are at most 256. Names are unique.
    ///
    /// # Errors
    /// As [`Mm::kmem_cache_create`](crate::Mm::kmem_cache_create); `Inval` for a type without size.
    #[track_caller]
    pub fn new_in(name: &'static str, constructor: fn() -> T, flags: CacheFlags, manager: M) -> Result<Self, MmError> {
        let hooks = Hooks::of_values(constructor);
        let raw = RawKmemCache::with_hooks(name, size_of::<T>(), align_of::<T>(), flags, hooks, manager)?;
        Ok(KmemCache { raw, values: PhantomData })
    }

    /// Takes a value.
    ///
    /// Context and cost: as [`RawKmemCache::alloc`].
    ///
    /// # Errors
    /// As `RawKmemCache::alloc`; `BadFlags` also for `ZERO`.
    #[inline]
    #[track_caller]
    pub fn alloc(&self, flags: Gfp) -> Result<CacheBox<'_, T, M>, AllocError> {
        Ok(CacheBox { value: self.raw.alloc(flags)?.cast(), cache: self })
    }

    /// [`alloc`](Self::alloc), which waits until `until` at most; as [`RawKmemCache::alloc_deadline`].
    ///
    /// # Errors
    /// As `alloc`.
    #[track_caller]
    pub fn alloc_deadline(&self, flags: Gfp, until: Duration) -> Result<CacheBox<'_, T, M>, AllocError> {
        Ok(CacheBox { value: self.raw.alloc_deadline(flags, until)?.cast(), cache: self })
    }

    /// Sets `count` values aside, so that as many allocations cannot fail.
    ///
    /// ```
    /// use mm_core::{AllocError, GFP_KERNEL, KmemCache, Manager};
    ///
    /// fn insert<M: Manager>(nodes: &KmemCache<[usize; 4], M>) -> Result<(), AllocError> {
    ///     let mut sheaf = nodes.prefill(3, GFP_KERNEL)?; // may fail here
    ///     for key in 0..3 {
    ///         // ... with interrupts off: not here
    ///         if let Some(mut node) = sheaf.alloc() {
    ///             node[0] = key;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`RawKmemCache::prefill`].
    #[track_caller]
    pub fn prefill(&self, count: usize, flags: Gfp) -> Result<Sheaf<'_, T, M>, AllocError> {
        Ok(Sheaf { cache: self, raw: self.raw.prefill(count, flags)? })
    }
}

impl<T, M: Manager> KmemCache<T, M> {
    /// Gives back what [`CacheBox::into_raw`] gave.
    ///
    /// ```compile_fail,E0133
    /// # use mm_core::{GFP_KERNEL, KmemCache, Manager};
    /// fn twice<M: Manager>(nodes: &KmemCache<usize, M>) {
    ///     let node = nodes.alloc(GFP_KERNEL).unwrap();
    ///     nodes.free((&*node).into()); // still owned by the box: not without `unsafe`
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`RawKmemCache::free`].
    ///
    /// # Safety
    /// Nobody uses the value any more, and no [`CacheBox`] owns it.
    #[inline]
    pub unsafe fn free(&self, value: NonNull<T>) -> Result<(), FreeError> {
        self.raw.free(value.as_ptr().cast())
    }

    /// The cache of the values' bytes: for bulk calls, and for what C needs.
    pub fn as_raw(&self) -> &RawKmemCache<M> {
        &self.raw
    }

    /// The cache's name.
    pub fn name(&self) -> &'static str {
        self.raw.name()
    }

    /// How full it is. Walks the cache's slabs.
    pub fn counts(&self) -> SlabCounts {
        self.raw.counts()
    }

    /// Gives back the slab that is kept though nothing of it is in use, with its values dropped. Returns how many pages
    /// that were.
    pub fn shrink(&self) -> usize {
        self.raw.shrink()
    }

    /// Destroys the cache and drops its values.
    ///
    /// # Errors
    /// The cache itself with `Busy` and the number of values that are out, when there are any.
    pub fn destroy(self) -> Result<(), (Self, MmError)> {
        self.raw.destroy().map_err(|(raw, error)| (KmemCache { raw, values: PhantomData }, error))
    }
}

/// A value of a [`KmemCache`]; it goes back when it is dropped, as it is.
pub struct CacheBox<'c, T: 'static, M: Manager> {
    value: NonNull<T>,
    cache: &'c KmemCache<T, M>,
}

// SAFETY: the value is owned, and the cache is shared between threads.
unsafe impl<T: Send, M: Manager + Sync> Send for CacheBox<'_, T, M> {}
// SAFETY: shared references give shared values only.
unsafe impl<T: Send + Sync, M: Manager + Sync> Sync for CacheBox<'_, T, M> {}

impl<'c, T, M: Manager> CacheBox<'c, T, M> {
    /// Gives up ownership; [`KmemCache::free`] or [`from_raw`](Self::from_raw) takes it back.
    pub fn into_raw(self) -> NonNull<T> {
        ManuallyDrop::new(self).value
    }

    /// Takes ownership of what [`into_raw`](Self::into_raw) gave.
    ///
    /// # Safety
    /// `value` is one of `cache`, in a state its type allows, and owned by nobody else.
    pub unsafe fn from_raw(value: NonNull<T>, cache: &'c KmemCache<T, M>) -> Self {
        CacheBox { value, cache }
    }
}

impl<T, M: Manager> Deref for CacheBox<'_, T, M> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: constructed, and ours.
        unsafe { self.value.as_ref() }
    }
}

impl<T, M: Manager> DerefMut for CacheBox<'_, T, M> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: constructed, and ours.
        unsafe { self.value.as_mut() }
    }
}

impl<T: fmt::Debug, M: Manager> fmt::Debug for CacheBox<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T, M: Manager> Drop for CacheBox<'_, T, M> {
    fn drop(&mut self) {
        // SAFETY: ours, and this box is gone.
        if let Err(error) = unsafe { self.cache.free(self.value) } {
            let bug = Bug::BadFree { addr: self.value.as_ptr().addr(), error };
            self.cache.raw.manager().mm().platform().bug(&bug);
        }
    }
}
