//! The slots of `kmap`: single pages of a window whose tables were made at boot.

use super::Mapped;
use crate::addr::{PageRange, Pfn, VirtAddr, VirtRange};
use crate::backend::{PageTable, TableFrames, Walk};
use crate::bits::{WORD_MASK, WORD_SHIFT, Word, lowest};
use crate::error::{AllocError, FreeError};
use crate::fault::FaultClass;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::prot::{CacheMode, Prot};
use crate::smp::Reach;
use core::ptr::NonNull;

/// The most slots: what one lowest table with pages of 4 KiB reaches.
const SLOTS: usize = 512;

/// Which slots are taken. A slot is taken from before its entry is written until after its flush.
pub(super) struct KmapSlots {
    taken: [Word; SLOTS >> WORD_SHIFT],
    /// Those of the taken that are empty, and could not be flushed everywhere yet.
    late: [Word; SLOTS >> WORD_SHIFT],
}

impl KmapSlots {
    pub(super) const fn new() -> Self {
        KmapSlots { taken: [0; SLOTS >> WORD_SHIFT], late: [0; SLOTS >> WORD_SHIFT] }
    }

    /// The lowest free one below `slots`.
    fn take(&mut self, slots: usize) -> Option<usize> {
        let (i, word) = self.taken.iter_mut().enumerate().find(|(_, word)| **word != Word::MAX)?;
        let slot = (i << WORD_SHIFT) + lowest(!*word);
        if slot >= slots {
            return None;
        }
        *word |= 1 << (slot & WORD_MASK);
        Some(slot)
    }

    fn give(&mut self, slot: usize) {
        self.taken[slot >> WORD_SHIFT] &= !(1 << (slot & WORD_MASK));
    }

    /// True for one with an entry.
    fn is_taken(&self, slot: usize) -> bool {
        (self.taken[slot >> WORD_SHIFT] & !self.late[slot >> WORD_SHIFT]) & 1 << (slot & WORD_MASK) != 0
    }
}

/// Tables that stay whatever happens in them, the window's and those of `vm_map_ram`'s blocks: none is ever wanted, and
/// entries are not counted.
pub(super) struct FixedTables;

impl TableFrames for FixedTables {
    fn in_hand(&self) -> usize {
        0
    }

    fn take(&mut self) -> Pfn {
        Pfn(0)
    }

    fn add_entries(&mut self, _table: Pfn, _entries: u32) {}

    fn sub_entries(&mut self, _table: Pfn, _entries: u32) -> u32 {
        u32::MAX
    }

    fn retire(&mut self, _table: Pfn) {}
}

impl<P: Platform, B: PageTable> Mapped<P, B> {
    fn slot_range(window: VirtRange, slot: usize) -> VirtRange {
        let start = window.start + (slot << B::PAGE_SHIFT);
        VirtRange { start, end: start + B::PAGE_SIZE }
    }

    pub(super) fn map_slot(&self, memory: &Memory<P, B>, pfn: Pfn) -> Result<NonNull<u8>, AllocError> {
        memory.fault_point(FaultClass::AddressSpace)?;
        let (backend, window) = (&memory.backend, memory.backend.kmap_window());
        let mut slots = self.kmaps.lock();
        let slot = slots.take((window.len() >> B::PAGE_SHIFT).min(SLOTS)).ok_or(AllocError::NoAddressSpace)?;
        let at = Self::slot_range(window, slot).start;
        let (root, run) = (backend.kernel_root(), PageRange { start: pfn, count: 1 });
        // SAFETY: the lock of the slots is that of their tables too, which hold nothing else; the slot is ours.
        let mapped =
            unsafe { backend.map(root, VirtAddr(at), run, Prot::ReadWrite, CacheMode::WriteBack, &mut FixedTables) };
        if mapped != Ok(1) {
            slots.give(slot);
            return Err(AllocError::NoAddressSpace);
        }
        drop(slots);
        // As for areas: the entry makes the address good, and under Miri there is no such machine.
        let start =
            if cfg!(miri) { core::ptr::without_provenance_mut(at) } else { core::ptr::with_exposed_provenance_mut(at) };
        NonNull::new(start).ok_or(AllocError::NoAddressSpace)
    }

    pub(super) fn unmap_slot(&self, memory: &Memory<P, B>, addr: usize) -> Result<(), FreeError> {
        let (backend, window) = (&memory.backend, memory.backend.kmap_window());
        if !window.contains(addr) {
            return Err(FreeError::Foreign);
        }
        if addr & (B::PAGE_SIZE - 1) != 0 {
            return Err(FreeError::Misaligned);
        }
        let slot = (addr - window.start) >> B::PAGE_SHIFT;
        let slots = self.kmaps.lock();
        // SAFETY: as in `map_slot`; whoever clears the entry owns the slot until it is free again.
        let cleared =
            unsafe { backend.unmap(backend.kernel_root(), VirtAddr(addr), 1, &mut FixedTables, &mut |_, most| most) };
        drop(slots);
        if cleared == 0 {
            return Err(FreeError::DoubleFree);
        }
        let range = Self::slot_range(window, slot);
        let reach = memory.flush_everywhere(range);
        let mut slots = self.kmaps.lock();
        if reach == Reach::All {
            slots.give(slot);
        } else {
            slots.late[slot >> WORD_SHIFT] |= 1 << (slot & WORD_MASK);
        }
        Ok(())
    }

    /// Flushes the slots that could not be when they were given back, and makes them free.
    pub(super) fn flush_late_slots(&self, memory: &Memory<P, B>) {
        // Out of the list, so that one that is freed, taken and put off once more meanwhile waits for the next flush.
        let late = core::mem::replace(&mut self.kmaps.lock().late, [0; SLOTS >> WORD_SHIFT]);
        if late.iter().all(|word| *word == 0) {
            return;
        }
        let reach = memory.flush_everywhere(memory.backend.kmap_window());
        let mut slots = self.kmaps.lock();
        for (i, late) in late.into_iter().enumerate() {
            if reach == Reach::All {
                slots.taken[i] &= !late;
            } else {
                slots.late[i] |= late;
            }
        }
    }

    /// How many slots are taken.
    ///
    /// # Errors
    /// A slot of which the bitmap and the tables disagree.
    pub(super) fn check_slots(&self, memory: &Memory<P, B>) -> Result<usize, (&'static str, usize)> {
        let window = memory.backend.kmap_window();
        let slots = self.kmaps.lock();
        let mut taken = 0;
        for slot in 0..(window.len() >> B::PAGE_SHIFT).min(SLOTS) {
            let at = Self::slot_range(window, slot).start;
            let mapped = match memory.backend.walk_kernel(VirtAddr(at)) {
                Walk::Mapped(mapping) => memory.frames.frame(mapping.pfn).is_some(),
                Walk::Guard(_) | Walk::Absent => false,
            };
            if mapped != slots.is_taken(slot) {
                return Err(("a slot of kmap and its entry disagree", at));
            }
            taken += usize::from(mapped);
        }
        Ok(taken)
    }
}
