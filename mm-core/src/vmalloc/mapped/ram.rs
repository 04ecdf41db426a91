//! Mappings of `vm_map_ram`: slots of blocks whose address space and page table are made once.
//!
//! A block is 64 pages behind a guard, all in one lowest table, which keeps 64 entries counted for it, mapped or not. A
//! mapping takes as many slots as it has pages, and one more behind them that stays unmapped: its guard. Slots are
//! taken from before their entries are written until after their flush.

use super::kmap::FixedTables;
use super::layout::Layout;
use super::{BATCH, Mapped};
use crate::addr::{Pfn, VirtAddr, VirtRange};
use crate::backend::{MapFrames, PageTable, Walk};
use crate::error::{AllocError, FreeError, MmError, PackedMap};
use crate::fault::FaultClass;
use crate::frame::{FrameKind, Head};
use crate::memory::Memory;
use crate::platform::{Bug, Platform};
use crate::prot::{CacheMode, Prot};
use crate::smp::Reach;
use crate::vmalloc::AreaTally;
use crate::vmalloc::area::{Area, AreaHit, AreaInfo, AreaKind, AreaUses, Place};
use crate::vmalloc::space::{ones, starts};
use crate::vmalloc::unflushed::Tables;
use core::panic::Location;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering::Relaxed};

/// Pages of a block.
const SLOTS: usize = 64;
/// Blocks at most. When all are used up, a mapping is made as any other area.
const BLOCKS: usize = 4;
/// Pages of the largest mapping that is made so.
const MOST: usize = BATCH as usize;

/// Where the blocks are, and what is mapped in them.
///
/// Changed under the lock of the tables; read without it by fault handlers, whom a change at this moment costs a wrong
/// name.
pub(super) struct RamNames {
    /// The first page of each block, or 0.
    starts: [AtomicUsize; BLOCKS],
    /// By the first slot of a mapping: its pages.
    pages: [[AtomicU8; SLOTS]; BLOCKS],
    /// And who made it.
    callers: [[AtomicPtr<Location<'static>>; SLOTS]; BLOCKS],
}

/// What the lock of the tables guards of the blocks.
pub(super) struct RamSlots<B: PageTable> {
    blocks: [Option<Block<B>>; BLOCKS],
}

struct Block<B: PageTable> {
    leaf: B::Leaf,
    record: u32,
    free: u64,
    /// Unmapped, and not flushed everywhere yet.
    late: u64,
}

impl RamNames {
    pub(super) const fn new() -> Self {
        RamNames {
            starts: [const { AtomicUsize::new(0) }; BLOCKS],
            pages: [const { [const { AtomicU8::new(0) }; SLOTS] }; BLOCKS],
            callers: [const { [const { AtomicPtr::new(null_mut()) }; SLOTS] }; BLOCKS],
        }
    }

    /// The block and the slot of an address, which may be anything.
    #[inline(always)]
    fn find(&self, addr: usize, page_shift: u32) -> Option<(usize, usize)> {
        self.starts.iter().enumerate().find_map(|(block, start)| {
            let slot = addr.wrapping_sub(start.load(Relaxed)) >> page_shift;
            (slot < SLOTS && start.load(Relaxed) != 0).then_some((block, slot))
        })
    }

    fn pages_at(&self, block: usize, slot: usize) -> usize {
        self.pages[block][slot].load(Relaxed).into()
    }

    /// The mapping that begins at a slot.
    fn info(&self, block: usize, slot: usize, page_shift: u32) -> Option<AreaInfo> {
        let pages = self.pages_at(block, slot);
        // SAFETY: null, or a location that lives for ever: nothing else is stored there.
        let caller = unsafe { self.callers[block][slot].load(Relaxed).as_ref() }?;
        let addr = self.starts[block].load(Relaxed) + (slot << page_shift);
        let (size, kind, cache) = (pages << page_shift, AreaKind::Map, CacheMode::WriteBack);
        (pages != 0).then_some(AreaInfo { addr, size, pages: pages as u32, kind, cache, phys: 0, caller })
    }

    /// The mapping a slot lies in, or right behind.
    fn around(&self, block: usize, slot: usize, page_shift: u32) -> Option<AreaInfo> {
        let first = (slot.saturating_sub(MOST)..=slot).rev().find(|&first| self.pages_at(block, first) != 0)?;
        let reaches = first + self.pages_at(block, first) >= slot;
        if reaches { self.info(block, first, page_shift) } else { None }
    }
}

/// Where the lowest `n` free slots in a row begin.
#[inline(always)]
fn lowest_run(free: u64, n: usize) -> Option<usize> {
    // Mostly at the lowest free one, which a free word without any says is past the end.
    let first = free.trailing_zeros();
    if free.checked_shr(first).is_some_and(|from| from & ones(n) == ones(n)) {
        return Some(first as usize);
    }
    let fits = starts(free, n);
    (fits != 0).then(|| fits.trailing_zeros() as usize)
}

impl<B: PageTable> RamSlots<B> {
    pub(super) const fn new() -> Self {
        RamSlots { blocks: [const { None }; BLOCKS] }
    }
}

/// Slots that are unmapped and may still be reached through a TLB: they are free again when this is flushed, or
/// dropped.
#[must_use = "the addresses come back when it is flushed"]
struct UnflushedSlots<'a, P: Platform, B: PageTable> {
    memory: &'a Memory<P, B>,
    family: &'a Mapped<P, B>,
    block: usize,
    slots: u64,
    range: VirtRange,
}

impl<P: Platform, B: PageTable> UnflushedSlots<'_, P, B> {
    #[inline(always)]
    fn flush(self) {
        let all = core::mem::ManuallyDrop::new(self);
        all.family.free_slots(all.memory, all.block, all.slots, all.range);
    }
}

impl<P: Platform, B: PageTable> Drop for UnflushedSlots<'_, P, B> {
    fn drop(&mut self) {
        self.family.free_slots(self.memory, self.block, self.slots, self.range);
    }
}

impl<P: Platform, B: PageTable> Mapped<P, B> {
    /// Maps the caller's frames in a block; `None` when they are too many for one, or all blocks are used up.
    #[inline(never)]
    pub(super) fn map_slots(
        &self,
        memory: &Memory<P, B>,
        frames: &[Pfn],
        caller: &'static Location<'static>,
    ) -> Option<PackedMap> {
        self.try_map_slots(memory, frames, caller).transpose().map(PackedMap::new)
    }

    #[inline(always)]
    fn try_map_slots(
        &self,
        memory: &Memory<P, B>,
        frames: &[Pfn],
        caller: &'static Location<'static>,
    ) -> Result<Option<NonNull<u8>>, MmError> {
        if frames.len() > MOST {
            return Ok(None);
        }
        if self.is_any_executable(memory, frames) {
            return Err(MmError::Unsupported);
        }
        memory.fault_point(FaultClass::AddressSpace)?;
        loop {
            let mut held = self.tables.lock();
            for (number, block) in held.ram.blocks.iter_mut().enumerate() {
                let Some(block) = block else { continue };
                // One more is the guard behind; so nothing begins in the last slot.
                let Some(slot) = lowest_run(block.free, frames.len() + 1) else { continue };
                let at = self.ram.starts[number].load(Relaxed) + (slot << B::PAGE_SHIFT);
                let (frames, count) = (MapFrames::Each(frames), frames.len());
                let (write, cached) = (Prot::ReadWrite, CacheMode::WriteBack);
                // SAFETY: the lock of the tables is held, the table lives as long as the block, and the slots are free.
                let mapped = unsafe {
                    memory.backend.leaf_map(
                        block.leaf,
                        VirtAddr(at),
                        None,
                        frames,
                        write,
                        cached,
                        &mut FixedTables,
                        &mut || (),
                    )
                };
                let slots = ones(count + 1) << slot;
                block.free &= !slots;
                if mapped as usize != count {
                    let leaf = block.leaf;
                    // SAFETY: the lock is held; these were written just now, and wait for a flush.
                    unsafe { memory.backend.leaf_clear(leaf, VirtAddr(at), mapped) };
                    drop(held);
                    self.give_back_slots(memory, number, slots, at);
                    return Err(MmError::AlreadyMapped);
                }
                self.ram.callers[number][slot].store(core::ptr::from_ref(caller).cast_mut(), Relaxed);
                self.ram.pages[number][slot].store(count as u8, Relaxed);
                return Ok(Some(super::area_pointer(at)));
            }
            drop(held);
            if !self.make_block(memory, caller)? {
                return Ok(None);
            }
        }
    }

    /// Flushes slots of which one was mapped already.
    #[cold]
    #[inline(never)]
    fn give_back_slots(&self, memory: &Memory<P, B>, block: usize, slots: u64, at: usize) {
        memory.platform.bug(&Bug::Damage { what: "a free slot of vm_map_ram is mapped", at });
        let range = VirtRange { start: at, end: at + ((slots.count_ones() as usize - 1) << B::PAGE_SHIFT) };
        UnflushedSlots { memory, family: self, block, slots, range }.flush();
    }

    /// Takes back a mapping of `count` pages; `None` for an address outside all blocks.
    #[inline]
    pub(super) fn unmap_slots(
        &self,
        memory: &Memory<P, B>,
        addr: usize,
        count: usize,
    ) -> Option<Result<(), FreeError>> {
        let held = self.tables.lock();
        let (number, slot) = self.ram.find(addr, B::PAGE_SHIFT)?;
        let pages = self.ram.pages_at(number, slot);
        let block = held.ram.blocks[number].as_ref()?;
        if pages == 0 || pages != count || addr & (B::PAGE_SIZE - 1) != 0 {
            drop(held);
            let refusal = self.refusal_of_slot(addr).unwrap_or(FreeError::DoubleFree);
            return Some(Err(if refusal == FreeError::WrongAllocator { FreeError::WrongOrder } else { refusal }));
        }
        self.ram.pages[number][slot].store(0, Relaxed);
        // SAFETY: the lock of the tables is held; the entries are this mapping's, and wait for a flush.
        unsafe { memory.backend.leaf_clear(block.leaf, VirtAddr(addr), count as u32) };
        drop(held);
        let range = VirtRange { start: addr, end: addr + (count << B::PAGE_SHIFT) };
        let slots = ones(count + 1) << slot;
        UnflushedSlots { memory, family: self, block: number, slots, range }.flush();
        Some(Ok(()))
    }

    /// Flushes, and makes the slots free.
    #[inline(always)]
    fn free_slots(&self, memory: &Memory<P, B>, block: usize, slots: u64, range: VirtRange) {
        let reach = memory.flush_everywhere(range);
        let mut held = self.tables.lock();
        // The block lives, for these are not free.
        if let Some(block) = &mut held.ram.blocks[block] {
            if reach == Reach::All {
                block.free |= slots;
            } else {
                block.late |= slots;
            }
        }
    }

    /// Flushes the slots that could not be when they were unmapped, and makes them free.
    pub(super) fn flush_late_ram(&self, memory: &Memory<P, B>) {
        for number in 0..BLOCKS {
            // Out of the list, so that one that is freed, taken and put off once more meanwhile waits for the next
            // flush.
            let mut held = self.tables.lock();
            let late = held.ram.blocks[number].as_mut().map_or(0, |block| core::mem::take(&mut block.late));
            drop(held);
            if late == 0 {
                continue;
            }
            let start = self.ram.starts[number].load(Relaxed);
            let range = VirtRange { start, end: start + (SLOTS << B::PAGE_SHIFT) };
            self.free_slots(memory, number, late, range);
        }
    }

    /// Makes another block; false when there are as many as there may be, or no place is left that is large enough.
    #[cold]
    #[inline(never)]
    fn make_block(&self, memory: &Memory<P, B>, caller: &'static Location<'static>) -> Result<bool, MmError> {
        let vacant = |slots: &RamSlots<B>| slots.blocks.iter().position(Option::is_none);
        if vacant(&self.tables.lock().ram).is_none() {
            return Ok(false);
        }
        // Aligned to more than its units, it has all its entries in one table.
        let (addr, record) = match self.take_room(memory, SLOTS, Layout::Whole) {
            Err(AllocError::NoAddressSpace) => return Ok(false),
            room => room?,
        };
        let mut area = Area::new(addr, SLOTS << B::PAGE_SHIFT, SLOTS as u32, AreaKind::Map, caller);
        area.uses = AreaUses::RAM;
        Self::fill_record(memory, record, area);
        let (root, guard) = (memory.backend.kernel_root(), VirtAddr(addr - B::PAGE_SIZE));
        let mut tables = Tables::new(memory, self);
        // SAFETY: the lock of the tables is held in the step, and the guard's address is this block's.
        let guarded = self.step(&mut tables, |tables| unsafe { memory.backend.set_guard(root, guard, record, tables) });
        if let Err(error) = guarded {
            self.give_room(memory, record);
            return Err(error);
        }
        if !self.settle_way(memory, addr) {
            self.tear_down(memory, record, AreaKind::Map, 0, 1).flush();
            return Ok(false);
        }
        let mut held = self.tables.lock();
        let place = vacant(&held.ram).and_then(|number| Some((number, held.lowest(memory, addr)?)));
        let Some((number, lowest)) = place else {
            // Somebody else made the last one there may be.
            drop(held);
            self.tear_down(memory, record, AreaKind::Map, 0, 1).flush();
            return Ok(true);
        };
        if let Some(frame) = lowest.frame {
            let head = frame.head();
            frame.set_head(Head::new(FrameKind::Table, 0, head.count() + SLOTS as u32));
        }
        held.ram.blocks[number] = Some(Block { leaf: lowest.leaf, record, free: u64::MAX, late: 0 });
        self.ram.starts[number].store(addr, Relaxed);
        Ok(true)
    }

    /// Gives back the blocks in which nothing is mapped; false when there was none.
    pub(super) fn free_blocks(&self, memory: &Memory<P, B>) -> bool {
        let mut freed = false;
        for number in 0..BLOCKS {
            let mut held = self.tables.lock();
            let Some(block) = held.ram.blocks[number].take_if(|block| block.free == u64::MAX) else { continue };
            // Written under the lock only; not every processor can swap.
            let start = self.ram.starts[number].load(Relaxed);
            self.ram.starts[number].store(0, Relaxed);
            // Its guard stays counted until it is torn down.
            if let Some(frame) = held.lowest(memory, start).and_then(|lowest| lowest.frame) {
                frame.set_head(frame.head().less(SLOTS as u32));
            }
            drop(held);
            self.tear_down(memory, block.record, AreaKind::Map, 0, 1).flush();
            freed = true;
        }
        freed
    }

    /// Why another free than that of `vm_map_ram` is refused for an address in a block; `None` outside.
    pub(super) fn refusal_of_slot(&self, addr: usize) -> Option<FreeError> {
        let (number, slot) = self.ram.find(addr, B::PAGE_SHIFT)?;
        if addr & (B::PAGE_SIZE - 1) != 0 {
            return Some(FreeError::Misaligned);
        }
        Some(match self.ram.around(number, slot, B::PAGE_SHIFT) {
            Some(area) if area.addr == addr => FreeError::WrongAllocator,
            Some(area) if addr < area.addr + area.size => FreeError::Interior,
            _ => FreeError::DoubleFree,
        })
    }

    /// The mapping that begins at `addr`.
    #[cold]
    #[inline(never)]
    pub(super) fn slot_at(&self, addr: usize) -> Option<(AreaInfo, AreaUses)> {
        let (number, slot) = self.ram.find(addr, B::PAGE_SHIFT)?;
        let info = self.ram.info(number, slot, B::PAGE_SHIFT)?;
        (info.addr == addr).then_some((info, AreaUses::RAM))
    }

    /// The mapping an address in a block has to do with, if it has; `None` outside all blocks. Takes no lock.
    pub(super) fn find_slot(&self, addr: usize) -> Option<Option<AreaHit>> {
        let (number, slot) = self.ram.find(addr, B::PAGE_SHIFT)?;
        Some(self.ram.around(number, slot, B::PAGE_SHIFT).map(|area| {
            let place = if addr < area.addr + area.size { Place::Inside } else { Place::GuardAfter };
            AreaHit { addr, place, area, behind: None }
        }))
    }

    /// The first mapping in a block at or above `from`.
    pub(super) fn next_slot(&self, from: usize) -> Option<AreaInfo> {
        let infos = (0..BLOCKS).flat_map(|block| (0..SLOTS).map(move |slot| (block, slot)));
        let live = infos.filter_map(|(block, slot)| self.ram.info(block, slot, B::PAGE_SHIFT));
        live.filter(|info| info.addr >= from).min_by_key(|info| info.addr)
    }

    /// Scans the blocks; returns the units of address space they have.
    ///
    /// # Errors
    /// The broken rule, and where it was seen.
    pub(super) fn check_ram(
        &self,
        memory: &Memory<P, B>,
        tally: &mut AreaTally,
    ) -> Result<usize, (&'static str, usize)> {
        let held = self.tables.lock();
        let mut units = 0;
        for (number, block) in held.ram.blocks.iter().enumerate() {
            let start = self.ram.starts[number].load(Relaxed);
            let Some(block) = block else { continue };
            tally.records += 1;
            units += self.units_of(start, SLOTS).1;
            let mut mapped = 0u64;
            let mut live = 0u64;
            for slot in 0..SLOTS {
                let pages = self.ram.pages_at(number, slot);
                if pages != 0 {
                    tally.slots += 1;
                    mapped |= ones(pages) << slot;
                    live |= ones(pages + 1) << slot;
                }
            }
            for slot in 0..SLOTS {
                let addr = start + (slot << B::PAGE_SHIFT);
                // SAFETY: the lock of the tables is held, and the table lives as long as the block.
                let walk = unsafe { memory.backend.leaf_walk(block.leaf, VirtAddr(addr)) };
                if matches!(walk, Walk::Mapped(_)) != (mapped >> slot & 1 == 1) {
                    return Err(("a slot of vm_map_ram and its entry disagree", addr));
                }
            }
            if block.free & (live | block.late) != 0 {
                return Err(("a slot of vm_map_ram is free and taken", start));
            }
            if block.free | live | block.late != u64::MAX {
                return Err(("slots of vm_map_ram wait for a flush that never came", start));
            }
        }
        Ok(units)
    }
}
