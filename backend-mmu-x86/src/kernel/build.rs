//! Building the kernel's tables and switching to them.

use crate::backend::last_frame;
use crate::entry::{Entry, PAT, Size};
use crate::machine::Machine;
use crate::table::{Table, descend, link, shift};
use mm_core::{AllocError, CacheMode, MmError, Pfn, PhysAddr, PhysRange, Prot, VirtAddr, VirtRange};

const PAGE: u64 = 1 << 12;
const LARGE: u64 = 1 << 21;

/// A part of the kernel image that is mapped in one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Where it is mapped.
    pub virt: VirtAddr,
    /// Where it lies.
    pub phys: PhysAddr,
    /// How many pages it has.
    pub pages: u32,
    /// What the mapping allows.
    pub prot: Prot,
}

impl Segment {
    fn virt_end(&self) -> Option<usize> {
        self.virt.0.checked_add((self.pages as usize) << 12)
    }

    fn frames(&self) -> PhysRange {
        PhysRange { start: self.phys.0, end: self.phys.0 + (u64::from(self.pages) << 12) }
    }
}

/// Builds the final kernel tables and returns their root.
///
/// They map the `segments`; the direct map of `ram`, writable and never executable, in large entries where possible;
/// and nothing else, page 0 included. The frames of a segment that is not writable are read-only in the direct map
/// too, so that no frame can be both written and executed; a segment may also lie where the direct map has its frames,
/// and then is their only mapping. The upper tables of `window`, where the manager maps its areas, and all tables of
/// the machine's own windows, are made here and stay: address spaces made later can share them. With PAE so are all
/// entries of the root that are the kernel's, for a CPU sees no change of them.
///
/// `take` gives the frames for tables, which are never freed. It is called about once per 512 large entries and once
/// per 2 MiB of `ram` that needs small ones. The tables in use are not touched. With PAE the first frame taken is the
/// root and lies below 4 GiB.
///
/// # Errors
/// - [`MmError::Inval`]: a segment or the window is not page-aligned, not in the kernel's part of the address space,
///   or overlaps another part in a way that cannot be mapped; a frame would be both writable and executable.
/// - [`MmError::BadRange`]: memory past what this CPU can address, or a root past what its register can name.
/// - [`MmError::AlreadyMapped`]: two of the parts have the same addresses.
/// - [`AllocError::NoMemory`]: `take` had no frame.
///
/// Frames taken before an error are lost.
///
/// # Safety
/// `take` gives frames of RAM that nobody uses, each once, and `machine.direct_ptr` reaches them now.
pub unsafe fn build<M: Machine>(
    machine: &M,
    segments: &[Segment],
    ram: &[PhysRange],
    window: VirtRange,
    take: &mut dyn FnMut() -> Option<Pfn>,
) -> Result<Pfn, MmError> {
    // SAFETY: by the caller.
    unsafe { build_up_to(machine, segments, ram, window, take, Size::Large) }
}

/// [`build`] with the direct map in entries of single pages, so that frames can be taken out of it one by one, as
/// `Mm::debug_pagealloc_enable` wants. `take` is called once per 2 MiB of `ram`.
///
/// # Errors
/// As `build`.
///
/// # Safety
/// As for `build`.
pub unsafe fn build_in_pages<M: Machine>(
    machine: &M,
    segments: &[Segment],
    ram: &[PhysRange],
    window: VirtRange,
    take: &mut dyn FnMut() -> Option<Pfn>,
) -> Result<Pfn, MmError> {
    // SAFETY: by the caller.
    unsafe { build_up_to(machine, segments, ram, window, take, Size::Page) }
}

/// # Safety
/// As for [`build`].
unsafe fn build_up_to<M: Machine>(
    machine: &M,
    segments: &[Segment],
    ram: &[PhysRange],
    window: VirtRange,
    take: &mut dyn FnMut() -> Option<Pfn>,
    largest: Size,
) -> Result<Pfn, MmError> {
    check_segments::<M>(segments, machine.phys_bits())?;
    check_window(machine, segments, ram, window)?;
    let windows = machine.windows();
    check_window(machine, segments, ram, windows)?;
    let apart = window.end <= windows.start || windows.end <= window.start;
    if !apart && !windows.is_empty() {
        return Err(MmError::Inval);
    }
    let mut builder = Builder { machine, root: Pfn(0), largest, take };
    builder.root = builder.table()?;
    if M::LEVELS.bare_root && builder.root.0 >> 20 != 0 {
        return Err(MmError::BadRange);
    }
    for segment in segments {
        for page in 0..segment.pages {
            let virt = segment.virt.0 + ((page as usize) << 12);
            builder.leaf(virt, segment.phys.0 + u64::from(page) * PAGE, Size::Page, segment.prot)?;
        }
    }
    for range in ram {
        builder.direct_map(range, segments)?;
    }
    builder.upper_tables(window)?;
    builder.tables_down_to(windows, 0)?;
    if M::LEVELS.bare_root {
        builder.upper_tables(VirtRange { start: M::LEVELS.kernel_start, end: M::LEVELS.kernel_last })?;
    }
    Ok(builder.root)
}

/// Sets this CPU up for the tables and switches to them. Every CPU calls it once.
///
/// # Errors
/// [`MmError::Unsupported`] when the CPU lacks no-execute, global pages or the PAT; nothing was changed.
///
/// # Safety
/// `root` comes from [`build`], its segments and direct map have this program, its stack and its descriptor tables
/// where they are now, and the boot tables stay valid with no-execute and write protection on.
pub unsafe fn activate<M: Machine>(machine: &M, root: Pfn) -> Result<(), MmError> {
    // SAFETY: by the caller. The flush drops global entries the boot tables may have had.
    unsafe {
        machine.prepare(PAT)?;
        machine.set_root(root);
    }
    machine.flush_all();
    Ok(())
}

fn check_segments<M: Machine>(segments: &[Segment], phys_bits: u32) -> Result<(), MmError> {
    let limit = (u64::from(last_frame(phys_bits)) + 1) << 12;
    for (i, segment) in segments.iter().enumerate() {
        let misaligned = (segment.virt.0 as u64 | segment.phys.0) & (PAGE - 1) != 0;
        if misaligned || segment.virt.0 < M::LEVELS.kernel_start {
            return Err(MmError::Inval);
        }
        if segment.phys.0 > limit || segment.frames().end > limit {
            return Err(MmError::BadRange);
        }
        if segment.virt_end().is_none_or(|end| end - 1 > M::LEVELS.kernel_last) {
            return Err(MmError::Inval);
        }
        let contradicts = |other: &Segment| {
            let mixed = segment.prot.writable() && other.prot.executable()
                || segment.prot.executable() && other.prot.writable();
            mixed && segment.frames().overlaps(other.frames())
        };
        if segments[..i].iter().any(contradicts) {
            return Err(MmError::Inval);
        }
    }
    Ok(())
}

fn check_window<M: Machine>(
    machine: &M,
    segments: &[Segment],
    ram: &[PhysRange],
    window: VirtRange,
) -> Result<(), MmError> {
    if window.is_empty() {
        return Ok(());
    }
    let top = ram.iter().map(|range| range.end.min(machine.lowmem_end())).max().unwrap_or(0);
    let direct_end = usize::try_from(top).ok().and_then(|top| machine.direct_base().checked_add(top));
    let direct = VirtRange { start: machine.direct_base(), end: direct_end.ok_or(MmError::BadRange)? };
    let overlaps = |start: usize, end: usize| start < window.end && window.start < end;
    let taken = overlaps(direct.start, direct.end)
        || segments.iter().any(|s| s.virt_end().is_none_or(|end| overlaps(s.virt.0, end)));
    let outside = window.start < M::LEVELS.kernel_start || window.end - 1 > M::LEVELS.kernel_last;
    if taken || outside || (window.start | window.end) & 0xfff != 0 {
        return Err(MmError::Inval);
    }
    Ok(())
}

struct Builder<'a, M> {
    machine: &'a M,
    root: Pfn,
    /// The largest entries of the direct map.
    largest: Size,
    take: &'a mut dyn FnMut() -> Option<Pfn>,
}

impl<M: Machine> Builder<'_, M> {
    /// A zeroed table.
    fn table(&mut self) -> Result<Pfn, MmError> {
        let pfn = (self.take)().ok_or(MmError::Alloc(AllocError::NoMemory))?;
        // SAFETY: the caller of `build` gives frames that are nobody's and within reach.
        unsafe { self.machine.direct_ptr((pfn.0 as usize) << 12).write_bytes(0, PAGE as usize) };
        Ok(pfn)
    }

    /// Makes the tables on the way to `virt`, down to the one `lowest` steps above the lowest.
    fn descend(&mut self, virt: usize, lowest: u32) -> Result<(Table<'_, M>, usize), MmError> {
        loop {
            // SAFETY: `root` is the root of the tree this builder makes, and nobody else knows it.
            let spot = unsafe { descend(self.machine, self.root, virt, lowest) };
            if spot.level == lowest {
                // SAFETY: as above. Made anew, since `spot` borrows `self` past the loop.
                return Ok((unsafe { Table::at(self.machine, spot.table.pfn) }, spot.index));
            }
            if !spot.table.load(spot.index).is_absent() {
                return Err(MmError::AlreadyMapped);
            }
            let (parent, level, index) = (spot.table.pfn, spot.level, spot.index);
            let below = link::<M>(self.table()?, level).permanent();
            // SAFETY: nobody walks the tree yet, and a link to a zeroed table is valid.
            unsafe { Table::at(self.machine, parent).store(index, below) };
        }
    }

    fn leaf(&mut self, virt: usize, phys: u64, size: Size, prot: Prot) -> Result<(), MmError> {
        let level = if size == Size::Page { 0 } else { 1 };
        let (table, index) = self.descend(virt, level)?;
        if !table.load(index).is_absent() {
            return Err(MmError::AlreadyMapped);
        }
        let entry = Entry::leaf(Pfn((phys >> 12) as u32), size, prot, CacheMode::WriteBack);
        // SAFETY: nobody walks the tree yet.
        unsafe { table.store(index, entry) };
        Ok(())
    }

    fn direct_map(&mut self, ram: &PhysRange, segments: &[Segment]) -> Result<(), MmError> {
        let limit = (u64::from(last_frame(self.machine.phys_bits())) + 1) << 12;
        if ram.start > limit || ram.end > limit {
            return Err(MmError::BadRange);
        }
        let mut at = ram.start.next_multiple_of(PAGE);
        let end = ram.end.min(self.machine.lowmem_end()) & !(PAGE - 1);
        while at < end {
            let virt = (self.machine.direct_base() as u64).checked_add(at).ok_or(MmError::BadRange)?;
            let virt = usize::try_from(virt).map_err(|_| MmError::BadRange)?;
            let in_place = |s: &Segment| s.frames().start + virt as u64 == at + s.virt.0 as u64;
            let mapped = |bytes: u64| {
                let range = PhysRange { start: at, end: at + bytes };
                segments.iter().any(|s| in_place(s) && s.frames().overlaps(range))
            };
            if mapped(PAGE) {
                at += PAGE;
                continue;
            }
            let read_only = |bytes: u64| {
                let range = PhysRange { start: at, end: at + bytes };
                segments.iter().any(|s| !s.prot.writable() && s.frames().overlaps(range))
            };
            let large = self.largest == Size::Large
                && (at | virt as u64) & (LARGE - 1) == 0
                && end - at >= LARGE
                && !read_only(LARGE)
                && !mapped(LARGE);
            if large {
                self.leaf(virt, at, Size::Large, Prot::ReadWrite)?;
                at += LARGE;
            } else {
                self.leaf(virt, at, Size::Page, if read_only(PAGE) { Prot::Read } else { Prot::ReadWrite })?;
                at += PAGE;
            }
        }
        Ok(())
    }

    /// Fills the root's slots that `window` touches.
    fn upper_tables(&mut self, window: VirtRange) -> Result<(), MmError> {
        self.tables_down_to(window, M::LEVELS.count - 2)
    }

    /// Makes the tables of `range` that are at least `lowest` steps above the lowest ones.
    fn tables_down_to(&mut self, range: VirtRange, lowest: u32) -> Result<(), MmError> {
        if range.is_empty() {
            return Ok(());
        }
        let reach = shift(lowest + 1);
        for number in range.start >> reach..=(range.end - 1) >> reach {
            self.descend(number << reach, lowest)?;
        }
        Ok(())
    }
}
