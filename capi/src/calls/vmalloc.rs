//! Virtually contiguous memory.

use super::{or_null, report};
use crate::EINVAL;
use crate::gfp::{
    RTMM_AREA_GUARDS, RTMM_AREA_GUARDS_KEPT, RTMM_AREA_LONG, RTMM_AREA_SMALL_ENTRIES, RTMM_PROT_READ,
    RTMM_PROT_READ_EXECUTE, RTMM_PROT_READ_WRITE,
};
use core::ffi::{c_char, c_void};
use core::{ptr, slice};
use mm_core::{
    AllocError, AreaGuards, AreaLife, AreaOptions, Entries, FreeError, GFP_KERNEL, Gfp, Manager, MmError, Pfn, Place,
    Prot,
};

/// See `rtmm_vmalloc`.
pub fn vmalloc<M: Manager>(m: M, size: usize) -> *mut c_void {
    or_null(m.mm().vmalloc(size))
}

/// See `rtmm_vzalloc`.
pub fn vzalloc<M: Manager>(m: M, size: usize) -> *mut c_void {
    or_null(m.mm().vzalloc(size))
}

/// See `rtmm_vmalloc_user`.
pub fn vmalloc_user<M: Manager>(m: M, size: usize) -> *mut c_void {
    or_null(m.mm().vmalloc_user(size))
}

/// See `rtmm_vmalloc_32`.
pub fn vmalloc_32<M: Manager>(m: M, size: usize) -> *mut c_void {
    or_null(m.mm().vmalloc_32(size))
}

/// See `rtmm_vmalloc_32_user`.
pub fn vmalloc_32_user<M: Manager>(m: M, size: usize) -> *mut c_void {
    or_null(m.mm().vmalloc_32_user(size))
}

/// See `rtmm_vmalloc_node`.
pub fn vmalloc_node<M: Manager>(m: M, size: usize, node: i32) -> *mut c_void {
    match node {
        -1 => or_null(m.mm().vmalloc_node(size, None)),
        0.. => or_null(m.mm().vmalloc_node(size, Some(node as u32))),
        _ => ptr::null_mut(),
    }
}

/// See `rtmm_vmalloc_with`.
pub fn vmalloc_with<M: Manager>(m: M, size: usize, flags: u32, prot: u32, align: usize, options: u32) -> *mut c_void {
    let known = RTMM_AREA_GUARDS | RTMM_AREA_GUARDS_KEPT | RTMM_AREA_LONG | RTMM_AREA_SMALL_ENTRIES;
    let (Some(prot), 0) = (protection(prot), options & !known) else { return ptr::null_mut() };
    let has = |option| options & option != 0;
    let guards = match (has(RTMM_AREA_GUARDS_KEPT), has(RTMM_AREA_GUARDS)) {
        (true, _) => AreaGuards::Kept,
        (false, true) => AreaGuards::Asked,
        (false, false) => AreaGuards::Usual,
    };
    let life = if has(RTMM_AREA_LONG) { AreaLife::Long } else { AreaLife::Any };
    let entries = if has(RTMM_AREA_SMALL_ENTRIES) { Entries::Small } else { Entries::Largest };
    let options = AreaOptions::new().flags(Gfp(flags)).prot(prot).align(align.max(1));
    or_null(m.mm().vmalloc_with(size, &options.guards(guards).life(life).entries(entries)))
}

/// See `rtmm_vrealloc`.
///
/// # Safety
/// Nobody writes to the area meanwhile.
pub unsafe fn vrealloc<M: Manager>(m: M, area: *mut c_void, size: usize, flags: u32) -> *mut c_void {
    // SAFETY: by the caller.
    match unsafe { m.mm().vrealloc(area.cast(), size, Gfp(flags)) } {
        Ok(moved) => moved.map_or(ptr::null_mut(), |pointer| pointer.as_ptr().cast()),
        Err(AllocError::BadPointer) => {
            super::refused(m, area.addr(), wrong_area(m, area.cast()));
            ptr::null_mut()
        }
        Err(_) => ptr::null_mut(),
    }
}

/// What is wrong with an address that is no area's of `vmalloc`, as `vfree` would say it.
#[cold]
fn wrong_area<M: Manager>(m: M, addr: *const u8) -> FreeError {
    match m.mm().find_area(addr.addr()) {
        Some(hit) if hit.place == Place::Freed => FreeError::DoubleFree,
        Some(hit) if hit.area.addr == addr.addr() => FreeError::WrongAllocator,
        Some(_) => FreeError::Interior,
        None if m.mm().is_vmalloc_addr(addr) => FreeError::DoubleFree,
        None => m.mm().ksize(addr).err().unwrap_or(FreeError::WrongAllocator),
    }
}

/// See `rtmm_vread`.
///
/// # Safety
/// `into` is null or has room for `count` bytes; nobody writes to the areas meanwhile.
pub unsafe fn vread<M: Manager>(m: M, into: *mut c_char, addr: *const c_void, count: usize) -> usize {
    if into.is_null() || count > isize::MAX as usize {
        return 0;
    }
    // SAFETY: by the caller; bytes may hold anything.
    unsafe { m.mm().vread(slice::from_raw_parts_mut(into.cast(), count), addr.cast()) }
}

/// See `rtmm_vwrite`.
///
/// # Safety
/// `from` is null or good for `count` bytes; nobody uses the areas meanwhile.
pub unsafe fn vwrite<M: Manager>(m: M, from: *const c_char, addr: *const c_void, count: usize) -> usize {
    if from.is_null() || count > isize::MAX as usize {
        return 0;
    }
    // SAFETY: by the caller.
    unsafe { m.mm().vwrite(slice::from_raw_parts(from.cast(), count), addr.cast()) }
}

/// What `rtmm_remap_vmalloc_range` calls for each page: 0, or a negative errno value, which ends it.
pub type MapFn = unsafe extern "C" fn(arg: *mut c_void, page: usize, pfn: usize) -> i32;

/// See `rtmm_remap_vmalloc_range`.
///
/// # Safety
/// `map` is null or may be called with `arg` and any page of the area.
pub unsafe fn remap_vmalloc_range<M: Manager>(
    m: M,
    area: *const c_void,
    offset: usize,
    size: usize,
    map: Option<MapFn>,
    arg: *mut c_void,
) -> i32 {
    let Some(map) = map else { return EINVAL };
    let mut said = 0;
    let each = |page, pfn: Pfn| {
        // SAFETY: by the caller; no lock is held.
        said = unsafe { map(arg, page, pfn.0 as usize) };
        if said == 0 { Ok(()) } else { Err(MmError::Inval) }
    };
    match m.mm().remap_vmalloc_range(area.cast(), offset, size, each) {
        Ok(()) => 0,
        Err(_) if said != 0 => said,
        Err(error) => -error.errno(),
    }
}

/// Protections as numbers.
fn protection(prot: u32) -> Option<Prot> {
    match prot {
        RTMM_PROT_READ => Some(Prot::Read),
        RTMM_PROT_READ_WRITE => Some(Prot::ReadWrite),
        RTMM_PROT_READ_EXECUTE => Some(Prot::ReadExecute),
        _ => None,
    }
}

/// See `rtmm_set_memory`.
pub fn set_memory<M: Manager>(m: M, addr: usize, pages: usize, prot: u32) -> i32 {
    let Some(prot) = protection(prot) else { return EINVAL };
    m.mm().set_memory(ptr::without_provenance(addr), pages, prot).map_or_else(|error| -error.errno(), |()| 0)
}

/// Runs `f` on the frames of an array of C.
///
/// # Safety
/// `frames` is null or good for `count` numbers.
unsafe fn with_frames<M: Manager>(
    m: M,
    frames: *const usize,
    count: usize,
    f: impl FnOnce(&[Pfn]) -> *mut c_void,
) -> *mut c_void {
    if frames.is_null() || !frames.is_aligned() {
        return ptr::null_mut();
    }
    // Frame numbers have 32 bits and C's have a pointer's, so they are copied.
    let Some(bytes) = count.checked_mul(size_of::<Pfn>()) else { return ptr::null_mut() };
    let Ok(memory) = m.mm().kvmalloc(bytes, GFP_KERNEL) else { return ptr::null_mut() };
    let copy = memory.cast::<Pfn>().as_ptr();
    for index in 0..count {
        // SAFETY: `count` numbers by the caller, and room for as many frames.
        unsafe { copy.add(index).write(Pfn(u32::try_from(*frames.add(index)).unwrap_or(u32::MAX))) };
    }
    // SAFETY: written just now.
    let result = f(unsafe { slice::from_raw_parts(copy, count) });
    report(m, memory.as_ptr().addr(), m.mm().kvfree(memory.as_ptr()));
    result
}

/// See `rtmm_vmap`.
///
/// # Safety
/// `frames` is null or good for `count` numbers.
pub unsafe fn vmap<M: Manager>(m: M, frames: *const usize, count: usize, prot: u32) -> *mut c_void {
    let Some(prot) = protection(prot) else { return ptr::null_mut() };
    // SAFETY: by the caller.
    unsafe { with_frames(m, frames, count, |pages| or_null(m.mm().vmap(pages, prot))) }
}

/// See `rtmm_vunmap`.
pub fn vunmap<M: Manager>(m: M, addr: *const c_void) {
    report(m, addr.addr(), m.mm().vunmap(addr.cast()));
}

/// See `rtmm_vm_map_ram`.
///
/// # Safety
/// `frames` is null or good for `count` numbers.
pub unsafe fn vm_map_ram<M: Manager>(m: M, frames: *const usize, count: usize) -> *mut c_void {
    // SAFETY: by the caller.
    unsafe { with_frames(m, frames, count, |pages| or_null(m.mm().vm_map_ram(pages))) }
}

/// See `rtmm_vm_unmap_ram`.
pub fn vm_unmap_ram<M: Manager>(m: M, addr: *const c_void, count: usize) {
    report(m, addr.addr(), m.mm().vm_unmap_ram(addr.cast(), count));
}

/// See `rtmm_vfree`.
pub fn vfree<M: Manager>(m: M, addr: *const c_void) {
    report(m, addr.addr(), m.mm().vfree(addr.cast()));
}

/// See `rtmm_vmalloc_to_pfn`.
pub fn vmalloc_to_pfn<M: Manager>(m: M, addr: *const c_void) -> usize {
    m.mm().vmalloc_to_page(addr.cast()).map_or(0, |pfn| pfn.0 as usize)
}

/// See `rtmm_is_vmalloc_addr`.
pub fn is_vmalloc_addr<M: Manager>(m: M, addr: *const c_void) -> bool {
    m.mm().is_vmalloc_addr(addr.cast())
}
