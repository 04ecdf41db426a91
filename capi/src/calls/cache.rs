//! Caches. C holds one by a pointer to a record of ours.

use super::{records, refused};
use crate::rtmm_cache;
use core::ffi::{CStr, c_char, c_void};
use core::mem::ManuallyDrop;
use core::ptr;
use mm_core::{CacheFlags, FreeError, Gfp, Manager, RawKmemCache};

/// What a `struct rtmm_cache *` points to. The name follows it.
#[repr(C)]
struct Record<M: Manager> {
    /// [`MARK`] mixed with the record's own address, while the cache lives.
    mark: usize,
    cache: ManuallyDrop<RawKmemCache<M>>,
}

/// Tells a live record from other objects of `kmalloc`.
const MARK: usize = 0x6b63_6163;

/// The record behind a pointer that C gave, which may be anything.
fn record<'a, M: Manager + 'a>(m: M, cache: *const rtmm_cache) -> Option<&'a Record<M>> {
    let record = records::place::<Record<M>, M>(m, cache.cast())?;
    // SAFETY: RAM of this manager, aligned and inside one object; any value is a valid `usize`.
    let mark = unsafe { (&raw const (*record).mark).read() };
    // SAFETY: only `kmem_cache_create` leaves this mark at this address, in front of a live cache.
    (mark == MARK ^ cache.addr()).then(|| unsafe { &*record })
}

/// See `rtmm_kmem_cache_create`.
///
/// # Safety
/// `name` is null or a string ended by a zero; `constructor` is null or may be called with any object of the cache.
#[track_caller]
pub unsafe fn kmem_cache_create<M: Manager>(
    m: M,
    name: *const c_char,
    size: usize,
    align: usize,
    flags: u32,
    constructor: Option<unsafe extern "C" fn(*mut c_void)>,
) -> *mut rtmm_cache {
    if name.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: by the caller.
    let Ok(name) = unsafe { CStr::from_ptr(name) }.to_str() else { return ptr::null_mut() };
    let Some(memory) = records::room(m, size_of::<Record<M>>() + name.len()) else { return ptr::null_mut() };
    let record = memory.cast::<Record<M>>().as_ptr();
    // SAFETY: the room is new and holds the name behind the record. The name stays there until the cache is
    // destroyed, and nobody else asks for it then.
    let name: &'static str = unsafe {
        let copy = record.add(1).cast::<u8>();
        copy.copy_from_nonoverlapping(name.as_ptr(), name.len());
        core::str::from_utf8_unchecked(core::slice::from_raw_parts(copy, name.len()))
    };
    // SAFETY: by the caller.
    let cache = unsafe { RawKmemCache::with_c_constructor(name, size, align, CacheFlags(flags), constructor, m) };
    let Ok(cache) = cache else {
        records::give(m, memory.as_ptr().cast());
        return ptr::null_mut();
    };
    // SAFETY: the room is new, long enough and aligned to 8 bytes at least.
    unsafe { record.write(Record { mark: MARK ^ record.addr(), cache: ManuallyDrop::new(cache) }) };
    record.cast()
}

/// See `rtmm_kmem_cache_alloc`.
pub fn kmem_cache_alloc<M: Manager>(m: M, cache: *mut rtmm_cache, flags: u32) -> *mut c_void {
    match record(m, cache) {
        Some(record) => super::or_null(record.cache.alloc(Gfp(flags))),
        None => {
            refused(m, cache.addr(), FreeError::WrongCache);
            ptr::null_mut()
        }
    }
}

/// See `rtmm_kmem_cache_free`.
pub fn kmem_cache_free<M: Manager>(m: M, cache: *mut rtmm_cache, object: *const c_void) {
    if object.is_null() {
        return;
    }
    match record(m, cache) {
        Some(record) => super::report(m, object.addr(), record.cache.free(object.cast())),
        None => refused(m, cache.addr(), FreeError::WrongCache),
    }
}

/// See `rtmm_kmem_cache_alloc_bulk`.
///
/// # Safety
/// `objects` is null or has room for `count` pointers.
pub unsafe fn kmem_cache_alloc_bulk<M: Manager>(
    m: M,
    cache: *mut rtmm_cache,
    flags: u32,
    count: usize,
    objects: *mut *mut c_void,
) -> i32 {
    let Some(record) = record(m, cache) else {
        refused(m, cache.addr(), FreeError::WrongCache);
        return 0;
    };
    // Linux's result is an int.
    if objects.is_null()
        || !objects.is_aligned()
        || count > (i32::MAX as usize).min(isize::MAX as usize / size_of::<usize>())
    {
        return 0;
    }
    // SAFETY: by the caller; any bytes are pointers that nobody follows.
    let objects = unsafe { core::slice::from_raw_parts_mut(objects.cast::<*mut u8>(), count) };
    if record.cache.alloc_bulk(Gfp(flags), objects).is_ok() { count as i32 } else { 0 }
}

/// See `rtmm_kmem_cache_free_bulk`.
///
/// # Safety
/// `objects` is null or good for reads of `count` pointers.
pub unsafe fn kmem_cache_free_bulk<M: Manager>(
    m: M,
    cache: *mut rtmm_cache,
    count: usize,
    objects: *const *mut c_void,
) {
    let Some(record) = record(m, cache) else { return refused(m, cache.addr(), FreeError::WrongCache) };
    // More than an address space holds is no array.
    if objects.is_null() || !objects.is_aligned() || count > isize::MAX as usize / size_of::<usize>() {
        return;
    }
    // SAFETY: by the caller.
    let mut objects = unsafe { core::slice::from_raw_parts(objects.cast::<*mut u8>(), count) };
    // One that is refused is told, and the others are freed all the same.
    while let Err((freed, error)) = record.cache.free_bulk(objects) {
        let Some((wrong, rest)) = objects.get(freed..).and_then(<[_]>::split_first) else { return };
        refused(m, wrong.addr(), error);
        objects = rest;
    }
}

/// See `rtmm_kmem_cache_shrink`.
pub fn kmem_cache_shrink<M: Manager>(m: M, cache: *mut rtmm_cache) -> i32 {
    match record(m, cache) {
        Some(record) => {
            record.cache.shrink();
            0
        }
        None => {
            refused(m, cache.addr(), FreeError::WrongCache);
            crate::EINVAL
        }
    }
}

/// The cache behind a pointer of C, for a pool of its objects.
pub(super) fn cache_of<'a, M: Manager + 'a>(m: M, cache: *const rtmm_cache) -> Option<&'a RawKmemCache<M>> {
    record(m, cache).map(|record| &*record.cache)
}

/// See `rtmm_kmem_cache_size`.
pub fn kmem_cache_size<M: Manager>(m: M, cache: *const rtmm_cache) -> u32 {
    record(m, cache).map_or(0, |record| u32::try_from(record.cache.object_size()).unwrap_or(u32::MAX))
}

/// See `rtmm_kmem_cache_destroy`.
pub fn kmem_cache_destroy<M: Manager>(m: M, cache: *mut rtmm_cache) {
    if cache.is_null() {
        return;
    }
    if record(m, cache).is_none() {
        return refused(m, cache.addr(), FreeError::WrongCache);
    }
    let record = cache.cast::<Record<M>>();
    // SAFETY: a live record, and by Linux's contract nobody else uses a cache that is being destroyed. It is read out
    // once: written back when the cache turns out to be busy, and without its mark otherwise.
    let result = unsafe {
        (*record).mark = 0;
        ManuallyDrop::take(&mut (*record).cache).destroy()
    };
    match result {
        Ok(()) => records::give(m, cache.cast()),
        Err((cache, _)) => {
            let objects = cache.counts().active;
            // SAFETY: as above.
            unsafe { record.write(Record { mark: MARK ^ record.addr(), cache: ManuallyDrop::new(cache) }) };
            busy(m, objects);
        }
    }
}

#[cold]
fn busy<M: Manager>(m: M, objects: usize) {
    use mm_core::Platform;
    m.mm().platform().bug(&mm_core::Bug::CacheBusy { objects });
}
