//! The full invariant scan.

use crate::backend::Backend;
use crate::frame::{FrameKind, Head, Region};
use crate::manager::Mm;
use crate::meta::MetaSize;
use crate::platform::Platform;
use crate::vmalloc::AreaFamily;
use core::fmt;

/// A contradiction in the manager's own data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Damage {
    /// Which rule is broken.
    pub what: &'static str,
    /// The frame number, address or index it was seen at.
    pub at: usize,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", self.what, self.at)
    }
}

impl core::error::Error for Damage {}

impl From<(&'static str, usize)> for Damage {
    fn from((what, at): (&'static str, usize)) -> Self {
        Damage { what, at }
    }
}

/// What a clean scan counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CheckReport {
    /// Frames with a record.
    pub frames: usize,
    /// Free frames.
    pub free: usize,
    /// Reserved frames, and those that were withdrawn.
    pub reserved: usize,
    /// Blocks of pages, large objects included.
    pub blocks: usize,
    /// Slabs.
    pub slabs: usize,
    /// Live areas.
    pub areas: usize,
    /// Page tables of areas.
    pub tables: usize,
    /// HIGHMEM frames that [`Mm::kmap`] gave an address.
    pub kmaps: usize,
    /// Frames that are never reused, since a CPU that did not acknowledge their flush may still reach them, or that
    /// wait for one. None with one CPU.
    pub unflushed: usize,
}

/// What the frames of the machine are used for.
#[derive(Default)]
struct Tally {
    free: usize,
    reserved: usize,
    blocks: usize,
    tables: usize,
    /// Of classes, of classes for devices, and of caches.
    slab_heads: [usize; 3],
    mapped: usize,
    descriptors: usize,
    held: usize,
    /// Frames that wait for a flush, and the first of them.
    pending: usize,
    first_pending: usize,
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Scans every structure of the manager for contradictions.
    ///
    /// Checked: each frame is free, reserved, or in exactly one block; free + used + reserved = total; the buddy's
    /// trees agree with its bitmaps; slabs, their lists and their frames agree; descriptors in use are those of slabs
    /// and areas; each area is mapped to frames of its own between guards; no block waits for a flush that nobody
    /// owes any more.
    ///
    /// Context: task, with nothing else using the manager meanwhile. Cost: proportional to the RAM; not bounded.
    ///
    /// # Errors
    /// The first [`Damage`] found.
    pub fn check(&self) -> Result<CheckReport, Damage> {
        let mut tally = Tally::default();
        let mut frames = 0;
        for region in self.memory.frames.regions() {
            self.check_region(region, &mut tally)?;
            frames += (region.end() - region.start()) as usize;
        }
        if tally.free != self.memory.free_pages() {
            return Err(Damage { what: "a zone's count of free frames is wrong", at: tally.free });
        }
        let mut by_kind = [0; 3];
        for class in self.classes() {
            by_kind[0] += class.check()?;
            self.check_magazines(&class)?;
        }
        for (_, class) in self.dma_classes() {
            by_kind[1] += class.check()?;
        }
        let mut index = 0;
        while let Some(result) = self.with_cache(index, |control| self.cache_slabs(control).check()) {
            by_kind[2] += result?;
            index += 1;
        }
        let (caches, slabs) = (index, by_kind.iter().sum());
        if by_kind != tally.slab_heads {
            return Err(Damage { what: "the caches and the frame table disagree on slabs", at: slabs });
        }
        let areas = self.areas.check(&self.memory, self.first_deferred())?;
        if areas.unflushed != tally.pending {
            return Err(Damage { what: "a block waits for a flush that never came", at: tally.first_pending });
        }
        if areas.frames != tally.mapped {
            return Err(Damage { what: "frames of areas and areas disagree", at: tally.mapped });
        }
        if areas.areas + areas.records + slabs + caches != tally.descriptors {
            return Err(Damage {
                what: "descriptors in use are not those of slabs, areas and caches",
                at: tally.descriptors,
            });
        }
        let kept = areas.held + self.memory.waiting.granted();
        #[cfg(feature = "page-owner")]
        let kept = kept + self.memory.owners.held();
        if kept != tally.held {
            return Err(Damage { what: "pages are held that nobody keeps", at: tally.held });
        }
        Ok(CheckReport {
            frames,
            free: tally.free,
            reserved: tally.reserved,
            blocks: tally.blocks,
            slabs,
            areas: areas.areas + areas.slots,
            tables: tally.tables,
            kmaps: areas.kmaps,
            unflushed: areas.unflushed,
        })
    }

    fn check_region(&self, region: &Region, tally: &mut Tally) -> Result<(), Damage> {
        let _zone = self.memory.zones.zone(region.zone()).lock();
        // SAFETY: the zone's lock is held, and this is the only reference.
        let buddy = unsafe { region.buddy() };
        if buddy.is_watched() && !self.memory.waiting.is_placed() {
            return Err(Damage { what: "frees look for waiters where nobody waits", at: region.start() as usize });
        }
        let mut left = buddy.check()?;
        tally.free += left;
        let mut pfn = region.start();
        while pfn < region.end() {
            let fail = |what| Err(Damage { what, at: pfn as usize });
            let Some(frame) = region.frame(pfn as usize) else { return fail("a region has no record of its frame") };
            let head = frame.head();
            let free = buddy.is_free(pfn);
            if free && !head.is(FrameKind::Tail) {
                return fail("a free frame is marked as used");
            }
            let mut length = 1;
            match head.kind() {
                FrameKind::Tail if free => left -= 1,
                FrameKind::Tail => return fail("a used frame belongs to no block"),
                // Whatever is no kind counts as reserved for frees.
                FrameKind::Reserved if !head.is(FrameKind::Reserved) => {
                    return fail("a frame is marked as nothing there is");
                }
                FrameKind::Reserved => tally.reserved += 1,
                #[cfg(feature = "page-poison")]
                FrameKind::Withdrawn => tally.reserved += 1,
                FrameKind::Pages | FrameKind::Large => {
                    tally.blocks += 1;
                    length = head.count();
                }
                FrameKind::Deferred => {
                    tally.blocks += 1;
                    length = head.count();
                    if head.class() == 0 {
                        return fail("a freed block waits for references that are gone");
                    }
                }
                FrameKind::Held => {
                    length = head.count();
                    tally.held += length as usize;
                }
                FrameKind::Mapped => {
                    length = head.count();
                    tally.mapped += length as usize;
                }
                FrameKind::Pending => {
                    if tally.pending == 0 {
                        tally.first_pending = pfn as usize;
                    }
                    length = head.count();
                    tally.pending += length as usize;
                }
                FrameKind::Table => {
                    tally.tables += 1;
                    if head.count() == 0 {
                        return fail("an empty page table was not given back");
                    }
                }
                FrameKind::Meta => {
                    let size = MetaSize::ALL[head.class() % MetaSize::ALL.len()];
                    if head != Head::new(FrameKind::Meta, size as u8, crate::meta::MARK) {
                        return fail("a page of descriptors is marked wrongly");
                    }
                    tally.descriptors += self.memory.meta_used(pfn, size);
                }
                FrameKind::Slab | FrameKind::DmaSlab | FrameKind::CacheSlab => {
                    let kind = match head.kind() {
                        FrameKind::Slab => 0,
                        FrameKind::DmaSlab => 1,
                        _ => 2,
                    };
                    tally.slab_heads[kind] += usize::from(head.count() == 0);
                    // A slab of one large object marks its first frame only.
                    if head.is(FrameKind::CacheSlab) {
                        length = self.pages_behind_first(head.class()) as u32;
                    }
                }
            }
            if length == 0 || pfn as u64 + length as u64 > region.end() as u64 {
                return fail("a block reaches out of its region");
            }
            for tail in pfn + 1..pfn + length {
                let marked = region.frame(tail as usize).is_some_and(|frame| frame.head().is(FrameKind::Tail));
                if !marked || buddy.is_free(tail) {
                    return Err(Damage { what: "a block's tail is free or another's", at: tail as usize });
                }
            }
            pfn += length;
        }
        if left != 0 {
            return Err(Damage { what: "frames outside the region are free", at: left });
        }
        Ok(())
    }
}
