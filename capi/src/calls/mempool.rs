//! Pools. As with caches, C holds one by a pointer to a record of ours in an object of `kmalloc`.

use super::cache::cache_of;
use super::{records, refused};
use crate::{EINVAL, rtmm_cache, rtmm_mempool};
use core::ffi::c_void;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use mm_core::{
    AllocError, Bug, ElementSource, FreeError, Gfp, KmallocSource, Manager, Mempool, PageSource, Pfn, Platform,
};

/// Where a pool's elements come from.
enum Source {
    Kmalloc(KmallocSource),
    /// By its pointer, so that a cache that is gone is noticed.
    Cache(*const rtmm_cache),
    Pages(PageSource),
    Own(Own),
}

/// An allocation function of the caller's.
pub type AllocFn = unsafe extern "C" fn(flags: u32, data: *mut c_void) -> *mut c_void;
/// The function that frees what that one gave.
pub type FreeFn = unsafe extern "C" fn(element: *mut c_void, data: *mut c_void);

/// Functions of the caller's. What a pointer given back is, only they know: nothing but a second free into the reserve
/// is noticed here.
#[derive(Clone, Copy)]
struct Own {
    alloc: AllocFn,
    free: FreeFn,
    data: *mut c_void,
}

// SAFETY: the cache is reached through its manager, which may be shared; functions of the caller's and their data may
// be used in any context, as `rtmm_mempool_create` demands.
unsafe impl Send for Source {}

// SAFETY: each of the first three gives memory of its size to one caller until it accepts it back, and judges by what
// its free would say: kmalloc and pages by their own sources; a cache by `check_of`. Of elements of the caller's
// functions nothing is read or written: they count as none bytes long, and are never zeroed.
unsafe impl<M: Manager> ElementSource<M> for Source {
    fn bytes(&self, m: M) -> usize {
        match self {
            Source::Kmalloc(source) => source.bytes(m),
            Source::Cache(cache) => cache_of(m, *cache).map_or(0, |cache| cache.object_size()),
            Source::Pages(source) => source.bytes(m),
            Source::Own(_) => 0,
        }
    }

    fn alloc(&self, m: M, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        match self {
            Source::Kmalloc(source) => source.alloc(m, flags),
            Source::Cache(cache) => cache_of(m, *cache).ok_or(AllocError::BadPointer)?.alloc(flags),
            Source::Pages(source) => source.alloc(m, flags),
            Source::Own(own) => {
                // What the manager adds for itself is not for C.
                let flags = flags.intersection(Gfp::KNOWN).bits();
                // SAFETY: the caller of `mempool_create` vouches for the function; no lock is held.
                let element = unsafe { (own.alloc)(flags, own.data) };
                NonNull::new(element.cast()).ok_or(AllocError::NoMemory)
            }
        }
    }

    fn free(&self, m: M, element: NonNull<u8>) -> Result<(), FreeError> {
        match self {
            Source::Kmalloc(source) => source.free(m, element),
            Source::Cache(cache) => cache_of(m, *cache).ok_or(FreeError::WrongCache)?.free(element.as_ptr()),
            Source::Pages(source) => source.free(m, element),
            Source::Own(own) => {
                // SAFETY: as above; it came from the function's twin, or the caller says so.
                unsafe { (own.free)(element.as_ptr().cast(), own.data) };
                Ok(())
            }
        }
    }

    fn check(&self, m: M, element: NonNull<u8>) -> Result<(), FreeError> {
        match self {
            Source::Kmalloc(source) => source.check(m, element),
            Source::Cache(cache) => {
                let cache = cache_of(m, *cache).ok_or(FreeError::WrongCache)?;
                ElementSource::<M>::check(&mm_core::CacheSource::new(cache), m, element)
            }
            Source::Pages(source) => source.check(m, element),
            Source::Own(_) => Ok(()),
        }
    }

    fn may_be_zeroed(&self) -> bool {
        !matches!(self, Source::Own(_))
    }
}

/// What C gets of a pool.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Elements {
    /// Memory of the manager's.
    Memory,
    /// Frames, as Linux's page pools have it.
    Frames,
    /// Whatever the caller's functions give; nobody here knows how long it is.
    Own,
}

/// What a `struct rtmm_mempool *` points to.
#[repr(C)]
struct Record<M: Manager> {
    /// [`MARK`] mixed with the record's own address, while the pool lives.
    mark: usize,
    elements: Elements,
    pool: ManuallyDrop<Mempool<Source, M>>,
}

/// Tells a live record from other objects of `kmalloc`.
const MARK: usize = 0x6c6f_6f70;

/// The record behind a pointer that C gave, which may be anything.
fn record<'a, M: Manager + 'a>(m: M, pool: *const rtmm_mempool) -> Option<&'a Record<M>> {
    let record = records::place::<Record<M>, M>(m, pool.cast())?;
    // SAFETY: RAM of this manager, aligned and inside one object; any value is a valid `usize`.
    let mark = unsafe { (&raw const (*record).mark).read() };
    // SAFETY: only `create` leaves this mark at this address, in front of a live pool.
    (mark == MARK ^ pool.addr()).then(|| unsafe { &*record })
}

fn create<M: Manager>(m: M, min: i32, source: Source) -> *mut rtmm_mempool {
    let Ok(min) = usize::try_from(min) else { return ptr::null_mut() };
    let Some(memory) = records::room(m, size_of::<Record<M>>()) else { return ptr::null_mut() };
    let elements = match source {
        Source::Kmalloc(_) | Source::Cache(_) => Elements::Memory,
        Source::Pages(_) => Elements::Frames,
        Source::Own(_) => Elements::Own,
    };
    let Ok(pool) = Mempool::new_in(min, source, m) else {
        records::give(m, memory.as_ptr().cast());
        return ptr::null_mut();
    };
    let record = memory.cast::<Record<M>>().as_ptr();
    // SAFETY: the room is new, long enough and aligned to 8 bytes at least.
    unsafe { record.write(Record { mark: MARK ^ record.addr(), elements, pool: ManuallyDrop::new(pool) }) };
    record.cast()
}

/// See `rtmm_mempool_create_kmalloc_pool`.
pub fn mempool_create_kmalloc_pool<M: Manager>(m: M, min: i32, size: usize) -> *mut rtmm_mempool {
    create(m, min, Source::Kmalloc(KmallocSource::new(size)))
}

/// See `rtmm_mempool_create_slab_pool`.
pub fn mempool_create_slab_pool<M: Manager>(m: M, min: i32, cache: *mut rtmm_cache) -> *mut rtmm_mempool {
    if cache_of(m, cache).is_none() {
        refused(m, cache.addr(), FreeError::WrongCache);
        return ptr::null_mut();
    }
    create(m, min, Source::Cache(cache))
}

/// See `rtmm_mempool_create_page_pool`.
pub fn mempool_create_page_pool<M: Manager>(m: M, min: i32, order: i32) -> *mut rtmm_mempool {
    let Ok(order) = usize::try_from(order) else { return ptr::null_mut() };
    create(m, min, Source::Pages(PageSource::new(order)))
}

/// See `rtmm_mempool_create`.
///
/// # Safety
/// The functions are null, or may be called in any context that uses the pool, with flags it was given and `data`: the
/// first gives null or what is nobody else's, the second takes that back.
pub unsafe fn mempool_create<M: Manager>(
    m: M,
    min: i32,
    alloc: Option<AllocFn>,
    free: Option<FreeFn>,
    data: *mut c_void,
) -> *mut rtmm_mempool {
    match (alloc, free) {
        (Some(alloc), Some(free)) => create(m, min, Source::Own(Own { alloc, free, data })),
        _ => ptr::null_mut(),
    }
}

/// See `rtmm_mempool_alloc`.
pub fn mempool_alloc<M: Manager>(m: M, pool: *mut rtmm_mempool, flags: u32) -> *mut c_void {
    let Some(record) = record(m, pool) else {
        refused(m, pool.addr(), FreeError::WrongAllocator);
        return ptr::null_mut();
    };
    if record.elements == Elements::Own && Gfp(flags).contains(Gfp::ZERO) {
        return ptr::null_mut();
    }
    match record.pool.alloc(Gfp(flags)) {
        Ok(element) if record.elements == Elements::Frames => {
            let pfn = m.mm().pfn_of(element.as_ptr()).map_or(0, |pfn| pfn.0 as usize);
            ptr::without_provenance_mut(pfn)
        }
        Ok(element) => element.as_ptr().cast(),
        Err(_) => ptr::null_mut(),
    }
}

/// See `rtmm_mempool_free`.
pub fn mempool_free<M: Manager>(m: M, element: *mut c_void, pool: *mut rtmm_mempool) {
    if element.is_null() {
        return;
    }
    let Some(record) = record(m, pool) else { return refused(m, pool.addr(), FreeError::WrongAllocator) };
    let memory = if record.elements == Elements::Frames {
        let pfn = Pfn(u32::try_from(element.addr()).unwrap_or(u32::MAX));
        let Some(memory) = m.mm().page_address(pfn) else { return refused(m, element.addr(), FreeError::Foreign) };
        memory.as_ptr()
    } else {
        element.cast()
    };
    super::report(m, element.addr(), record.pool.free(memory));
}

/// See `rtmm_mempool_resize`.
pub fn mempool_resize<M: Manager>(m: M, pool: *mut rtmm_mempool, min: i32) -> i32 {
    let Some(record) = record(m, pool) else {
        refused(m, pool.addr(), FreeError::WrongAllocator);
        return EINVAL;
    };
    let Ok(min) = usize::try_from(min) else { return EINVAL };
    record.pool.resize(min).map_or_else(|error| -error.errno(), |()| 0)
}

/// See `rtmm_mempool_destroy`.
pub fn mempool_destroy<M: Manager>(m: M, pool: *mut rtmm_mempool) {
    if pool.is_null() {
        return;
    }
    if record(m, pool).is_none() {
        return refused(m, pool.addr(), FreeError::WrongAllocator);
    }
    let record = pool.cast::<Record<M>>();
    // SAFETY: a live record, and by Linux's contract nobody else uses a pool that is being destroyed. It is read out
    // once: written back when elements are out, and without its mark otherwise.
    let result = unsafe {
        (*record).mark = 0;
        ManuallyDrop::take(&mut (*record).pool).destroy()
    };
    match result {
        Ok(()) => records::give(m, pool.cast()),
        Err((pool, _)) => {
            let elements = pool.counts().1;
            // SAFETY: as above.
            unsafe {
                (&raw mut (*record).pool).write(ManuallyDrop::new(pool));
                (*record).mark = MARK ^ record.addr();
            }
            m.mm().platform().bug(&Bug::PoolBusy { elements });
        }
    }
}
