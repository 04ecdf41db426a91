//! Caches. C holds one by a pointer to a record of ours, which lies in an object of `kmalloc`.

use super::refused;
use crate::rtmm_cache;
use core::ffi::{CStr, c_char, c_void};
use core::mem::ManuallyDrop;
use core::ptr;
use mm_core::{CacheFlags, FreeError, GFP_KERNEL, Gfp, Manager, RawKmemCache};

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
///
/// Whatever `ksize` knows is an object of `kmalloc`, so reading the mark is reading RAM of this manager.
fn record<'a, M: Manager + 'a>(m: M, cache: *const rtmm_cache) -> Option<&'a Record<M>> {
    let size = m.mm().ksize(cache.cast()).ok()?;
    let record = cache.cast::<Record<M>>();
    if size < size_of::<Record<M>>() || !record.is_aligned() {
        return None;
    }
    // SAFETY: RAM of this manager, aligned and inside one object; any value is a valid `usize`.
    let mark = unsafe { (&raw const (*record).mark).read() };
    // SAFETY: only `kmem_cache_create` leaves this mark at this address, in front of a live cache.
    (mark == MARK ^ cache.addr()).then(|| unsafe { &*record })
}

/// See `rtmm_kmem_cache_create`.
///
/// # Safety
/// `name` is null or a string ended by a zero.
#[track_caller]
pub unsafe fn kmem_cache_create<M: Manager>(
    m: M,
    name: *const c_char,
    size: usize,
    align: usize,
    flags: u32,
) -> *mut rtmm_cache {
    if name.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: by the caller.
    let Ok(name) = unsafe { CStr::from_ptr(name) }.to_str() else { return ptr::null_mut() };
    let Ok(memory) = m.mm().kmalloc(size_of::<Record<M>>() + name.len(), GFP_KERNEL) else { return ptr::null_mut() };
    let record = memory.cast::<Record<M>>().as_ptr();
    // SAFETY: the object is new and has room for the name behind the record. The name stays there until the cache is
    // destroyed, and nobody else asks for it then.
    let name: &'static str = unsafe {
        let copy = record.add(1).cast::<u8>();
        copy.copy_from_nonoverlapping(name.as_ptr(), name.len());
        core::str::from_utf8_unchecked(core::slice::from_raw_parts(copy, name.len()))
    };
    let Ok(cache) = RawKmemCache::new_in(name, size, align, CacheFlags(flags), None, m) else {
        let _ = m.mm().kfree(memory.as_ptr());
        return ptr::null_mut();
    };
    // SAFETY: the object is new, long enough and aligned: kmalloc aligns to 8 bytes at least.
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
        Ok(()) => super::report(m, cache.addr(), m.mm().kfree(cache.cast())),
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
