//! The portable core of rtmm: frames, the buddy, slabs, `kmalloc` and the `vmalloc` family.
//!
//! # Principles
//! Code and reviews cite them by number.
//!
//! 1. **One contract, two backends.** What a call means is written once. A backend that cannot do a thing says so by
//!    a capability constant and a clear error; it never pretends.
//! 2. **A backend is only what differs.** Page-table entries, the walker, the TLB, registers, or the contiguous
//!    fallback: no list, tree, lock or policy.
//! 3. **Metadata lies out of line.** No allocator state inside memory handed to a caller. An overflow can damage
//!    data, never the allocator.
//! 4. **Every free is checked, always, in every build.** Frees return `Result<(), FreeError>`; a refused free changes
//!    nothing. Callers that cannot return it (Drop, `GlobalAlloc`, C) pass it to `Platform::bug`, after unlocking.
//!    The address is checked, the object is the caller's: freeing by address what an owning value holds is an error.
//!    (Of two frees of one object in the same moment on two CPUs both may return `Ok`; the object comes back once, and
//!    `Platform::bug` hears of it.)
//! 5. **Bounded.** One lock hold takes at most one block, or one fixed batch of 32 entries; longer work re-enters. No
//!    loop under a lock depends on how much memory there is or how long the system ran. Diagnostics such as `check`
//!    are exempt, and named so.
//! 6. **All or nothing.** After a failure there are the same live objects, areas and mappings as before and, after
//!    `drain`, the same free blocks. One fault point on each fallible step makes it testable.
//! 7. **Flush before free.** Unmapping yields an `Unflushed` that owns the frames, the emptied tables and the range.
//!    Nothing in it can be taken out unflushed; forgetting it leaks and never reuses.
//! 8. **No writable and executable frame.** `Prot` has no such value.
//! 9. **`&self`, never hidden statics.** Two managers can live in one process.
//! 10. **Safe policy over a small unsafe floor.** An address becomes a pointer in `Backend::direct_ptr`, in
//!     `Backend::with_frame`, and where an area's first address is handed to its owner; frees use only addresses.
//! 11. **Hooks outside the lock.** No callback runs with a lock held; hooks may allocate and free.
//! 12. **No panic is reachable from bad input or exhaustion.** Damage goes to `Platform::bug`.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

mod addr;
mod backend;
mod bits;
mod boot;
mod buddy;
mod cache;
mod check;
mod copies;
mod debug;
mod dma;
mod error;
mod fault;
mod frame;
mod gfp;
mod global;
mod kbox;
mod kmalloc;
mod kmap;
mod late;
mod lock;
mod manager;
mod memory;
mod mempool;
mod meta;
mod pages;
mod platform;
mod prot;
mod reclaim;
mod slab;
mod smp;
mod stats;
mod trace;
pub mod vmalloc;
mod wait;
mod with;
mod zone;

pub use addr::{PageRange, Pfn, PhysAddr, PhysRange, VirtAddr, VirtRange};
pub use backend::{Backend, Join, MapError, MapFrames, Mapping, PageTable, TableFrames, Walk};
pub use boot::{BootMap, CutReport, RamMap};
pub use cache::{CacheBox, CacheFlags, CacheInfo, KmemCache, RawKmemCache, RawSheaf, Sheaf};
pub use check::{CheckReport, Damage};
#[cfg(feature = "debug-pagealloc")]
pub use debug::FreedPage;
#[cfg(feature = "page-owner")]
pub use debug::{Allocation, AllocationKind, Allocations, Site, Sites};
pub use debug::{Event, Holdings, Leak, LeakGuard};
#[cfg(feature = "page-poison")]
pub use debug::{ScrubCursor, Scrubbed};
pub use dma::DmaPages;
pub use error::{AllocError, FreeError, MmError};
pub use fault::FaultClass;
#[cfg(feature = "fault-injection")]
pub use fault::{FaultAttr, FaultInjector};
pub use frame::FrameKind;
pub use gfp::{GFP_ATOMIC, GFP_DMA, GFP_DMA32, GFP_HIGHUSER, GFP_KERNEL, GFP_NOWAIT, GFP_USER, Gfp};
#[doc(hidden)]
pub use global::ALLOCATOR_FLAGS;
pub use global::Manager;
pub use kbox::KBox;
pub use kmap::KMap;
#[cfg(feature = "critical-section")]
pub use lock::CriticalSectionLock;
pub use lock::{Guard, Locked};
pub use manager::{Config, Mm};
pub use memory::Memory;
pub use mempool::{CacheSource, ElementSource, KmallocSource, Mempool, PageSource};
pub use meta::NIL;
pub use pages::{Frames, Pages, RefError};
pub use platform::{Bug, Context, Overwritten, Platform, RawLock};
pub use prot::{CacheMode, Prot};
pub use reclaim::{ShrinkRequest, Shrinker, ShrinkerId};
pub use slab::{ClassStates, InManager, SetAside, SlabCounts};
pub use smp::MAX_CPUS;
#[doc(hidden)]
pub use smp::shootdown;
#[cfg(target_has_atomic = "32")]
pub use smp::{Interrupts, TicketLock};
pub use stats::{BuddyInfo, MemInfo, SlabInfo, VmallocInfo, ZoneInfo, ZoneList};
pub use vmalloc::{
    AreaGuards, AreaHit, AreaInfo, AreaKind, AreaLife, AreaOptions, Entries, FreeBatch, IoMapping, Place, VmArea,
};
pub use wait::{AllocPages, GetFreePages, Kmalloc};
pub use with::With;
pub use zone::{Depth, Marks, Tuning, ZoneKind, ZoneSpec};
