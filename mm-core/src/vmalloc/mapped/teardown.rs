//! Unmaking an area: hidden first, then unmapped batch by batch, then flushed, and only then given back.

use super::layout::pages_left;
use super::lowest::{Tabled, look_first};
use super::{BATCH, Lowest, Mapped};
use crate::addr::{Pfn, VirtAddr, VirtRange};
use crate::backend::{PageTable, Walk};
use crate::error::FreeError;
use crate::frame::{Frame, FrameKind};
use crate::memory::Memory;
use crate::meta::NIL;
use crate::platform::{Bug, Platform};
use crate::vmalloc::Withdrawn;
use crate::vmalloc::area::{Area, AreaKind, AreaUses};
use crate::vmalloc::unflushed::{Block, Chain, Tables, Unflushed};

/// No frame is damaged.
const SOUND: u32 = u32::MAX;

/// An area that is being unmapped.
pub(super) struct Teardown<'a, P: Platform, B: PageTable> {
    pub(super) memory: &'a Memory<P, B>,
    pub(super) family: &'a Mapped<P, B>,
    pub(super) tables: Tables<'a, P, B>,
    /// The next page, and one past the last.
    pub(super) at: usize,
    pub(super) end: usize,
    /// Guards right before `at` that are still there.
    pub(super) guards: u32,
    /// Blocks of the area's own frames so far, and pages of the last one that are still mapped.
    pub(super) own: bool,
    pub(super) blocks: Chain,
    pub(super) carry: u32,
}

impl<P: Platform, B: PageTable> Mapped<P, B> {
    #[inline(never)]
    pub(in crate::vmalloc) fn unmap_area(
        &self,
        memory: &Memory<P, B>,
        addr: usize,
        kind: AreaKind,
    ) -> Result<(), FreeError> {
        let guard = addr.wrapping_sub(B::PAGE_SIZE);
        // Before the first page of the window there is no guard.
        if !self.holds(guard) || addr & (B::PAGE_SIZE - 1) != 0 {
            return Err(self.refusal(memory, addr, kind));
        }
        let mut held = self.tables.lock();
        let Some((Lowest { leaf, frame }, id)) = self.guard_at(memory, &mut held, guard) else {
            drop(held);
            return Err(self.refusal(memory, addr, kind));
        };
        // SAFETY: a guard entry names a live record for as long as the lock of the tables is held.
        let area = unsafe { &mut *memory.area(id) };
        if !area.is_live() || area.addr & !(B::PAGE_SIZE - 1) != addr || area.kind != kind {
            drop(held);
            return Err(self.refusal(memory, addr, kind));
        }
        area.withdraw();
        let pages = area.pages;
        let range = VirtRange { start: addr, end: addr + pages as usize * B::PAGE_SIZE };
        // The common case written out: one block, and few entries with the guard in a table that keeps others.
        let uses = area.uses;
        if kind == AreaKind::Alloc
            && pages < BATCH
            && pages_left::<B>(guard) > pages + 1
            && !uses.contains(AreaUses::EXECUTED)
            && frame.is_none_or(|table| table.head().count() > pages + 1)
            // SAFETY: the lock is held, and the table was found for the guard and has this entry too.
            && let Walk::Mapped(first) = unsafe { memory.backend.leaf_walk(leaf, VirtAddr(addr)) }
            && let Some(block) = Block::of(memory, first.pfn, pages)
        {
            // SAFETY: the lock is held, the entries are this area's, and what was mapped waits for a flush.
            unsafe { memory.backend.leaf_clear(leaf, VirtAddr(guard), pages + 1) };
            if let Some(table) = frame {
                table.set_head(table.head().less(pages + 1));
            }
            drop(held);
            Unflushed::flush_block(memory, self, range, block, id);
            return Ok(());
        }
        drop(held);
        self.unmap_any(memory, range, id, kind).flush();
        Ok(())
    }

    #[inline(never)]
    pub(super) fn unmap_any<'a>(
        &'a self,
        memory: &'a Memory<P, B>,
        range: VirtRange,
        id: u32,
        kind: AreaKind,
    ) -> Unflushed<'a, P, B> {
        let (tables, blocks, own) = (Tables::new(memory, self), Chain::new(), kind == AreaKind::Alloc);
        let (at, end) = (range.start, range.end);
        let mut down = Teardown { memory, family: self, tables, at, end, guards: 1, own, blocks, carry: 0 };
        down.finish();
        down.take_unflushed(range, id)
    }

    /// Unmaps the live area of `kind` at `addr`, and leaves the flush to the caller.
    pub(in crate::vmalloc) fn unmap_unflushed<'a>(
        &'a self,
        memory: &'a Memory<P, B>,
        addr: usize,
        kind: AreaKind,
    ) -> Result<Unflushed<'a, P, B>, FreeError> {
        let Withdrawn { record, pages } = self.withdraw_area(memory, addr, kind)?;
        let range = VirtRange { start: addr, end: addr + pages as usize * B::PAGE_SIZE };
        Ok(self.unmap_any(memory, range, record, kind))
    }

    /// Hides the live area of `kind` at `addr`.
    pub(super) fn withdraw_area(
        &self,
        memory: &Memory<P, B>,
        addr: usize,
        kind: AreaKind,
    ) -> Result<Withdrawn, FreeError> {
        let withdraw = |area: &mut Area| {
            area.is_freed_as(kind).then(|| {
                area.withdraw();
                area.pages
            })
        };
        let held = self.holds(addr) && addr & (B::PAGE_SIZE - 1) == 0;
        let found = if held { self.with_live(memory, addr, withdraw).flatten() } else { None };
        let Some(pages) = found else { return Err(self.refusal(memory, addr, kind)) };
        // Nobody else takes the guard away from an area that we have hidden.
        match self.record_at(memory, addr) {
            Some(record) => Ok(Withdrawn { record, pages }),
            None => Err(FreeError::DoubleFree),
        }
    }

    /// Frees hidden areas under one flush.
    pub(super) fn release_areas(&self, memory: &Memory<P, B>, first: u32) {
        let mut all: Option<Unflushed<'_, P, B>> = None;
        let mut id = first;
        while id != NIL {
            // SAFETY: a hidden area's record is its freer's, who handed the list over.
            let area = unsafe { &*memory.area(id) };
            let (addr, kind) = (area.addr, area.kind);
            let range = VirtRange { start: addr, end: addr + area.pages as usize * B::PAGE_SIZE };
            let next = core::mem::replace(&mut id, area.next);
            let one = self.unmap_any(memory, range, next, kind);
            match &mut all {
                Some(all) => all.join(one),
                None => all = Some(one),
            }
        }
        if let Some(all) = all {
            all.flush();
        }
    }

    /// Unmaps the first `mapped` pages of a hidden area, and the guard when there is one.
    pub(super) fn tear_down<'a>(
        &'a self,
        memory: &'a Memory<P, B>,
        id: u32,
        kind: AreaKind,
        mapped: u32,
        guards: u32,
    ) -> Unflushed<'a, P, B> {
        // SAFETY: the record is live, and the caller's.
        let addr = unsafe { (*memory.area(id)).addr } & !(B::PAGE_SIZE - 1);
        let end = addr + mapped as usize * B::PAGE_SIZE;
        let own = kind == AreaKind::Alloc;
        let (tables, blocks) = (Tables::new(memory, self), Chain::new());
        let mut down = Teardown { memory, family: self, tables, at: addr, end, guards, own, blocks, carry: 0 };
        down.finish();
        down.take_unflushed(VirtRange { start: addr, end }, id)
    }

    /// A table was unlinked: its slot may be linked anew as soon as the lock opens, so this CPU forgets the old way
    /// first. (One entry is enough: it drops the cached upper levels with it, Intel SDM vol. 3, 4.10.4.1.)
    #[cold]
    #[inline(never)]
    fn forget_way(&self, memory: &Memory<P, B>, held: &mut Tabled<B>, at: usize) {
        held.forget();
        if P::CPUS > 1 {
            // The others cannot be asked under a lock: who maps something there meanwhile does.
            self.note_unlinked(memory);
        }
        memory.backend.flush(VirtRange { start: at, end: at + B::PAGE_SIZE });
    }
}

impl<'a, P: Platform, B: PageTable> Teardown<'a, P, B> {
    /// Clears what there is of the area in one table, batch by batch, with its guard.
    #[inline(never)]
    fn unmap_table(&mut self) {
        let memory = self.memory;
        let (root, at) = (memory.backend.kernel_root(), self.at);
        let left = ((self.end - at) >> B::PAGE_SHIFT) as u32;
        let in_table = pages_left::<B>(at);
        // The first page of a table has its guard in the table before.
        if left == 0 || (self.guards != 0 && in_table == B::LARGE_PAGES) {
            return self.unmap_rest(left);
        }
        let mut held = self.family.tables.lock();
        if !held.is_known(at) && !look_first(memory, &mut held, at) {
            drop(held);
            return self.unmap_rest(left);
        }
        let Some(Lowest { leaf, frame }) = held.lowest(memory, at) else {
            drop(held);
            return self.unmap_rest(left);
        };
        if self.own && self.carry == 0 && self.unmap_singles(&mut held, Lowest { leaf, frame }, left.min(in_table)) {
            return;
        }
        let (own, chain) = (self.own, &mut self.blocks);
        let (mut carry, mut damaged) = (self.carry, SOUND);
        let (mut begun, mut stopped) = (false, false);
        let mut block = |pfn: Pfn, most: u32| {
            if !own {
                return most;
            }
            if carry == 0 {
                // Where single frames follow they are taken in batches.
                let is_single = |frame: &Frame| frame.head().is_run(FrameKind::Mapped, 1);
                stopped = begun && most > 1 && memory.frames.frame(pfn).is_some_and(is_single);
                if stopped {
                    return 0;
                }
                begun = true;
                carry = chain.take_head(memory, pfn, &mut damaged);
            }
            let pages = carry.min(most);
            carry -= pages;
            pages
        };
        let (here, pages, counts) = (VirtAddr(at), left.min(in_table), &mut self.tables.retired);
        counts.leaf = frame;
        // SAFETY: the lock is held, the table was found for `at`, and what is cleared waits for a flush.
        let done = unsafe {
            memory.backend.leaf_unmap(root, leaf, here, self.guards, pages, counts, &mut block, &mut || held.pause())
        };
        self.tables.retired.leaf = None;
        if !self.tables.retired.chain.is_empty() {
            self.family.forget_way(memory, &mut held, self.at);
        }
        drop(held);
        self.carry = carry;
        self.guards = 0;
        self.at += (done as usize) << B::PAGE_SHIFT;
        if damaged != SOUND {
            self.report(damaged as usize);
        }
        if done != pages && !stopped {
            self.report(0);
        }
    }

    /// Clears the guard, with which a table may become empty.
    #[cold]
    #[inline(never)]
    pub(super) fn clear_guard(&mut self, held: &mut Tabled<B>, guard: VirtAddr) {
        let memory = self.memory;
        self.guards = 0;
        // SAFETY: the lock of the tables is held, and the guard is this area's.
        unsafe { memory.backend.clear_guard(memory.backend.kernel_root(), guard, &mut self.tables) };
        if !self.tables.retired.chain.is_empty() {
            self.family.forget_way(memory, held, guard.0);
        }
    }

    /// What [`unmap_table`](Self::unmap_table) finds no lowest table for: one large entry, or a guard alone.
    #[inline(never)]
    fn unmap_rest(&mut self, left: u32) {
        let memory = self.memory;
        let root = memory.backend.kernel_root();
        let mut damaged = SOUND;
        let mut held = self.family.tables.lock();
        if self.guards != 0 {
            let guard = VirtAddr(self.at - B::PAGE_SIZE);
            match held.lowest(memory, guard.0) {
                // Mostly the table it was just found in has other entries.
                Some(Lowest { leaf, frame }) if frame.is_none_or(|table| table.head().count() > 1) => {
                    self.guards = 0;
                    // SAFETY: the lock is held, the table was found for the guard, and the guard is this area's.
                    unsafe { memory.backend.leaf_clear(leaf, guard, 1) };
                    if let Some(table) = frame {
                        table.set_head(table.head().less(1));
                    }
                }
                _ => self.clear_guard(&mut held, guard),
            }
        } else {
            let (own, chain, carry) = (self.own, &mut self.blocks, &mut self.carry);
            let mut block = |pfn, most: u32| {
                if !own {
                    return most;
                }
                if *carry == 0 {
                    *carry = chain.take_head(memory, pfn, &mut damaged);
                }
                let pages = (*carry).min(most);
                *carry -= pages;
                pages
            };
            let (at, pages) = (VirtAddr(self.at), left);
            // SAFETY: the lock of the tables is held, the range is this area's, and what is cleared waits for a flush.
            let done = unsafe { memory.backend.unmap(root, at, pages, &mut self.tables, &mut block) };
            self.at += (done as usize) << B::PAGE_SHIFT;
            if done == 0 {
                damaged = 0;
            }
            if !self.tables.retired.chain.is_empty() {
                self.family.forget_way(memory, &mut held, at.0);
            }
        }
        drop(held);
        if damaged != SOUND {
            self.report(damaged as usize);
        }
    }

    /// Clears what is left, table by table.
    pub(super) fn finish(&mut self) {
        while self.at < self.end || self.guards != 0 {
            self.unmap_table();
        }
    }

    /// Tells of a frame that is not the area's, or, for frame 0, of an entry that is gone, and goes on behind it.
    #[cold]
    #[inline(never)]
    fn report(&mut self, pfn: usize) {
        if pfn != 0 {
            let what = "an area maps a frame that is not its own";
            self.memory.platform.bug(&Bug::Damage { what, at: pfn });
        } else {
            self.memory.platform.bug(&Bug::Damage { what: "an area's entry is gone", at: self.at });
            self.at += B::PAGE_SIZE;
        }
    }

    #[inline(always)]
    pub(super) fn take_unflushed(&mut self, range: VirtRange, id: u32) -> Unflushed<'a, P, B> {
        let retired = core::mem::replace(&mut self.tables.retired.chain, Chain::new());
        let blocks = core::mem::replace(&mut self.blocks, Chain::new());
        Unflushed::new(self.memory, self.family, range, blocks, retired, id)
    }
}
