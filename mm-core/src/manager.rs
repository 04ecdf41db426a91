//! The manager: one value that owns the memory it was given.

use crate::addr::VirtRange;
use crate::backend::Backend;
use crate::boot::RamMap;
use crate::buddy::{MAX_ORDER_LIMIT, RegionBuddy as Buddy};
use crate::cache::CacheList;
use crate::dma::DmaClasses;
use crate::error::MmError;
use crate::frame::{Frame, FrameKind, Head, Region};
use crate::late::Late;
use crate::lock::Locked;
use crate::memory::Memory;
use crate::meta::META_REACH;
use crate::platform::Platform;
use crate::reclaim::{Shrinkers, Turn};
use crate::slab::{CacheState, ClassHooks, ClassStates, ClassTable, MAX_CLASSES, Slabs};
use crate::vmalloc::{AreaFamily, AreaList};
use crate::zone::{MAX_ZONES, Tuning, ZoneKind, ZoneSpec, Zones};

/// The most regions (runs of RAM within one zone) a manager can have.
pub const MAX_REGIONS: usize = 12;

/// What a board tells `init` beside its RAM.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// The zones, by ascending end; RAM past the last one is an error.
    pub zones: &'a [ZoneSpec],
    /// The window of the vmalloc address space; empty without an MMU. An area or ioremap takes whole units of 64 KiB of
    /// it, its guard page included, and the last unit is a guard.
    pub vmalloc: VirtRange,
    /// How many frames are kept free, and how long requests wait.
    pub tuning: Tuning,
}

impl<'a> Config<'a> {
    /// These zones and this window, with [`Tuning::DEFAULT`].
    pub const fn new(zones: &'a [ZoneSpec], vmalloc: VirtRange) -> Self {
        Config { zones, vmalloc, tuning: Tuning::DEFAULT }
    }
}

/// A memory manager: Linux's kmalloc, get_free_pages and vmalloc over the RAM of one machine.
///
/// `new` is const and `init` fills it, so a board can keep it in a static (see [`global_mm!`](crate::global_mm)); two
/// can live in one process. Every method takes `&self`. Before `init` allocations fail with `NotReady` and frees with
/// `FreeError::NotReady`.
///
/// A free by address checks the address; whether it may go is for the caller, who owns the object: freeing what a
/// `KBox`, a `CacheBox` or another owning value holds is the caller's error.
///
/// Where code is to be small the memory stands first, so that its address is the manager's.
#[cfg_attr(feature = "small", repr(C))]
pub struct Mm<P: Platform, B: Backend> {
    pub(crate) memory: Memory<P, B>,
    pub(crate) areas: B::Areas<P>,
    pub(crate) classes: B::Classes<P::Lock>,
    pub(crate) late: Late<P, B>,
    pub(crate) dma: DmaClasses<P>,
    pub(crate) caches: CacheList<P>,
    pub(crate) deferred: Locked<P::Lock, AreaList>,
    pub(crate) shrinkers: Shrinkers<P, B>,
    pub(crate) turn: Turn<P::Lock>,
    #[cfg(feature = "trace-hooks")]
    pub(crate) telling: crate::debug::Telling<P::Lock>,
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// An empty manager.
    pub const fn new(platform: P, backend: B) -> Self {
        const {
            assert!(B::MAX_ORDER <= MAX_ORDER_LIMIT, "the largest order any backend can have is 13");
            assert!(B::PAGE_SHIFT >= 8 && B::PAGE_SHIFT <= 12, "pages are 256 bytes to 4 KiB");
        }
        Mm {
            memory: Memory::new(platform, backend),
            classes: B::Classes::NEW,
            dma: DmaClasses::new(),
            caches: CacheList::new(),
            areas: B::Areas::<P>::NEW,
            deferred: Locked::new(AreaList::EMPTY),
            late: Late::new(),
            shrinkers: Shrinkers::new(),
            turn: Turn::new(),
            #[cfg(feature = "trace-hooks")]
            telling: crate::debug::Telling::new(),
        }
    }

    /// The platform this manager was made with.
    pub fn platform(&self) -> &P {
        self.memory.platform()
    }

    /// The backend this manager was made with.
    pub fn backend(&self) -> &B {
        self.memory.backend()
    }

    /// Takes over the RAM: places the frame table at the top of the memory it describes, and frees the rest.
    ///
    /// Context: start-up, one CPU. Cost: proportional to the RAM.
    ///
    /// # Errors
    /// `AlreadyInit` when called before (also when that call failed half way), `NoUsableMemory` when no page is left
    /// beside the manager's tables, `TooManyRegions`, `Inval` for zones that do not ascend or a map of another page
    /// size or with RAM that has no kernel address in another zone than HIGHMEM, `BadRange` when all low memory lies
    /// past the reach of descriptors (128 GiB), `Unsupported` when free pages cannot be hidden as was asked, and for
    /// several CPUs and RAM without a kernel address (HIGHMEM).
    ///
    /// # Safety
    /// The free ranges of `ram` are memory that nothing else uses from now on, and the backend reaches it as its own
    /// contract says. With an MMU nothing else maps into the window. Other CPUs do not call the manager before this
    /// returned and they were told so.
    pub unsafe fn init<const N: usize>(&self, ram: &mut RamMap<N>, config: &Config<'_>) -> Result<(), MmError> {
        if core::mem::replace(&mut *self.memory.started.lock(), true) {
            return Err(MmError::AlreadyInit);
        }
        let ascending = config.zones.windows(2).all(|w| w[0].end < w[1].end && w[0].kind < w[1].kind);
        if config.zones.is_empty() || config.zones.len() > MAX_ZONES || !ascending || ram.page_shift() != B::PAGE_SHIFT
        {
            return Err(MmError::Inval);
        }
        // What has no kernel address is HIGHMEM: requests for any other kind rely on one.
        let lowmem_end = self.memory.backend.lowmem_end();
        let mut below = 0;
        for zone in config.zones {
            let past =
                |range: &crate::addr::PhysRange| range.end.min(zone.end) > lowmem_end.max(range.start.max(below));
            if zone.kind != ZoneKind::HighMem && ram.free().iter().any(past) {
                return Err(MmError::Inval);
            }
            below = zone.end;
        }
        // Descriptors are named by 32 bits of physical address; without any low enough, nothing could be allocated.
        if ram.free().first().is_some_and(|range| range.start >= META_REACH) {
            return Err(MmError::BadRange);
        }
        #[cfg(feature = "debug-pagealloc")]
        for range in ram.free() {
            let [start, end] = [range.start, range.end].map(|at| (at >> B::PAGE_SHIFT) as u32);
            if !self.memory.can_hide(crate::addr::Pfn(start), (end - start) as usize) {
                return Err(MmError::Unsupported);
            }
        }
        let plan = Plan::of::<N>(ram, config.zones, B::PAGE_SHIFT)?;
        // The windows by which a backend reaches such frames are one CPU's.
        let low = self.memory.backend().lowmem_end();
        if P::CPUS > 1 && plan.iter().any(|&(start, len, _)| (u64::from(start + len) << B::PAGE_SHIFT) > low) {
            return Err(MmError::Unsupported);
        }
        self.place_regions(ram, &plan)?;
        #[cfg(feature = "page-owner")]
        self.memory.place_owners(ram)?;
        self.memory.place_smp(ram)?;
        self.areas.init(&self.memory, ram, config.vmalloc)?;
        self.dma.init(&self.memory, ram, config.zones)?;
        self.memory.zones.set_kinds(config.zones);
        self.release_free(ram);
        if self.memory.count_managed() == 0 {
            return Err(MmError::NoUsableMemory);
        }
        self.memory.zones.set_marks(B::PAGE_SHIFT, &config.tuning);
        self.memory.waiting.set_max_wait(config.tuning.max_wait);
        self.memory.set_ready();
        crate::trace::ready(self.memory.managed_pages(), B::PAGE_SIZE);
        Ok(())
    }

    /// Makes the regions with their frame tables and buddies, all frames reserved.
    fn place_regions<const N: usize>(&self, ram: &mut RamMap<N>, plan: &Plan) -> Result<(), MmError> {
        let sizes = |start, len: u32| {
            let records = ((Buddy::lead(start, B::MAX_ORDER) + len as usize) * size_of::<Frame>()).next_multiple_of(8);
            (records, Buddy::storage_bytes(start, len, B::MAX_ORDER))
        };
        // Where code is to be small an empty one, all zero, ends the list.
        let listed = plan.len() + usize::from(cfg!(feature = "small"));
        let list_bytes = (listed * size_of::<Region>()).next_multiple_of(8);
        let tables: usize = plan.iter().map(|&(start, len, _)| sizes(start, len)).map(|(r, b)| r + b).sum();
        let classes = ClassTable::<B>::TABLE.count;
        let class_bytes = B::Classes::<P::Lock>::bytes(classes).next_multiple_of(8);
        let list = boot_alloc(&self.memory, ram, list_bytes + class_bytes + tables)?.cast::<Region>();
        let mut at = list.cast::<u8>().wrapping_add(list_bytes);
        // SAFETY: room for them, behind a list that is as long as a multiple of 8.
        unsafe { self.classes.place(at, classes) };
        at = at.wrapping_add(class_bytes);
        #[cfg(feature = "small")]
        self.set_up_slabs();
        for (i, &(start, len, zone)) in plan.iter().enumerate() {
            let (records, storage) = sizes(start, len);
            let frames = at.cast::<Frame>();
            let lead = Buddy::lead(start, B::MAX_ORDER);
            for k in 0..lead + len as usize {
                // SAFETY: zeroed storage of that many records; all-zero is a valid record.
                unsafe { (*frames.add(k)).set_head(Head::new(FrameKind::Reserved, 0, 0)) };
            }
            // SAFETY: the storage is zeroed, aligned, long enough and this buddy's alone.
            let buddy = unsafe { Buddy::new(start, len, B::MAX_ORDER, at.wrapping_add(records)) };
            // SAFETY: `list` has room for every region of the plan.
            unsafe {
                let zone = (zone, Zones::<P::Lock>::offset(zone.into()));
                list.add(i).write(Region::new(start, len, frames.add(lead), zone, buddy));
            }
            at = at.wrapping_add(records + storage);
            let mut zone = self.memory.zones.zone(zone as usize).lock();
            if zone.count == 0 {
                zone.regions = list.wrapping_add(i);
                #[cfg(not(feature = "small"))]
                {
                    zone.singles = list.wrapping_add(i);
                }
            }
            zone.count += 1;
            zone.present += len as usize;
        }
        let _masked = self.memory.started.lock();
        // SAFETY: the regions were written above, ascend, and lie in RAM that is never given out. A lock masks
        // interrupts, and `init` promises the rest.
        unsafe {
            let direct = if B::DIRECT_IS_LINEAR { self.memory.backend().direct_ptr(0) } else { core::ptr::null_mut() };
            let (addr, zone) = (|r: &Region| self.region_addr(r), |r: &Region| Zones::<P::Lock>::offset(r.zone()));
            self.memory.frames.publish(list, plan.len(), B::PAGE_SHIFT, addr, zone, direct);
        }
        Ok(())
    }

    /// Says how the slabs of classes, and the pages of descriptors, are cut.
    #[cfg(feature = "small")]
    fn set_up_slabs(&self) {
        for class in 0..ClassTable::<B>::TABLE.count {
            // SAFETY: one of as many.
            if let Some(state) = unsafe { self.classes.get(class) } {
                // SAFETY: a constant.
                unsafe { state.lock().set_up(&ClassTable::<B>::TABLE.geometry[class], FrameKind::Slab, class as u8) };
            }
        }
        self.memory.set_up_meta();
    }

    /// The kernel address of a region's first byte, if the whole region has kernel addresses.
    fn region_addr(&self, region: &Region) -> Option<usize> {
        let backend = self.memory.backend();
        let end = (region.end() as u64) << B::PAGE_SHIFT;
        (end <= backend.lowmem_end()).then(|| backend.direct_ptr((region.start() as usize) << B::PAGE_SHIFT).addr())
    }

    /// Hands every free frame to its buddy.
    fn release_free<const N: usize>(&self, ram: &RamMap<N>) {
        for range in ram.free() {
            // Frame 0 stays reserved: without an MMU its address is null.
            let start = (range.start >> B::PAGE_SHIFT).max(1) as u32;
            let end = (range.end >> B::PAGE_SHIFT) as u32;
            for region in self.memory.frames.regions() {
                let (from, to) = (start.max(region.start()), end.min(region.end()));
                if from >= to {
                    continue;
                }
                for pfn in from..to {
                    if let Some(frame) = region.frame(pfn as usize) {
                        frame.set_head(Head::new(FrameKind::Tail, 0, 0));
                    }
                }
                #[cfg(feature = "page-poison")]
                if self.memory.poisons() {
                    self.memory.put_away(crate::addr::Pfn(from), (to - from) as usize);
                }
                let mut zone = self.memory.zones.zone(region.zone()).lock();
                // SAFETY: the zone's lock is held, and this is the only reference.
                let buddy = unsafe { region.buddy() };
                buddy.give(from, (to - from) as usize);
                zone.largest = buddy.largest().map_or(zone.largest, |order| order.max(zone.largest));
                zone.free += (to - from) as usize;
                zone.managed += (to - from) as usize;
            }
        }
    }

    /// The caches of all kmalloc classes; of none before `init`.
    pub(crate) fn classes(&self) -> impl Iterator<Item = Slabs<'_, P, B>> {
        (0..ClassTable::<B>::TABLE.count).map_while(|class| self.class(class))
    }

    /// The cache of a kmalloc class; `None` for a number that is none, and before `init`.
    #[inline(always)]
    pub(crate) fn class(&self, class: usize) -> Option<Slabs<'_, P, B>> {
        // SAFETY: just compared.
        let state = (class < ClassTable::<B>::TABLE.count).then(|| unsafe { self.classes.get(class) })??;
        // SAFETY: there is a state, and so a class.
        Some(unsafe { self.class_of(class, state) })
    }

    /// The smallest class from the power of two above `class` on whose slabs are single pages. Its objects are aligned
    /// as those of `class`.
    #[cfg(not(feature = "small"))]
    pub(crate) fn single_page_class(&self, class: usize) -> Option<Slabs<'_, P, B>> {
        let table = ClassTable::<B>::TABLE;
        let mut size = (table.geometry.get(class)?.size as usize).next_power_of_two();
        while size <= table.largest {
            let class = *table.of.get(size / 8)? as usize;
            if table.geometry.get(class)?.pages == 1 {
                return self.class(class);
            }
            size *= 2;
        }
        None
    }

    /// The cache of a kmalloc class whose state is at hand.
    ///
    /// # Safety
    /// The state is that of the class.
    #[inline(always)]
    pub(crate) unsafe fn class_of<'a>(
        &'a self,
        class: usize,
        state: &'a Locked<P::Lock, CacheState>,
    ) -> Slabs<'a, P, B> {
        let geometry = &ClassTable::<B>::TABLE.geometry[class % MAX_CLASSES];
        Slabs::new(self, geometry, state, (FrameKind::Slab, class as u8), ClassHooks::<B>::of(class))
    }

    /// Gives back everything caches hold: what CPUs keep for themselves (of the other CPUs only those with interrupts
    /// on, and only where the caller may wait for them), areas whose free was put off, kept slabs, kept descriptor
    /// pages, kept page tables.
    ///
    /// Context: task. Cost: a few instructions for each class and cache; each step is bounded.
    pub fn drain(&self) {
        self.flush_deferred();
        if P::CPUS > 1 {
            self.drain_cpus(P::MAX_POLLS / 16);
        }
        self.drain_kept();
    }

    /// [`drain`](Self::drain) without the areas whose free was put off, and with little patience for other CPUs.
    /// Context: any.
    pub(crate) fn drain_kept(&self) {
        if P::CPUS > 1 {
            self.drain_cpus(P::MAX_POLLS / 1024);
        }
        self.areas.drain(&self.memory);
        for number in 0..ClassTable::<B>::TABLE.count {
            // One after the other: an iterator over caches is passed through memory.
            if let Some(slabs) = self.class(number) {
                slabs.drain();
            }
            self.drain_dma(number);
        }
        self.drain_any_caches();
        self.memory.meta_drain();
    }

    /// Free frames in all zones.
    pub fn free_page_count(&self) -> usize {
        self.memory.free_pages()
    }

    /// Makes steps fail on demand.
    #[cfg(feature = "fault-injection")]
    pub fn faults(&self) -> &crate::fault::FaultInjector<P::Lock> {
        &self.memory.faults
    }
}

/// Zeroed memory for the manager's own tables, from the top of low memory; never given back.
pub(crate) fn boot_alloc<P: Platform, B: Backend, const N: usize>(
    memory: &Memory<P, B>,
    ram: &mut RamMap<N>,
    bytes: usize,
) -> Result<*mut u8, MmError> {
    let below = memory.backend().lowmem_end().min(usize::MAX as u64);
    let range = ram.alloc_top(bytes.max(1) as u64, 64, below).ok_or(MmError::NoUsableMemory)?;
    let ptr = memory.backend().direct_ptr(range.start as usize);
    // SAFETY: `alloc_top` gives RAM below the limit that nobody else has.
    unsafe { ptr.write_bytes(0, bytes) };
    Ok(ptr)
}

/// The regions to make: spans of RAM cut at zone borders.
struct Plan(heapless::Vec<(u32, u32, u8), MAX_REGIONS>);

impl Plan {
    fn of<const N: usize>(ram: &RamMap<N>, zones: &[ZoneSpec], shift: u32) -> Result<Plan, MmError> {
        let mut plan = heapless::Vec::new();
        // Zones first: the regions of one zone stand together.
        let mut low = 0;
        for (z, spec) in zones.iter().enumerate() {
            // A page that a zone's end cuts belongs to the zone above.
            let high = spec.end >> shift << shift;
            for span in ram.spans() {
                let (mut from, to) = (span.start.max(low), span.end.min(high));
                while from < to {
                    let most = (Buddy::MAX_FRAMES as u64) << shift;
                    let end = to.min(from + most);
                    let (start, len) = ((from >> shift) as u32, ((end - from) >> shift) as u32);
                    plan.push((start, len, z as u8)).map_err(|_| MmError::TooManyRegions)?;
                    from = end;
                }
            }
            low = high;
        }
        if plan.is_empty() {
            return Err(MmError::NoUsableMemory);
        }
        if ram.spans().iter().any(|s| s.end > low) {
            return Err(MmError::Inval);
        }
        Ok(Plan(plan))
    }
}

impl core::ops::Deref for Plan {
    type Target = [(u32, u32, u8)];
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
