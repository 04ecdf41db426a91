//! Snapshots, printed in the manner of `/proc`.
//!
//! A snapshot is taken when the method is called (`meminfo`, `zoneinfo`, `buddyinfo`), or line by line while it is
//! printed (`slabinfo`, `vmallocinfo`), so that no list has to be held still or copied.

use crate::backend::Backend;
use crate::buddy::MAX_ORDER_LIMIT;
use crate::cache::CacheInfo;
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::manager::Mm;
use crate::platform::Platform;
use crate::slab::{ClassTable, SlabCounts};
use crate::vmalloc::{AreaFamily, AreaInfo, Cursor};
use crate::zone::{MAX_ZONES, Marks, ZoneKind};
use core::fmt;

/// Totals, in bytes, as `/proc/meminfo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemInfo {
    /// RAM with a frame record.
    pub total: u64,
    /// Firmware, kernel image, the manager's tables.
    pub reserved: u64,
    /// Free memory.
    pub free: u64,
    /// What of it ordinary requests can have: what is above each zone's `min` mark.
    pub available: u64,
    /// Slabs of kmalloc and caches.
    pub slab: u64,
    /// Descriptors.
    pub descriptors: u64,
    /// Page tables.
    pub page_tables: u64,
    /// Blocks behind vmalloc areas.
    pub vmalloc: u64,
    /// Blocks of get_free_pages and large kmalloc.
    pub pages: u64,
    /// Pages that were found damaged while they were free, and are never used again; Linux's `HardwareCorrupted`.
    #[cfg(feature = "page-poison")]
    pub withdrawn: u64,
}

impl fmt::Display for MemInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, bytes: u64| writeln!(f, "{name:<14}{:>10} kB", bytes / 1024);
        line("MemTotal:", self.total)?;
        line("MemReserved:", self.reserved)?;
        line("MemFree:", self.free)?;
        line("MemAvailable:", self.available)?;
        line("Slab:", self.slab)?;
        line("Descriptors:", self.descriptors)?;
        line("PageTables:", self.page_tables)?;
        line("VmallocUsed:", self.vmalloc)?;
        line("Pages:", self.pages)?;
        #[cfg(feature = "page-poison")]
        line("Withdrawn:", self.withdrawn)?;
        Ok(())
    }
}

/// One zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ZoneInfo {
    /// What it is.
    pub kind: ZoneKind,
    /// First and one past the last frame number of its regions; both 0 when it has none.
    pub span: (u32, u32),
    /// Frames with a record.
    pub present: usize,
    /// Frames the buddy was given.
    pub managed: usize,
    /// Free frames.
    pub free: usize,
    /// The watermarks, and the reserve against each kind of request.
    pub marks: Marks,
    /// Free blocks by order, each frame in its largest.
    pub blocks: [usize; MAX_ORDER_LIMIT + 1],
}

impl ZoneInfo {
    /// Free frames that requests with these flags can have of this zone, in whatever blocks they are.
    pub fn spare(&self, flags: Gfp) -> usize {
        let kind = ZoneKind::of(flags);
        if self.kind > kind { 0 } else { self.free.saturating_sub(self.marks.limit(kind, flags.depth())) }
    }
}

/// All zones, printed as `/proc/zoneinfo`.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ZoneList {
    zones: heapless::Vec<ZoneInfo, MAX_ZONES>,
    max_order: usize,
}

impl ZoneList {
    /// The zones, lowest first.
    pub fn zones(&self) -> &[ZoneInfo] {
        &self.zones
    }

    /// Free frames that requests with these flags can have, in whatever blocks they are.
    pub fn spare(&self, flags: Gfp) -> usize {
        self.zones.iter().map(|zone| zone.spare(flags)).sum()
    }
}

impl fmt::Display for ZoneList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for zone in &self.zones {
            writeln!(f, "Node 0, zone {:>8}", zone.kind.name())?;
            writeln!(f, "  pages free     {}", zone.free)?;
            writeln!(f, "        min      {}", zone.marks.min)?;
            writeln!(f, "        low      {}", zone.marks.low)?;
            writeln!(f, "        high     {}", zone.marks.high)?;
            writeln!(f, "        managed  {}", zone.managed)?;
            writeln!(f, "        present  {}", zone.present)?;
            let [dma, dma32, normal, high] = zone.marks.reserve;
            writeln!(f, "        protection: ({dma}, {dma32}, {normal}, {high})")?;
            writeln!(f, "  start_pfn:     {}", zone.span.0)?;
            writeln!(f, "  end_pfn:       {}", zone.span.1)?;
        }
        Ok(())
    }
}

/// Free blocks by order, printed as `/proc/buddyinfo`.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BuddyInfo(ZoneList);

impl BuddyInfo {
    /// The zones, lowest first.
    pub fn zones(&self) -> &[ZoneInfo] {
        &self.0.zones
    }

    /// The order of the largest free block in any zone.
    pub fn largest(&self) -> Option<usize> {
        self.0.zones.iter().filter_map(|zone| zone.blocks.iter().rposition(|&n| n != 0)).max()
    }
}

impl fmt::Display for BuddyInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for zone in &self.0.zones {
            write!(f, "Node 0, zone {:>8} ", zone.kind.name())?;
            for count in &zone.blocks[..=self.0.max_order] {
                write!(f, "{count:>6} ")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Prints as `/proc/slabinfo`: kmalloc's classes in use, then the caches.
pub struct SlabInfo<'a, P: Platform, B: Backend>(&'a Mm<P, B>);

impl<P: Platform, B: Backend> SlabInfo<'_, P, B> {
    /// The kmalloc class that serves `size`, and how full it is.
    pub fn class(&self, size: usize) -> Option<(usize, SlabCounts)> {
        let table = ClassTable::<B>::TABLE;
        let index = *table.of.get(size.div_ceil(8)).filter(|_| size != 0 && size <= table.largest)? as usize;
        let counts = self.0.class(index).map(|class| class.counts()).unwrap_or_default();
        Some((table.object_size(index), counts))
    }

    /// The `index`-th cache.
    pub fn cache(&self, index: usize) -> Option<CacheInfo> {
        self.0.cache_info(index)
    }

    /// Objects in the hands of callers: of kmalloc's classes, and of the caches.
    pub fn active(&self) -> (usize, usize) {
        let all = self.0.classes().chain(self.0.dma_classes().map(|(_, slabs)| slabs));
        let kmalloc = all.map(|slabs| slabs.counts().active).sum();
        let caches = (0..).map_while(|index| self.cache(index)).map(|cache| cache.counts.active).sum();
        (kmalloc, caches)
    }
}

impl<P: Platform, B: Backend> fmt::Display for SlabInfo<'_, P, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : slabs")?;
        let mut line = |name: &dyn fmt::Display, size: usize, per_slab: usize, pages: usize, counts: SlabCounts| {
            let SlabCounts { active, objects, slabs } = counts;
            writeln!(f, "{name:<18} {active:>12} {objects:>10} {size:>9} {per_slab:>12} {pages:>14} : {slabs}")
        };
        for class in self.0.classes() {
            let (geometry, counts) = (class.geometry, class.counts());
            if counts.slabs != 0 {
                let mut name = heapless::String::<24>::new();
                let _ = fmt::Write::write_fmt(&mut name, format_args!("kmalloc-{}", class.object_size()));
                line(&name, geometry.size as usize, geometry.slots as usize, geometry.pages as usize, counts)?;
            }
        }
        for (kind, slabs) in self.0.dma_classes() {
            let (geometry, counts) = (slabs.geometry, slabs.counts());
            if counts.slabs != 0 {
                let prefix = if kind == ZoneKind::Dma { "dma" } else { "dma32" };
                let mut name = heapless::String::<24>::new();
                let _ = fmt::Write::write_fmt(&mut name, format_args!("{prefix}-kmalloc-{}", slabs.object_size()));
                line(&name, geometry.size as usize, geometry.slots as usize, geometry.pages as usize, counts)?;
            }
        }
        for cache in (0..).map_while(|index| self.cache(index)) {
            line(&cache.name, cache.slot_size, cache.per_slab, cache.pages, cache.counts)?;
        }
        Ok(())
    }
}

/// Prints as `/proc/vmallocinfo`: one line per area, by address.
pub struct VmallocInfo<'a, P: Platform, B: Backend>(&'a Mm<P, B>);

impl<P: Platform, B: Backend> VmallocInfo<'_, P, B> {
    /// The live areas, by address. Areas may come and go meanwhile; each that stays is seen once.
    pub fn areas(&self) -> impl Iterator<Item = AreaInfo> {
        let mut cursor = Cursor::at(0);
        core::iter::from_fn(move || self.0.areas.next(&self.0.memory, &mut cursor))
    }

    /// How many areas are live.
    pub fn count(&self) -> usize {
        self.areas().count()
    }
}

impl<P: Platform, B: Backend> fmt::Display for VmallocInfo<'_, P, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.areas().try_for_each(|area| writeln!(f, "{area}"))
    }
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Totals by use. Walks the frame table; not bounded, takes no lock for it.
    pub fn meminfo(&self) -> MemInfo {
        let mut pages = [0u64; FrameKind::COUNT];
        for region in self.memory.frames.regions() {
            for pfn in region.start()..region.end() {
                let Some(frame) = region.frame(pfn as usize) else { continue };
                let head = frame.head();
                pages[head.kind() as usize] += match head.kind() {
                    FrameKind::Pages
                    | FrameKind::Deferred
                    | FrameKind::Large
                    | FrameKind::Mapped
                    | FrameKind::Pending
                    | FrameKind::Held => head.count() as u64,
                    FrameKind::CacheSlab => self.pages_behind_first(head.class()) as u64,
                    _ => 1,
                };
            }
        }
        let bytes = |kinds: &[FrameKind]| kinds.iter().map(|&k| pages[k as usize]).sum::<u64>() << B::PAGE_SHIFT;
        let present: u64 = self.memory.frames.regions().iter().map(|r| (r.end() - r.start()) as u64).sum();
        MemInfo {
            total: present << B::PAGE_SHIFT,
            reserved: bytes(&[FrameKind::Reserved]),
            free: (self.memory.free_pages() as u64) << B::PAGE_SHIFT,
            available: (self.memory.zones.available() as u64) << B::PAGE_SHIFT,
            slab: bytes(&[FrameKind::Slab, FrameKind::DmaSlab, FrameKind::CacheSlab]),
            descriptors: bytes(&[FrameKind::Meta]),
            page_tables: bytes(&[FrameKind::Table, FrameKind::Held]),
            vmalloc: bytes(&[FrameKind::Mapped, FrameKind::Pending]),
            pages: bytes(&[FrameKind::Pages, FrameKind::Deferred, FrameKind::Large]),
            #[cfg(feature = "page-poison")]
            withdrawn: bytes(&[FrameKind::Withdrawn]),
        }
    }

    /// The zones and their free blocks. Walks the bitmaps, each zone under its lock: a diagnostic, not bounded.
    pub fn zoneinfo(&self) -> ZoneList {
        let mut list = ZoneList { zones: heapless::Vec::new(), max_order: B::MAX_ORDER };
        for index in 0..MAX_ZONES {
            let zone = self.memory.zones.zone(index).lock();
            let Some(kind) = zone.kind else { continue };
            let regions = zone.regions(&self.memory.frames);
            let mut blocks = [0; MAX_ORDER_LIMIT + 1];
            for region in regions {
                // SAFETY: the zone's lock is held, and this is the only reference.
                unsafe { region.buddy() }.count_blocks(&mut blocks);
            }
            let span = match (regions.first(), regions.last()) {
                (Some(first), Some(last)) => (first.start(), last.end()),
                _ => (0, 0),
            };
            let (present, managed, free, marks) = (zone.present, zone.managed, zone.free, zone.marks);
            let info = ZoneInfo { kind, span, present, managed, free, marks, blocks };
            let _ = list.zones.push(info);
        }
        list
    }

    /// Free blocks by zone and order. As [`zoneinfo`](Self::zoneinfo).
    pub fn buddyinfo(&self) -> BuddyInfo {
        BuddyInfo(self.zoneinfo())
    }

    /// How full kmalloc's classes and the caches are.
    pub fn slabinfo(&self) -> SlabInfo<'_, P, B> {
        SlabInfo(self)
    }

    /// The areas of vmalloc and ioremap.
    pub fn vmallocinfo(&self) -> VmallocInfo<'_, P, B> {
        VmallocInfo(self)
    }
}
