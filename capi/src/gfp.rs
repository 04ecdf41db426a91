//! Allocation flags by value. The values are frozen: a C object built today runs with tomorrow's library.
//!
//! They are not Linux's, which change from release to release; the names are.

use mm_core::{CacheFlags, GFP_ATOMIC, GFP_HIGHUSER, GFP_KERNEL, GFP_NOWAIT, GFP_USER, Gfp};

/// `__GFP_DMA`: only memory below the DMA limit.
pub const RTMM___GFP_DMA: u32 = 0x1;
/// `__GFP_HIGHMEM`: memory without a kernel address will do.
pub const RTMM___GFP_HIGHMEM: u32 = 0x2;
/// `__GFP_DMA32`: only memory below 4 GiB.
pub const RTMM___GFP_DMA32: u32 = 0x4;
/// `__GFP_HIGH`: may use part of the reserve.
pub const RTMM___GFP_HIGH: u32 = 0x20;
/// `__GFP_ZERO`: zeroed.
pub const RTMM___GFP_ZERO: u32 = 0x100;
/// `__GFP_DIRECT_RECLAIM`: the caller may wait.
pub const RTMM___GFP_DIRECT_RECLAIM: u32 = 0x400;
/// `__GFP_NOWARN`: no report on failure.
pub const RTMM___GFP_NOWARN: u32 = 0x2000;
/// `__GFP_NORETRY`: do not try hard.
pub const RTMM___GFP_NORETRY: u32 = 0x1_0000;
/// `__GFP_COMP`: one compound page: a reference on any of its frames keeps all of it.
pub const RTMM___GFP_COMP: u32 = 0x4_0000;
/// `__GFP_HARDWALL`: memory for a user.
pub const RTMM___GFP_HARDWALL: u32 = 0x10_0000;
/// `GFP_KERNEL`: may wait; for tasks.
pub const RTMM_GFP_KERNEL: u32 = 0x400;
/// `GFP_USER`: as `GFP_KERNEL`, for memory a user will see.
pub const RTMM_GFP_USER: u32 = 0x10_0400;
/// `GFP_HIGHUSER`: memory a kernel address is not needed for.
pub const RTMM_GFP_HIGHUSER: u32 = 0x10_0402;
/// `GFP_ATOMIC`: never waits; for interrupts too.
pub const RTMM_GFP_ATOMIC: u32 = 0x20;
/// `GFP_NOWAIT`: never waits, and leaves the reserve alone.
pub const RTMM_GFP_NOWAIT: u32 = 0x0;

/// `SLAB_HWCACHE_ALIGN`: objects start on a cache line.
pub const RTMM_SLAB_HWCACHE_ALIGN: u32 = 0x2000;
/// `SLAB_CACHE_DMA`: objects lie below the DMA limit.
pub const RTMM_SLAB_CACHE_DMA: u32 = 0x4000;

/// What a mapping allows: reading. Writing and executing together cannot be said.
pub const RTMM_PROT_READ: u32 = 0;
/// Reading and writing.
pub const RTMM_PROT_READ_WRITE: u32 = 1;
/// Reading and executing.
pub const RTMM_PROT_READ_EXECUTE: u32 = 2;

/// Of an area: a page on each side to which every access faults, or there is no area. With an MMU every area has that.
pub const RTMM_AREA_GUARDS: u32 = 1;
/// `RTMM_AREA_GUARDS` for an area that is never freed: all that a machine can give whose regions stay set until reset.
/// There `rtmm_vfree` refuses the area.
pub const RTMM_AREA_GUARDS_KEPT: u32 = 2;
/// The area lives as long as the system, or about: without an MMU it is taken from the other end of memory.
pub const RTMM_AREA_LONG: u32 = 4;
/// With the smallest page-table entries only, for pages whose protection will differ.
pub const RTMM_AREA_SMALL_ENTRIES: u32 = 8;

/// What `kmalloc(0)` gives: no null, and never memory. `kfree` accepts it.
pub const RTMM_ZERO_SIZE_PTR: usize = 16;

const _: () = {
    assert!(RTMM___GFP_DMA == Gfp::DMA.bits());
    assert!(RTMM___GFP_HIGHMEM == Gfp::HIGHMEM.bits());
    assert!(RTMM___GFP_DMA32 == Gfp::DMA32.bits());
    assert!(RTMM___GFP_HIGH == Gfp::HIGH.bits());
    assert!(RTMM___GFP_ZERO == Gfp::ZERO.bits());
    assert!(RTMM___GFP_DIRECT_RECLAIM == Gfp::WAIT.bits());
    assert!(RTMM___GFP_NOWARN == Gfp::NOWARN.bits());
    assert!(RTMM___GFP_NORETRY == Gfp::NORETRY.bits());
    assert!(RTMM___GFP_COMP == Gfp::COMP.bits());
    assert!(RTMM___GFP_HARDWALL == Gfp::USER.bits());
    assert!(RTMM_GFP_KERNEL == GFP_KERNEL.bits());
    assert!(RTMM_GFP_USER == GFP_USER.bits());
    assert!(RTMM_GFP_HIGHUSER == GFP_HIGHUSER.bits());
    assert!(RTMM_GFP_ATOMIC == GFP_ATOMIC.bits());
    assert!(RTMM_GFP_NOWAIT == GFP_NOWAIT.bits());
    assert!(RTMM_SLAB_HWCACHE_ALIGN == CacheFlags::HWCACHE_ALIGN.bits());
    assert!(RTMM_SLAB_CACHE_DMA == CacheFlags::CACHE_DMA.bits());
};
