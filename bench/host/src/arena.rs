//! Memory for allocators, and the manager in it.

use crate::platform::Process;
use anyhow::{Context, Result, ensure};
use backend_nommu::Arena;
use rtmm::{BootMap, Config, Mm, Tuning, VirtRange, ZoneKind, ZoneSpec};
use std::ptr::NonNull;

/// The manager of this process.
pub type HostMm = Mm<Process, Arena>;

/// Alignment of every arena.
const ALIGN: usize = 1 << 30;

/// Address space of this process, made real as it is touched. It is never given back: a process measures once.
///
/// # Errors
/// When the system has no room for it.
pub fn reserve(len: usize) -> Result<NonNull<u8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, wherever the system wants it.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len + ALIGN, access, kind, -1, 0) };
    ensure!(at != libc::MAP_FAILED, "no room for {len} bytes: {}", std::io::Error::last_os_error());
    // Single pages, whatever the system likes better: what is touched is then what is used.
    // SAFETY: the mapping made just now.
    unsafe { libc::madvise(at, len + ALIGN, libc::MADV_NOHUGEPAGE) };
    let skip = at.addr().next_multiple_of(ALIGN) - at.addr();
    // SAFETY: less than what was added to the length.
    NonNull::new(unsafe { at.cast::<u8>().add(skip) }).context("the null page")
}

/// A manager of `len` bytes, its tables among them.
///
/// # Errors
/// When there is no room for it, or too little for its tables.
pub fn manager(len: usize) -> Result<&'static HostMm> {
    let base = reserve(len)?;
    // As the arena begins: blocks of every order are aligned in both.
    let phys = ALIGN;
    let arena = Arena::new();
    // SAFETY: reserved just now for nobody else, and both are multiples of `ALIGN`.
    unsafe { arena.place(base.as_ptr(), phys) };
    let mm = Box::leak(Box::new(Mm::new(Process, arena)));
    let mut map: BootMap = BootMap::new();
    map.add_ram(phys as u64, len as u64)?;
    let mut ram = map.finish(12, 44)?;
    let zones = [ZoneSpec { kind: ZoneKind::Normal, end: u64::MAX }];
    // Nothing is kept for emergencies, as no peer does.
    let tuning = Tuning { min_free: Some(0), ..Tuning::DEFAULT };
    let vmalloc = VirtRange { start: 0, end: 0 };
    // SAFETY: the range is the arena's.
    unsafe { mm.init(&mut ram, &Config { zones: &zones, vmalloc, tuning }) }?;
    Ok(mm)
}

/// A manager with exactly `frames` free frames, aligned as one block, and its tables above them.
///
/// # Errors
/// As [`manager`].
pub fn manager_of_frames(frames: usize) -> Result<&'static HostMm> {
    let mut len = frames << 12;
    // Tables grow with what they describe, so once more than it seems.
    for _ in 0..8 {
        let free = manager(len)?.free_page_count();
        if free == frames {
            return manager(len);
        }
        ensure!(free < frames, "{free} frames are free, of {frames}");
        len += (frames - free) << 12;
    }
    manager(len)
}
