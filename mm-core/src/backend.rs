//! The seam to the machine: page size, the direct map, page tables.

use crate::addr::{PageRange, Pfn, VirtAddr, VirtRange};
use crate::platform::{Platform, RawLock};
use crate::prot::{CacheMode, Prot};
use crate::slab::ClassStates;
use crate::vmalloc::AreaFamily;

/// What the machine gives the manager.
///
/// # Safety
/// - `direct_ptr` returns, for every physical address below `lowmem_end` inside the RAM handed to `Mm::init`, a
///   pointer valid for reads and writes up to the end of its contiguous run of RAM; pointers into one run share a
///   provenance.
/// - `direct_frame(direct_ptr(p).addr()) == p >> PAGE_SHIFT` for those addresses; for every other address it is some
///   number that is no frame of that RAM.
/// - With `DIRECT_IS_LINEAR`, `direct_ptr(p)` is `direct_ptr(0).wrapping_add(p)`, which is as good a pointer.
/// - `direct_ptr` keeps the alignment of physical addresses up to the size of the largest block.
/// - Pointers into frames that are hidden, by `hide`, may not be used until they are shown.
/// - `with_frame` gives a pointer valid for one page, for every frame of that RAM.
pub unsafe trait Backend: Sized + Send + Sync + 'static {
    /// log2 of the page size in bytes, 8 to 12; caches need 9 where addresses are of 64 bits.
    const PAGE_SHIFT: u32;
    /// The largest order of the buddy, at most 13.
    const MAX_ORDER: usize = 10;
    /// Width of a physical address in bits.
    const PHYS_BITS: u32;
    /// Bytes of a cache line, for `CacheFlags::HWCACHE_ALIGN` and for memory of devices, which shares no line with
    /// anything else: a power of two, at most a page. Both backends here keep to 64: the line of x86 and of most others,
    /// and whole lines also where they are of 16 or 32 bytes. A machine with longer ones, of 128, needs a backend that
    /// says so.
    const CACHE_LINE: usize = 64;
    /// True when the direct map is one linear mapping whose base is a long constant, better kept in memory.
    const DIRECT_IS_LINEAR: bool = false;
    /// True when vmalloc maps scattered frames, and guards, protections and faults are real.
    const HAS_MMU: bool;
    /// True when the protection of an area can be set and changed.
    const HAS_PROTECT: bool = Self::HAS_MMU;
    /// True when a stray access beside any area faults.
    const HAS_GUARD: bool = Self::HAS_MMU;
    /// True when an area that asks for it lies between guards, and an area of a power of two can be protected as a whole,
    /// by regions of an MPU or PMP, as long as some are free.
    const HAS_REGIONS: bool = false;

    /// The vmalloc family on this machine: `mm_core::vmalloc::Mapped` over page tables, or the backend's own.
    type Areas<P: Platform>: AreaFamily<P, Self>;
    /// Where kmalloc keeps the states of its classes, one or two KiB: [`InManager`](crate::InManager) for speed,
    /// [`SetAside`](crate::SetAside) for a small `.bss`.
    type Classes<L: RawLock>: ClassStates<L>;

    /// The page size in bytes.
    const PAGE_SIZE: usize = 1 << Self::PAGE_SHIFT;

    /// The kernel pointer to physical address `phys`, which is below `lowmem_end`.
    fn direct_ptr(&self, phys: usize) -> *mut u8;

    /// The frame number a kernel address in the direct map belongs to; garbage that is no frame for any other.
    fn direct_frame(&self, addr: usize) -> usize;

    /// Physical addresses from here on have no kernel address (HIGHMEM).
    #[inline]
    fn lowmem_end(&self) -> u64 {
        u64::MAX
    }

    /// True when frames can be taken out of the direct map, where it is in entries of single pages.
    const CAN_HIDE: bool = false;

    /// True when [`hide`](Self::hide) can take out each of these frames, which have a kernel address.
    fn can_hide(&self, run: PageRange) -> bool {
        let _ = run;
        false
    }

    /// True when the direct map has this frame, which has a kernel address, now. Takes no lock.
    fn can_reach(&self, pfn: Pfn) -> bool {
        let _ = pfn;
        true
    }

    /// Takes frames out of the direct map, and what this CPU remembers of it; those that are out stay so. Tables stay as
    /// they are, so that it cannot fail.
    ///
    /// Context: any, also under a lock. Cost: one entry and one flush for each page.
    ///
    /// # Safety
    /// [`can_hide`](Self::can_hide) said yes. Nobody uses the frames, nor changes how they are mapped, meanwhile; nobody
    /// reaches them until they are shown.
    unsafe fn hide(&self, run: PageRange) {
        let _ = run;
    }

    /// Puts frames into the direct map again, writable and not executable; those that are there stay so.
    ///
    /// Context and cost: as [`hide`](Self::hide), without the flushes.
    ///
    /// # Safety
    /// As for `hide`.
    unsafe fn show(&self, run: PageRange) {
        let _ = run;
    }

    /// Runs `f` with a pointer to the frame, which may be HIGHMEM. The pointer is dead when `f` returns.
    ///
    /// Context: any. For a HIGHMEM frame, interrupts are masked meanwhile, so `f` does no more than a page of work, and
    /// calls of this may stand in each other eight deep, those of a fault report included.
    ///
    /// # Safety
    /// `pfn` is a frame of the RAM handed to `Mm::init`, which has been called if the frame is HIGHMEM.
    #[inline]
    unsafe fn with_frame<R>(&self, pfn: Pfn, f: impl FnOnce(*mut u8) -> R) -> R {
        f(self.direct_ptr((pfn.0 as usize) << Self::PAGE_SHIFT))
    }

    /// [`with_frame`](Self::with_frame) for closures of callers, who may stand in each other six deep; `None`, and nothing was
    /// done, for one more. So the manager's own calls always find room.
    ///
    /// # Safety
    /// As for `with_frame`.
    #[inline]
    unsafe fn try_with_frame<R>(&self, pfn: Pfn, f: impl FnOnce(*mut u8) -> R) -> Option<R> {
        // SAFETY: by the caller.
        Some(unsafe { self.with_frame(pfn, f) })
    }
}

/// Where a walker gets frames for tables, counts their live entries, and leaves the emptied ones.
pub trait TableFrames {
    /// How many zeroed frames are in hand.
    fn in_hand(&self) -> usize;
    /// One of them. Called at most `in_hand()` times.
    fn take(&mut self) -> Pfn;
    /// `entries` more entries of `table` are in use (present, guard, or a lower table). Like the other two, called
    /// only for tables that came from `take`; those made at boot are not counted and never freed.
    fn add_entries(&mut self, table: Pfn, entries: u32);
    /// `entries` of `table` are no longer in use; returns how many still are.
    fn sub_entries(&mut self, table: Pfn, entries: u32) -> u32;
    /// `table`, zeroed again, was unlinked from its parent. A CPU may still walk it: it is reused only after a flush.
    fn retire(&mut self, table: Pfn);
}

/// Why entries could not be written. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum MapError {
    /// That many zeroed table frames must be in hand.
    NeedTables(usize),
    /// An entry is in use already.
    AlreadyMapped,
    /// An entry is not mapped.
    NotMapped,
    /// The address is not canonical, or outside what the kernel may map.
    BadAddress,
    /// The run is empty, or passes the physical address width.
    BadFrame,
}

/// What the tables say of a virtual address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Walk {
    /// A present entry.
    Mapped(Mapping),
    /// A guard entry, with the tag it was set with.
    Guard(u32),
    /// Nothing.
    Absent,
}

/// A present entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mapping {
    /// The frame behind the address asked for (not the entry's first, when the entry is large).
    pub pfn: Pfn,
    /// How many pages the entry covers.
    pub pages: u32,
    /// What it allows.
    pub prot: Prot,
    /// How it is cached.
    pub cache: CacheMode,
}

/// What [`PageTable::join`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Join {
    /// There is no such table, or its entries are not of one kind.
    Differs,
    /// They are so far.
    Same,
    /// All were, and one entry is in the place of this table.
    Joined(Pfn),
}

/// What a batch of entries is to map.
#[derive(Clone, Copy, Debug)]
pub enum MapFrames<'a> {
    /// Neighbours.
    Run(PageRange),
    /// One by one.
    Each(&'a [Pfn]),
}

impl<'a> MapFrames<'a> {
    /// The first `count` of them, or all.
    #[inline(always)]
    pub fn first(self, count: u32) -> MapFrames<'a> {
        match self {
            MapFrames::Run(run) => MapFrames::Run(PageRange { start: run.start, count: run.count.min(count) }),
            MapFrames::Each(frames) => MapFrames::Each(&frames[..frames.len().min(count as usize)]),
        }
    }

    /// How many.
    #[inline(always)]
    pub fn count(&self) -> u32 {
        match self {
            MapFrames::Run(run) => run.count,
            MapFrames::Each(frames) => frames.len() as u32,
        }
    }
}

/// A machine with page tables: entries, the walker and the TLB, and no policy.
///
/// Every method takes the root table, so that later address spaces can share the code. None allocates, locks or
/// keeps state: the caller holds the lock of the tables and brings zeroed frames. Another CPU's walker may see the tables
/// after any single store, so every state in between is valid.
///
/// # Safety
/// After `map` returned `Ok(n)`, exactly the `n` pages from `at` translate to the frames of `run` with `prot` and
/// `cache`; `unmap`, `protect` and the guard calls change no entry outside their range; `flush` leaves no
/// translation of the range, and no cached upper-level entry on the way to it, in this CPU's TLB.
pub unsafe trait PageTable: Backend {
    /// The most table frames one `map` or `set_guard` call can need.
    const MAX_TABLES: usize;
    /// Pages covered by one large entry (512 on x86-64).
    const LARGE_PAGES: u32;
    /// The most small entries one `map`, `unmap` or `protect` call writes, so that a call is one bounded step. Callers
    /// pass all that is left and go on from what was done.
    const BATCH: u32 = 32;
    /// Above this many pages a flush drops the whole TLB.
    const FLUSH_ALL_PAGES: usize = 32;

    /// A lowest table: names it, so that several runs of entries in it cost one walk.
    ///
    /// It is good for as long as the table is: while the lock of the tables is held and nothing is unmapped by other
    /// means, and across sections while the holder has entries of its own in it.
    type Leaf: Copy + Send;

    /// The root table of the kernel.
    fn kernel_root(&self) -> Pfn;

    /// Where the kernel's tables map `pfn` for as long as they live (the direct map); `None` for HIGHMEM.
    ///
    /// It is a second mapping of every frame handed out: a frame that is to be executable elsewhere must be made
    /// read-only here first, by `protect`, and writable again before it is freed.
    fn direct_virt(&self, pfn: Pfn) -> Option<VirtAddr>;

    /// Where `Mm::kmap` maps HIGHMEM frames: pages whose lowest tables were made at boot and stay, with nothing mapped at
    /// first. The manager's alone. Empty where every frame has a kernel address.
    #[inline]
    fn kmap_window(&self) -> VirtRange {
        VirtRange { start: 0, end: 0 }
    }

    /// Maps frames of `run` from `at` on: up to [`Self::BATCH`] large entries of one table when `run` has the length and
    /// alignment for them and no small entry is in the way, otherwise as many small ones, as far as the leaf table under `at`
    /// reaches. Returns how many pages were mapped, at least one.
    ///
    /// # Errors
    /// [`MapError`]; nothing was changed, and frames in hand stay there.
    ///
    /// # Safety
    /// The caller holds the lock of the tables under `root` and owns the address range and the frames.
    unsafe fn map(
        &self,
        root: Pfn,
        at: VirtAddr,
        run: PageRange,
        prot: Prot,
        cache: CacheMode,
        tables: &mut impl TableFrames,
    ) -> Result<u32, MapError>;

    /// Clears what is mapped in the `pages` pages from `at` on: up to [`Self::BATCH`] large entries of one table, or as many
    /// small ones, as far as the table reaches and entries are present. A large entry is cleared only as a whole.
    ///
    /// For the first entry of each block `block(pfn, most)` is called, with `most` the pages left in this call; it
    /// returns how many pages (1 to `most`) belong to that block, and the following entries of the block are
    /// cleared unread. Tables that become empty are unlinked and retired. Returns how many pages were cleared; 0
    /// when the first entry is not present, or is a large one of which `at` is not the start or `pages` not all.
    ///
    /// # Safety
    /// As for [`map`](PageTable::map). Nothing cleared or retired may be reused before a flush of the range.
    unsafe fn unmap(
        &self,
        root: Pfn,
        at: VirtAddr,
        pages: u32,
        tables: &mut impl TableFrames,
        block: &mut impl FnMut(Pfn, u32) -> u32,
    ) -> u32;

    /// What the tables say of `at`. Never faults, whatever `at` is.
    ///
    /// # Safety
    /// `root` is a root table of this machine, and no table below it is freed meanwhile.
    unsafe fn walk(&self, root: Pfn, at: VirtAddr) -> Walk;

    /// The lowest table that has the entry of `at`; `None` when there is none on the way, or `at` is no address the kernel
    /// may map.
    ///
    /// # Safety
    /// As for [`walk`](PageTable::walk).
    unsafe fn leaf(&self, root: Pfn, at: VirtAddr) -> Option<Self::Leaf>;

    /// The frame of this table, when its entries are counted: it was not made at boot.
    fn leaf_frame(&self, leaf: Self::Leaf) -> Option<Pfn>;

    /// True when every frame of the run is below what this CPU can address. No run of RAM needs to be asked about.
    fn can_address(&self, run: PageRange) -> bool;

    /// What the entry of `at` says, which is in this table.
    ///
    /// # Safety
    /// The table is alive, and `leaf` was found for its 2 MiB of addresses (or what a table of this machine covers).
    unsafe fn leaf_walk(&self, leaf: Self::Leaf, at: VirtAddr) -> Walk;

    /// Maps `frames` from `at` on, all in this table; with a `guard`, writes one of that tag in the entry right before `at`,
    /// which is in this table too. Returns how many were mapped: fewer than all where an entry is in use, and nothing was
    /// changed when none.
    ///
    /// Between batches of [`Self::BATCH`] entries `pause` is called, in which the caller opens the lock of the tables for
    /// a moment; all entries are counted from the beginning, so the table stays.
    ///
    /// # Safety
    /// As for [`map`](PageTable::map), and for [`leaf_walk`](PageTable::leaf_walk); the frames are RAM, or
    /// [`can_address`](PageTable::can_address) said so.
    #[allow(clippy::too_many_arguments)]
    unsafe fn leaf_map(
        &self,
        leaf: Self::Leaf,
        at: VirtAddr,
        guard: Option<u32>,
        frames: MapFrames<'_>,
        prot: Prot,
        cache: CacheMode,
        tables: &mut impl TableFrames,
        pause: &mut impl FnMut(),
    ) -> u32;

    /// Calls `each` with the frames of up to `most` entries from that of `at` on, all in this table, up to the first that is
    /// not present or of which it says no; returns how many it said yes to.
    ///
    /// # Safety
    /// As for [`leaf_walk`](PageTable::leaf_walk).
    unsafe fn leaf_frames(&self, leaf: Self::Leaf, at: VirtAddr, most: u32, each: impl FnMut(Pfn) -> bool) -> u32;

    /// Clears up to `most` entries from that of `at` on, all in this table, up to the first that is not present or of whose
    /// frame `each` says no; returns how many. They are not counted here: the table keeps others. Between batches of less
    /// than [`Self::BATCH`] `pause` is called, as by [`leaf_map`](PageTable::leaf_map).
    ///
    /// # Safety
    /// As for [`leaf_clear`](PageTable::leaf_clear).
    unsafe fn leaf_take(
        &self,
        leaf: Self::Leaf,
        at: VirtAddr,
        most: u32,
        each: impl FnMut(Pfn) -> bool,
        pause: &mut impl FnMut(),
    ) -> u32;

    /// Clears `entries` entries from that of `at` on, all in this table, whatever they are. They are not counted here: the
    /// table keeps others.
    ///
    /// # Safety
    /// As for [`unmap`](PageTable::unmap), and for [`leaf_walk`](PageTable::leaf_walk).
    unsafe fn leaf_clear(&self, leaf: Self::Leaf, at: VirtAddr, entries: u32);

    /// As [`unmap`](PageTable::unmap), of small entries from `at` on, all in this table, and any number of them; `guards`, 0
    /// or 1, is how many guard entries right before `at`, in this table too, are cleared with them. Where `block` returns 0
    /// it stops; when nothing was cleared so, the guard stays. `pause` is called as by [`leaf_map`](PageTable::leaf_map),
    /// more often where there are many blocks; the table stays until the end.
    ///
    /// # Safety
    /// As for [`unmap`](PageTable::unmap), and for [`leaf_walk`](PageTable::leaf_walk).
    #[allow(clippy::too_many_arguments)]
    unsafe fn leaf_unmap(
        &self,
        root: Pfn,
        leaf: Self::Leaf,
        at: VirtAddr,
        guards: u32,
        pages: u32,
        tables: &mut impl TableFrames,
        block: &mut impl FnMut(Pfn, u32) -> u32,
        pause: &mut impl FnMut(),
    ) -> u32;

    /// What the kernel's tables say of `at`. What it says may be out of date when the lock of the tables is not held.
    fn walk_kernel(&self, at: VirtAddr) -> Walk {
        // SAFETY: the kernel's root is one. A table that is freed while it is walked is memory of this machine all the
        // same, and is read by single loads.
        unsafe { self.walk(self.kernel_root(), at) }
    }

    /// Changes the protection of the `pages` pages from `at` on: in up to [`Self::BATCH`] small entries, as far as the
    /// leaf table reaches and entries are present, or in one large entry, which is split (and needs a table) when only
    /// a part of it is meant. Returns how many pages were changed, at least one.
    ///
    /// # Errors
    /// [`MapError`]; nothing was changed. [`MapError::NotMapped`] when the first entry is not present.
    ///
    /// # Safety
    /// As for [`map`](PageTable::map).
    unsafe fn protect(
        &self,
        root: Pfn,
        at: VirtAddr,
        pages: u32,
        prot: Prot,
        tables: &mut impl TableFrames,
    ) -> Result<u32, MapError>;

    /// Looks at the [`Self::BATCH`] entries from number `from` on of the lowest table at `at`, its first address: whether
    /// they go on, frame after frame, what its first entry begins. When these are its last, the table is replaced by one
    /// large entry that means the same, and unlinked; it is not retired, and still holds its entries.
    ///
    /// Nothing is changed otherwise. A table made at boot stays.
    ///
    /// # Safety
    /// As for [`map`](PageTable::map); the entries before `from` were looked at, and are as they were.
    unsafe fn join(&self, root: Pfn, at: VirtAddr, from: u32, tables: &mut impl TableFrames) -> Join;

    /// Writes a non-present guard entry that carries `tag` at `at`.
    ///
    /// # Errors
    /// [`MapError`]; nothing was changed.
    ///
    /// # Safety
    /// As for [`map`](PageTable::map).
    unsafe fn set_guard(
        &self,
        root: Pfn,
        at: VirtAddr,
        tag: u32,
        tables: &mut impl TableFrames,
    ) -> Result<(), MapError>;

    /// Clears the guard entry at `at`, and retires tables that become empty.
    ///
    /// # Safety
    /// As for [`unmap`](PageTable::unmap).
    unsafe fn clear_guard(&self, root: Pfn, at: VirtAddr, tables: &mut impl TableFrames);

    /// Drops `range` from this CPU's TLB: page by page, or whole above [`Self::FLUSH_ALL_PAGES`].
    fn flush(&self, range: VirtRange);
}
