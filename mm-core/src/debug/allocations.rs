//! The list of everything that is allocated, with who allocated it, and its sums by call site.

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::frame::{FrameKind, Head};
use crate::manager::Mm;
use crate::platform::Platform;
use crate::slab::Slabs;
use crate::vmalloc::{AreaFamily, Cursor};
use core::fmt;
use core::panic::Location;

/// What kind of call something was allocated by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum AllocationKind {
    /// get_free_pages and its kin.
    Pages,
    /// kmalloc and its kin.
    Object,
    /// A cache.
    Cached,
    /// vmalloc and ioremap.
    Area,
}

/// Something that is allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Allocation {
    /// By which kind of call.
    pub kind: AllocationKind,
    /// Where it begins: the physical address, or for an area the virtual one.
    pub at: u64,
    /// How long it is: whole pages, or all of an object's slot that is its owner's to use.
    pub bytes: usize,
    /// The call; `None` when it was not recorded.
    #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
    pub caller: Option<&'static Location<'static>>,
}

/// Goes through all allocations; see [`Mm::allocations`].
pub struct Allocations<'a, P: Platform, B: Backend> {
    mm: &'a Mm<P, B>,
    /// The frame and the slot to look at next.
    region: usize,
    pfn: u32,
    slot: usize,
    areas: Cursor,
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Everything that callers hold now, with the call sites, as Linux's `page_owner` and `alloc_traces`: blocks of
    /// pages and objects by address, then areas.
    ///
    /// An iterator that holds no lock between two items: what comes and goes meanwhile may or may not be listed.
    /// Printed, it is one line for each of the 64 first call sites, those with most bytes first.
    ///
    /// Context: task. Cost: walks the frame table; a lock hold for each slot of each slab. A diagnostic, not bounded.
    #[doc(alias = "kmemleak")]
    pub fn allocations(&self) -> Allocations<'_, P, B> {
        Allocations { mm: self, region: 0, pfn: 0, slot: 0, areas: Cursor::at(0) }
    }

    /// Runs `f` on the cache that `head` says a frame belongs to.
    pub(super) fn with_slabs<R>(&self, head: Head, f: impl FnOnce(Slabs<'_, P, B>) -> R) -> Option<R> {
        match head.kind() {
            FrameKind::Slab => self.class(head.class()).map(f),
            FrameKind::DmaSlab => {
                self.dma_classes().map(|(_, slabs)| slabs).find(|slabs| slabs.owner as usize == head.class()).map(f)
            }
            FrameKind::CacheSlab => self.with_numbered_cache(head.class(), f),
            _ => None,
        }
    }

    /// The first live slot at or behind `slot` of the slab that begins at `pfn`: its number and its record.
    fn next_object(&self, pfn: u32, head: Head, slot: usize) -> Option<(usize, Allocation)> {
        let frame = self.memory.frames.frame(Pfn(pfn))?;
        let first = self.memory.frame_ptr(Pfn(pfn)).addr();
        let found = self.with_slabs(head, |slabs| {
            let g = slabs.geometry;
            (slot..g.slots as usize).find_map(|slot| {
                let offset = g.slack as usize + slot * g.size as usize;
                let record = self.memory.frames.frame(Pfn(pfn + (offset >> B::PAGE_SHIFT) as u32))?;
                // A slab of one object marks its first frame only, and the object begins there.
                let (record, seen) = if g.marked == 1 { (frame, head) } else { (record, record.head()) };
                let addr = first + offset;
                slabs.is_live(record, seen, addr).then_some((slot, addr, slabs.object_size()))
            })
        })?;
        let (slot, addr, bytes) = found?;
        let kind = if head.is(FrameKind::CacheSlab) { AllocationKind::Cached } else { AllocationKind::Object };
        let pfn = pfn as usize + ((addr - first) >> B::PAGE_SHIFT);
        let at = ((pfn as u64) << B::PAGE_SHIFT) | (addr & (B::PAGE_SIZE - 1)) as u64;
        Some((slot, Allocation { kind, at, bytes, caller: self.memory.owner(pfn, addr) }))
    }
}

impl<P: Platform, B: Backend> Iterator for Allocations<'_, P, B> {
    type Item = Allocation;

    fn next(&mut self) -> Option<Allocation> {
        let memory = &self.mm.memory;
        while let Some(region) = memory.frames.regions().get(self.region) {
            self.pfn = self.pfn.max(region.start());
            if self.pfn >= region.end() {
                (self.region, self.pfn, self.slot) = (self.region + 1, 0, 0);
                continue;
            }
            let pfn = self.pfn;
            let frame = region.frame(pfn as usize)?;
            let head = frame.head();
            match head.kind() {
                FrameKind::Pages | FrameKind::Deferred | FrameKind::Large => {
                    self.pfn += 1;
                    let kind = if head.is(FrameKind::Large) { AllocationKind::Object } else { AllocationKind::Pages };
                    let (at, bytes) = ((pfn as u64) << B::PAGE_SHIFT, (head.count() as usize) << B::PAGE_SHIFT);
                    return Some(Allocation { kind, at, bytes, caller: memory.owner(pfn as usize, 0) });
                }
                FrameKind::Slab | FrameKind::DmaSlab | FrameKind::CacheSlab if head.count() == 0 => {
                    if let Some((slot, found)) = self.mm.next_object(pfn, head, self.slot) {
                        self.slot = slot + 1;
                        return Some(found);
                    }
                }
                _ => {}
            }
            (self.pfn, self.slot) = (pfn + 1, 0);
        }
        let area = self.mm.areas.next(memory, &mut self.areas)?;
        let (at, bytes) = (area.addr as u64, area.size);
        Some(Allocation { kind: AllocationKind::Area, at, bytes, caller: Some(area.caller) })
    }
}

impl<P: Platform, B: Backend> Allocations<'_, P, B> {
    /// The sums by call site of all that is left of the list. More than `N` sites are told in one sum.
    pub fn by_site<const N: usize>(self) -> Sites<N> {
        let mut sites = Sites::new();
        self.for_each(|found| sites.add(found.caller, found.bytes));
        sites.sort();
        sites
    }
}

impl<P: Platform, B: Backend> fmt::Display for Allocations<'_, P, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Allocations { mm: self.mm, region: self.region, pfn: self.pfn, slot: self.slot, areas: self.areas };
        all.by_site::<64>().fmt(f)
    }
}

/// What one call site holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site {
    /// The call; `None` for what was not recorded.
    pub caller: Option<&'static Location<'static>>,
    /// How many bytes it holds.
    pub bytes: u64,
    /// How many blocks, objects and areas.
    pub count: usize,
}

/// What call sites hold, at most `N` of them; printed, a line for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sites<const N: usize> {
    list: [Site; N],
    len: usize,
    others: Site,
}

/// A place in the source can have several copies of its location.
fn same(a: Option<&Location<'_>>, b: Option<&Location<'_>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a.line(), a.column()) == (b.line(), b.column()) && a.file() == b.file(),
        (a, b) => a.is_none() && b.is_none(),
    }
}

impl<const N: usize> Sites<N> {
    fn new() -> Self {
        let none = Site { caller: None, bytes: 0, count: 0 };
        Sites { list: [none; N], len: 0, others: none }
    }

    fn add(&mut self, caller: Option<&'static Location<'static>>, bytes: usize) {
        let known = self.list[..self.len].iter().position(|site| same(site.caller, caller));
        let site = match known {
            Some(at) => &mut self.list[at],
            None if self.len < N => {
                self.len += 1;
                self.list[self.len - 1].caller = caller;
                &mut self.list[self.len - 1]
            }
            None => &mut self.others,
        };
        site.bytes = site.bytes.saturating_add(bytes as u64);
        site.count = site.count.saturating_add(1);
    }

    fn sort(&mut self) {
        self.list[..self.len].sort_unstable_by_key(|site| core::cmp::Reverse((site.bytes, site.count)));
    }

    /// The sites, those with most bytes first.
    pub fn sites(&self) -> &[Site] {
        &self.list[..self.len]
    }

    /// What sites hold that found no place, all together; its `caller` is `None`.
    pub fn others(&self) -> Site {
        self.others
    }

    /// What a call site holds: nothing, if it is not listed.
    pub fn of(&self, caller: Option<&'static Location<'static>>) -> Site {
        let found = self.sites().iter().find(|site| same(site.caller, caller));
        found.copied().unwrap_or(Site { caller, bytes: 0, count: 0 })
    }

    /// The sites that hold more or less than in `before`, as they are now.
    pub(super) fn changed<'a>(&'a self, before: &'a Sites<N>) -> impl Iterator<Item = (Site, Site)> + 'a {
        let gone = before.sites().iter().filter(|site| self.of(site.caller).count == 0);
        let callers = self.sites().iter().chain(gone).map(|site| site.caller);
        let both = callers.map(|caller| (before.of(caller), self.of(caller)));
        both.filter(|(before, now)| (before.bytes, before.count) != (now.bytes, now.count))
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.caller {
            Some(caller) => write!(f, "{caller}"),
            None => f.write_str("unknown"),
        }
    }
}

impl<const N: usize> fmt::Display for Sites<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for site in self.sites() {
            writeln!(f, "{:>8} times, {:>12} bytes: {site}", site.count, site.bytes)?;
        }
        let Site { bytes, count, .. } = self.others;
        if count != 0 {
            writeln!(f, "{count:>8} times, {bytes:>12} bytes: elsewhere")?;
        }
        Ok(())
    }
}
