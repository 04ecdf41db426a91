//! What a kernel in C hands to `rtmm_init`, and how it is judged.

use crate::platform::{Callbacks, Waiting};
use crate::{E2BIG, EINVAL, rtmm_bug, uintptr_t};
use core::ffi::c_void;
use core::time::Duration;
use heapless::Vec;
use mm_core::{Backend, BootMap, RamMap, Tuning, VirtRange, ZoneKind, ZoneSpec};

/// The version of `struct rtmm_config` that this header describes.
pub const RTMM_CONFIG_VERSION: u32 = 1;
/// The most entries of `ram`, and of `reserved`.
pub const RTMM_MAX_RANGES: usize = 32;
/// The most entries of `zones`.
pub const RTMM_MAX_ZONES: usize = 4;

/// Memory below the limit of devices with few address lines.
pub const RTMM_ZONE_DMA: u32 = 0;
/// Memory below 4 GiB.
pub const RTMM_ZONE_DMA32: u32 = 1;
/// Ordinary memory.
pub const RTMM_ZONE_NORMAL: u32 = 2;
/// Memory without a kernel address.
pub const RTMM_ZONE_HIGHMEM: u32 = 3;

/// In `flags`: `reserve_ratio` is given.
pub const RTMM_CONFIG_RESERVE_RATIO: u32 = 1;
/// As `min_free`: keep nothing, so that there is no reserve for `GFP_ATOMIC` either.
pub const RTMM_MIN_FREE_NONE: u64 = u64::MAX;

/// Start-up, before tasks: nothing waits, and a flag that may wait is not reported.
pub const RTMM_CONTEXT_BOOT: u32 = 0;
/// A task with interrupts on.
pub const RTMM_CONTEXT_TASK: u32 = 1;
/// An interrupt handler, or interrupts are off. What the callback gives beside these three counts as this one.
pub const RTMM_CONTEXT_ATOMIC: u32 = 2;

/// A range of physical memory, in bytes. Any alignment; a length of 0 is nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rtmm_range {
    /// The first byte's physical address.
    pub start: u64,
    /// How many bytes.
    pub length: u64,
}

/// A zone: everything from the end of the zone before it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rtmm_zone {
    /// One past its last physical address, ascending over the list.
    pub end: u64,
    /// One of `RTMM_ZONE_*`, ascending over the list.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
}

/// What `rtmm_init` needs of a kernel. Zero it and set the first three members by `RTMM_CONFIG_INIT`, then fill it in.
/// It is only read during the call, its arrays too.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rtmm_config {
    /// `sizeof(struct rtmm_config)`.
    pub size: u32,
    /// `RTMM_CONFIG_VERSION`.
    pub version: u32,
    /// log2 of the page size this code was compiled for; the library's must be the same.
    pub page_shift: u32,
    /// 0, or `RTMM_CONFIG_RESERVE_RATIO`.
    pub flags: u32,
    /// Handed to every callback.
    pub arg: *mut c_void,
    /// Masks interrupts on this CPU and returns what `unlock` needs to restore them; `word` is the callback's alone,
    /// one for each lock, 0 at first. Calls nest, with different words, in stack order. This library is for one CPU:
    /// with several, a lock of the kernel's around each call keeps it to one at a time. Required.
    pub lock: Option<unsafe extern "C" fn(arg: *mut c_void, word: *mut uintptr_t) -> uintptr_t>,
    /// Opens the lock and restores what the matching `lock` found. Required.
    pub unlock: Option<unsafe extern "C" fn(arg: *mut c_void, word: *mut uintptr_t, state: uintptr_t)>,
    /// Where the caller runs: one of `RTMM_CONTEXT_*`. Required.
    pub context: Option<unsafe extern "C" fn(arg: *mut c_void) -> u32>,
    /// Hears of wrong frees and broken rules, with no lock held. Required.
    pub bug: Option<unsafe extern "C" fn(arg: *mut c_void, bug: *const rtmm_bug)>,
    /// The number of this CPU, from 0. May be null on one CPU.
    pub cpu: Option<unsafe extern "C" fn(arg: *mut c_void) -> u32>,
    /// Flushes a range of addresses from the TLBs of the other CPUs and returns when all have. May be null on one CPU,
    /// and without an MMU.
    pub flush_remote: Option<unsafe extern "C" fn(arg: *mut c_void, start: uintptr_t, end: uintptr_t)>,
    /// The time in nanoseconds since some start; it never runs back. This and the next three are all given, or all
    /// null: then nothing ever waits for memory.
    pub now: Option<unsafe extern "C" fn(arg: *mut c_void) -> u64>,
    /// A name of the calling task, by which `wake` finds it.
    pub current: Option<unsafe extern "C" fn(arg: *mut c_void) -> uintptr_t>,
    /// Puts the calling task to sleep until it is woken or the time `until` has come. A wake that came since the task
    /// last returned from here ends the sleep at once; returning early for no reason is allowed. No lock is held.
    pub wait: Option<unsafe extern "C" fn(arg: *mut c_void, until: u64)>,
    /// Wakes the task that `current` named so, from any context. It may have gone on or ended: then this does nothing.
    pub wake: Option<unsafe extern "C" fn(arg: *mut c_void, task: uintptr_t)>,
    /// How long a call that may wait waits at most, in nanoseconds; 0 for the default of 1 second.
    pub max_wait: u64,
    /// The RAM to manage, in any order; overlaps count once.
    pub ram: *const rtmm_range,
    /// How many, at most `RTMM_MAX_RANGES`.
    pub ram_count: usize,
    /// What to leave alone, RAM or not: the kernel's image, the stack, a device tree. May be null when there is none.
    pub reserved: *const rtmm_range,
    /// How many, at most `RTMM_MAX_RANGES`.
    pub reserved_count: usize,
    /// The zones. May be null when there is none listed: then all memory is `RTMM_ZONE_NORMAL`.
    pub zones: *const rtmm_zone,
    /// How many, at most `RTMM_MAX_ZONES`.
    pub zone_count: usize,
    /// The first address of the vmalloc window; 0 without an MMU.
    pub vmalloc_start: uintptr_t,
    /// One past its last address; 0 without an MMU.
    pub vmalloc_end: uintptr_t,
    /// Bytes to keep from ordinary requests in all zones below HIGHMEM, shared over them by size, at most half of each,
    /// and rounded down to a whole fraction of them (a half, a third, a quarter...); 0 derives it from their size.
    pub min_free: u64,
    /// With `RTMM_CONFIG_RESERVE_RATIO` in `flags`, by `RTMM_ZONE_*`: a zone of this kind keeps one page for each so
    /// many pages of higher zones from requests that could have had those. 0 keeps none. Without the flag 256, 256, 32,
    /// 0.
    pub reserve_ratio: [u32; 4],
}

/// A judged [`rtmm_config`].
pub struct Setup {
    pub(crate) callbacks: Callbacks,
    pub(crate) ram: RamMap,
    pub(crate) zones: Vec<ZoneSpec, RTMM_MAX_ZONES>,
    pub(crate) window: VirtRange,
    pub(crate) tuning: Tuning,
}

/// Judges a configuration for backend `B`. Nothing is kept and nothing of the RAM is touched.
///
/// # Errors
/// A negative errno value: `EINVAL` for what makes no sense, `E2BIG` for too many entries, `ENOMEM` for RAM without a
/// usable page or in more pieces than can be managed.
///
/// # Safety
/// `config` is null, misaligned, or good for reads of its `size` member; when size and version are right, of all of it.
/// Each array is null, misaligned, or good for reads of as many entries as its count says.
pub unsafe fn judge<B: Backend>(config: *const rtmm_config) -> Result<Setup, i32> {
    if !config.is_aligned() || config.is_null() {
        return Err(EINVAL);
    }
    // SAFETY: not null and aligned, so by the caller good for reads of these two, which every version begins with.
    let (size, version) = unsafe { ((*config).size, (*config).version) };
    if size as usize != size_of::<rtmm_config>() || version != RTMM_CONFIG_VERSION {
        return Err(EINVAL);
    }
    // SAFETY: the size and the version are right, so by the caller all of it is there.
    let config = unsafe { config.read() };
    if config.page_shift != B::PAGE_SHIFT || config.flags & !RTMM_CONFIG_RESERVE_RATIO != 0 {
        return Err(EINVAL);
    }
    let callbacks = Callbacks {
        arg: config.arg,
        lock: config.lock.ok_or(EINVAL)?,
        unlock: config.unlock.ok_or(EINVAL)?,
        context: config.context.ok_or(EINVAL)?,
        bug: config.bug.ok_or(EINVAL)?,
        cpu: config.cpu,
        flush_remote: config.flush_remote,
        waiting: match (config.now, config.current, config.wait, config.wake) {
            (Some(now), Some(current), Some(wait), Some(wake)) => Some(Waiting { now, current, wait, wake }),
            (None, None, None, None) => None,
            _ => return Err(EINVAL),
        },
    };
    // SAFETY: by the caller.
    let (ram, reserved, zones) = unsafe {
        (
            list(config.ram, config.ram_count, RTMM_MAX_RANGES)?,
            list(config.reserved, config.reserved_count, RTMM_MAX_RANGES)?,
            list(config.zones, config.zone_count, RTMM_MAX_ZONES)?,
        )
    };
    Ok(Setup {
        tuning: judge_tuning(&config)?,
        callbacks,
        zones: judge_zones(zones)?,
        window: judge_window::<B>(&config)?,
        ram: map::<B>(ram, reserved)?,
    })
}

/// The array a pointer and a count describe.
///
/// # Safety
/// `first` is null, misaligned, or good for reads of `count` entries for as long as the slice is used.
unsafe fn list<'a, T>(first: *const T, count: usize, most: usize) -> Result<&'a [T], i32> {
    if count == 0 {
        return Ok(&[]);
    }
    if first.is_null() || !first.is_aligned() {
        return Err(EINVAL);
    }
    if count > most {
        return Err(E2BIG);
    }
    // SAFETY: not null and aligned, so by the caller good for `count` entries, which are few.
    Ok(unsafe { core::slice::from_raw_parts(first, count) })
}

fn judge_zones(zones: &[rtmm_zone]) -> Result<Vec<ZoneSpec, RTMM_MAX_ZONES>, i32> {
    let mut specs = Vec::new();
    for zone in zones {
        let kind = match zone.kind {
            RTMM_ZONE_DMA => ZoneKind::Dma,
            RTMM_ZONE_DMA32 => ZoneKind::Dma32,
            RTMM_ZONE_NORMAL => ZoneKind::Normal,
            RTMM_ZONE_HIGHMEM => ZoneKind::HighMem,
            _ => return Err(EINVAL),
        };
        let ascends = specs.last().is_none_or(|last: &ZoneSpec| last.kind < kind && last.end < zone.end);
        if !ascends || zone.reserved != 0 {
            return Err(EINVAL);
        }
        specs.push(ZoneSpec { kind, end: zone.end }).map_err(|_| E2BIG)?;
    }
    if specs.is_empty() {
        specs.push(ZoneSpec { kind: ZoneKind::Normal, end: u64::MAX }).map_err(|_| E2BIG)?;
    }
    Ok(specs)
}

fn judge_tuning(config: &rtmm_config) -> Result<Tuning, i32> {
    let mut tuning = Tuning::DEFAULT;
    if config.max_wait != 0 {
        tuning.max_wait = Duration::from_nanos(config.max_wait);
    }
    tuning.min_free = match config.min_free {
        0 => None,
        RTMM_MIN_FREE_NONE => Some(0),
        bytes => Some(bytes),
    };
    if config.flags & RTMM_CONFIG_RESERVE_RATIO != 0 {
        tuning.reserve_ratio = config.reserve_ratio.map(|ratio| ratio as usize);
    } else if config.reserve_ratio != [0; 4] {
        return Err(EINVAL);
    }
    Ok(tuning)
}

fn judge_window<B: Backend>(config: &rtmm_config) -> Result<VirtRange, i32> {
    let (start, end) = (config.vmalloc_start, config.vmalloc_end);
    let aligned = (start | end) & (B::PAGE_SIZE - 1) == 0;
    if !aligned || (start < end) != B::HAS_MMU || (!B::HAS_MMU && (start | end) != 0) {
        return Err(EINVAL);
    }
    Ok(VirtRange { start, end })
}

fn map<B: Backend>(ram: &[rtmm_range], reserved: &[rtmm_range]) -> Result<RamMap, i32> {
    let mut map: BootMap = BootMap::new();
    for range in ram {
        map.add_ram(range.start, range.length).map_err(|error| -error.errno())?;
    }
    for range in reserved {
        map.reserve(range.start, range.length).map_err(|error| -error.errno())?;
    }
    map.finish(B::PAGE_SHIFT, B::PHYS_BITS).map_err(|error| -error.errno())
}
