//! Changing what an area allows, and the aliases of its frames with it.
//!
//! Every frame of low memory has a second mapping, the direct map. Before a page of an area becomes executable its
//! alias becomes read-only, in 4 KiB entries, so that it can become writable again one by one without memory; and it
//! does only when the page is not executable any more, and every TLB knows.

use super::inspect::Hold;
use super::{BATCH, Mapped};
use crate::addr::{PageRange, Pfn, VirtAddr, VirtRange};
use crate::backend::{Join, MapError, PageTable, Walk};
use crate::error::MmError;
use crate::memory::Memory;
use crate::platform::Platform;
use crate::prot::Prot;
use crate::smp::Reach;
use crate::vmalloc::area::{Area, AreaKind, AreaUses};
use crate::vmalloc::unflushed::Tables;
use core::sync::atomic::Ordering::Relaxed;

/// How often the entries of a table are looked at from the first on, when others change some meanwhile.
const MOST_STARTS: u32 = 1000;

impl<P: Platform, B: PageTable> Mapped<P, B> {
    pub(super) fn protect_pages(
        &self,
        memory: &Memory<P, B>,
        addr: usize,
        pages: usize,
        prot: Prot,
    ) -> Result<(), MmError> {
        if !memory.may_flush() {
            return Err(MmError::Unsupported);
        }
        let area = if self.holds(addr) { self.area_below(memory, addr, Hold::Wait) } else { None }
            .ok_or(MmError::NotMapped)?;
        let behind = ((addr - area.addr.min(addr)) >> B::PAGE_SHIFT).checked_add(pages);
        if area.kind != AreaKind::Alloc || addr < area.addr || behind.is_none_or(|end| end > area.pages as usize) {
            return Err(MmError::NotMapped);
        }
        let range = VirtRange { start: addr, end: addr + pages * B::PAGE_SIZE };
        let mut tables = Tables::new(memory, self);
        let mark = |area: &mut Area| {
            let before = area.uses.contains(AreaUses::EXECUTED);
            if prot.executable() && !before {
                area.uses |= AreaUses::EXECUTED;
                self.executed.store(self.executed.load(Relaxed) + 1, Relaxed);
            }
            before
        };
        let before = self.with_live(memory, area.addr, mark).ok_or(MmError::NotMapped)?;
        if prot.executable() {
            self.seal(memory, range, &mut tables)?;
        }
        if let Err(error) = self.change(memory, range, prot, &mut tables) {
            if prot.executable() {
                self.unseal(memory, range, &mut tables);
            }
            return Err(error);
        }
        // A CPU that did not answer may still execute them: then their aliases stay read-only.
        if self.flush_all(memory, range) && before && !prot.executable() {
            self.unseal(memory, range, &mut tables);
        }
        Ok(())
    }

    /// False when a CPU did not answer, which was told.
    fn flush_all(&self, memory: &Memory<P, B>, range: VirtRange) -> bool {
        memory.flush_everywhere(range) == Reach::All
    }

    /// The large entry that `at` is in, if it is in one: its first address, and what it allows.
    fn large_at(&self, memory: &Memory<P, B>, at: usize) -> Option<(usize, Prot)> {
        match memory.backend.walk_kernel(VirtAddr(at)) {
            Walk::Mapped(mapping) if mapping.pages >= B::LARGE_PAGES => {
                let bytes = B::LARGE_PAGES as usize * B::PAGE_SIZE;
                Some((at & !(bytes - 1), mapping.prot))
            }
            _ => None,
        }
    }

    /// Changes the entries of `range`. What can fail, splitting a large entry at either end, comes first; when the
    /// second fails the first is as it was, in smaller entries.
    fn change(
        &self,
        memory: &Memory<P, B>,
        range: VirtRange,
        prot: Prot,
        tables: &mut Tables<'_, P, B>,
    ) -> Result<(), MmError> {
        let bytes = B::LARGE_PAGES as usize * B::PAGE_SIZE;
        let mut undo = None;
        for edge in [range.start, range.end - B::PAGE_SIZE] {
            let Some((first, old)) = self.large_at(memory, edge) else { continue };
            let part = VirtRange { start: range.start.max(first), end: range.end.min(first + bytes) };
            if part.len() == bytes {
                continue;
            }
            if let Err(error) = self.set_entries(memory, part, prot, tables) {
                if let Some((part, old)) = undo {
                    // Its entries are small now, so this needs nothing.
                    let part: VirtRange = part;
                    let _ = self.set_entries(memory, part, old, tables);
                    self.flush_all(memory, part);
                    self.join(memory, part.start & !(bytes - 1));
                }
                return Err(error);
            }
            undo = Some((part, old));
        }
        self.set_entries(memory, range, prot, tables)
    }

    /// Changes entries, large ones whole or split.
    fn set_entries(
        &self,
        memory: &Memory<P, B>,
        range: VirtRange,
        prot: Prot,
        tables: &mut Tables<'_, P, B>,
    ) -> Result<(), MmError> {
        let root = memory.backend.kernel_root();
        let mut at = range.start;
        while at < range.end {
            let left = ((range.end - at) >> B::PAGE_SHIFT) as u32;
            let most = if self.large_at(memory, at).is_some() { left } else { left.min(BATCH) };
            let done = self.step(tables, |tables| {
                // SAFETY: the lock of the tables is held, and the range is a live area's or an alias of its frames.
                match unsafe { memory.backend.protect(root, VirtAddr(at), most, prot, tables) } {
                    Ok(0) => Err(MapError::NotMapped),
                    result => result,
                }
            })?;
            at += done as usize * B::PAGE_SIZE;
        }
        Ok(())
    }

    /// Calls `f` with each run of neighbours among the frames behind `range`.
    fn each_run(
        &self,
        memory: &Memory<P, B>,
        range: VirtRange,
        mut f: impl FnMut(PageRange) -> Result<(), MmError>,
    ) -> Result<(), MmError> {
        let mut run = PageRange { start: Pfn(0), count: 0 };
        for at in range.start >> B::PAGE_SHIFT..range.end >> B::PAGE_SHIFT {
            let Walk::Mapped(mapping) = memory.backend.walk_kernel(VirtAddr(at << B::PAGE_SHIFT)) else { continue };
            if run.count != 0 && mapping.pfn.0 == run.end() {
                run.count += 1;
                continue;
            }
            if run.count != 0 {
                f(run)?;
            }
            run = PageRange { start: mapping.pfn, count: 1 };
        }
        if run.count == 0 { Ok(()) } else { f(run) }
    }

    /// The aliases of the frames behind `range` become read-only; all, or none.
    fn seal(&self, memory: &Memory<P, B>, range: VirtRange, tables: &mut Tables<'_, P, B>) -> Result<(), MmError> {
        let sealed = self.each_run(memory, range, |run| self.seal_run(memory, run, tables));
        if sealed.is_err() {
            self.unseal(memory, range, tables);
        }
        sealed
    }

    fn seal_run(&self, memory: &Memory<P, B>, run: PageRange, tables: &mut Tables<'_, P, B>) -> Result<(), MmError> {
        let Some(alias) = Self::alias(memory, run) else { return Ok(()) };
        {
            let mut changes = self.alias_changes.lock();
            *changes = changes.wrapping_add(1);
        }
        let bytes = B::LARGE_PAGES as usize * B::PAGE_SIZE;
        let mut at = alias.start;
        while at < alias.end {
            let end = alias.end.min((at & !(bytes - 1)) + bytes);
            // The first page alone, so that even a whole large entry is split.
            self.set_entries(memory, VirtRange { start: at, end: at + B::PAGE_SIZE }, Prot::Read, tables)?;
            self.set_entries(memory, VirtRange { start: at, end }, Prot::Read, tables)?;
            at = end;
        }
        // A CPU that did not answer may still write through the alias.
        if self.flush_all(memory, alias) { Ok(()) } else { Err(MmError::Unsupported) }
    }

    /// The aliases of the frames behind `range` that no page makes executable become writable again.
    fn unseal(&self, memory: &Memory<P, B>, range: VirtRange, tables: &mut Tables<'_, P, B>) {
        for at in range.start >> B::PAGE_SHIFT..range.end >> B::PAGE_SHIFT {
            match memory.backend.walk_kernel(VirtAddr(at << B::PAGE_SHIFT)) {
                Walk::Mapped(mapping) if !mapping.prot.executable() => {
                    self.unseal_run(memory, PageRange { start: mapping.pfn, count: 1 }, tables);
                }
                _ => {}
            }
        }
        let _ = self.each_run(memory, range, |run| {
            self.join_run(memory, run);
            Ok(())
        });
    }

    /// As [`unseal`](Self::unseal), of frames that nobody maps any more, for the free of their area.
    #[cold]
    pub(in crate::vmalloc) fn unseal_freed(&self, memory: &Memory<P, B>, run: PageRange) {
        let mut tables = Tables::new(memory, self);
        self.unseal_run(memory, run, &mut tables);
        self.join_run(memory, run);
    }

    /// An area that was executed is gone.
    pub(in crate::vmalloc) fn forget_executed(&self) {
        let _held = self.tables.lock();
        self.executed.store(self.executed.load(Relaxed) - 1, Relaxed);
    }

    fn unseal_run(&self, memory: &Memory<P, B>, run: PageRange, tables: &mut Tables<'_, P, B>) {
        let Some(alias) = Self::alias(memory, run) else { return };
        {
            let mut changes = self.alias_changes.lock();
            *changes = changes.wrapping_add(1);
        }
        // What was sealed is in small entries, and what was not is writable: nothing is split.
        let _ = self.set_entries(memory, alias, Prot::ReadWrite, tables);
        self.flush_all(memory, alias);
    }

    fn alias(memory: &Memory<P, B>, run: PageRange) -> Option<VirtRange> {
        let start = memory.backend.direct_virt(run.start)?.0;
        // Low memory ends at the end of a zone, so a run is in it or not.
        Some(VirtRange { start, end: start + run.count as usize * B::PAGE_SIZE })
    }

    /// Makes large entries again of the aliases around `run` that are uniform, and frees their tables.
    fn join_run(&self, memory: &Memory<P, B>, run: PageRange) {
        let Some(alias) = Self::alias(memory, run) else { return };
        let bytes = B::LARGE_PAGES as usize * B::PAGE_SIZE;
        for at in (alias.start & !(bytes - 1)..alias.end).step_by(bytes) {
            self.join(memory, at);
        }
    }

    /// Looks at a table batch by batch, and from its start again when any alias was changed meanwhile.
    fn join(&self, memory: &Memory<P, B>, at: usize) {
        let root = memory.backend.kernel_root();
        let mut tables = Tables::new(memory, self);
        let mut changes = *self.alias_changes.lock();
        let (mut from, mut starts) = (0, 0);
        loop {
            let mut held = self.tables.lock();
            let now = *self.alias_changes.lock();
            if now != changes {
                // Each time is a whole call of somebody else's that changes what may be done with pages.
                starts += 1;
                if starts == MOST_STARTS {
                    return;
                }
                (changes, from) = (now, 0);
            }
            // SAFETY: the lock of the tables is held; aliases are changed by this file only.
            let joined = unsafe { memory.backend.join(root, VirtAddr(at), from, &mut tables) };
            if let Join::Joined(_) = joined {
                // Whoever looked a page up meanwhile may have left the table's name there.
                held.forget();
            }
            drop(held);
            match joined {
                Join::Differs => return,
                Join::Same => from += BATCH,
                Join::Joined(table) => {
                    let bytes = B::LARGE_PAGES as usize * B::PAGE_SIZE;
                    if !self.flush_all(memory, VirtRange { start: at, end: at + bytes }) {
                        return self.abandon_table(memory, table);
                    }
                    memory.zero(PageRange { start: table, count: 1 });
                    self.give_table(memory, table);
                    return;
                }
            }
        }
    }

    /// True when one of the frames is executable somewhere, also one whose area is gone and waits for its flush.
    pub(super) fn is_any_executable(&self, memory: &Memory<P, B>, frames: &[Pfn]) -> bool {
        let sealed = |pfn: &Pfn| match memory.backend.direct_virt(*pfn).map(|at| memory.backend.walk_kernel(at)) {
            Some(Walk::Mapped(mapping)) => !mapping.prot.writable(),
            _ => false,
        };
        self.executed.load(Relaxed) != 0 && frames.iter().any(sealed)
    }
}
