//! A page-table entry: the one place that knows which bit means what.
//!
//! Bit numbers are those of the Intel SDM, volume 3A, tables 4-15 to 4-20 (4-level paging; PAE entries agree).

use mm_core::{CacheMode, Pfn, Prot};
use x86::bits64::paging::{PDFlags, PTFlags};

const PRESENT: u64 = PTFlags::P.bits();
const WRITABLE: u64 = PTFlags::RW.bits();
const NO_EXECUTE: u64 = PTFlags::XD.bits();
const ACCESSED: u64 = PTFlags::A.bits();
const DIRTY: u64 = PTFlags::D.bits();
const GLOBAL: u64 = PTFlags::G.bits();
const PWT: u64 = PTFlags::PWT.bits();
const PCD: u64 = PTFlags::PCD.bits();
const LARGE: u64 = PDFlags::PS.bits();
/// The cache bit sits where the size bit is in an upper entry, so a large entry has it elsewhere. The `x86` crate
/// knows only the latter.
const PAT_PAGE: u64 = 1 << 7;
const PAT_LARGE: u64 = PDFlags::PAT.bits();
/// An ignored bit of upper entries: the table below was made at boot, is not counted and never freed.
const PERMANENT: u64 = PDFlags::USER_9.bits();
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Address bits every guard keeps set (see [`Entry::guard`]).
const GUARD_ADDRESS: u64 = ADDRESS & !((1 << 21) - 1);

/// What the eight slots of the PAT register hold once the kernel's tables are active: the power-on values, but
/// write-combining in slot 6.
///
/// Slot 6 is uncached at power-on, so an entry that uses it is safe even on a CPU that was not set up yet, and as
/// nobody used the slot before, no cached line or translation has the old meaning.
pub(crate) const PAT: u64 = 0x0001_0406_0007_0406;

/// How much one leaf entry covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// 4 KiB, in the lowest table.
    Page,
    /// 2 MiB, in the table above.
    Large,
}

/// One entry of a table, of any level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Entry(pub(crate) u64);

impl Entry {
    /// Nothing is mapped and no table hangs below.
    pub(crate) const ABSENT: Entry = Entry(0);
    /// From an entry for one page to that of the following frame.
    pub(crate) const NEXT_PAGE: u64 = 1 << 12;
    /// From a large entry to that of the frames that follow.
    pub(crate) const NEXT_LARGE: u64 = 1 << 21;

    /// A leaf for `pfn`.
    ///
    /// Accessed is set, and dirty where stores are allowed, so that the CPU never writes to a table by itself. A
    /// read-only entry must not be dirty: with control-flow enforcement that pair marks a shadow stack.
    #[inline(always)]
    pub(crate) const fn leaf(pfn: Pfn, size: Size, prot: Prot, cache: CacheMode) -> Entry {
        let (size_bits, pat) = match size {
            Size::Page => (0, PAT_PAGE),
            Size::Large => (LARGE, PAT_LARGE),
        };
        let cache_bits = match cache {
            CacheMode::WriteBack => 0,
            CacheMode::WriteThrough => PWT,
            CacheMode::Uncached => PCD | PWT,
            CacheMode::WriteCombining => pat | PCD,
        };
        let common = PRESENT | ACCESSED | GLOBAL;
        Entry(((pfn.0 as u64) << 12) | common | size_bits | cache_bits | prot_bits(prot))
    }

    /// A link to the table at `pfn`. Leaves decide what is allowed, so it allows all.
    #[inline(always)]
    pub(crate) const fn table(pfn: Pfn) -> Entry {
        Entry(((pfn.0 as u64) << 12) | PRESENT | WRITABLE | ACCESSED)
    }

    /// A link in the root of PAE tables, where protection bits are reserved.
    #[inline(always)]
    pub(crate) const fn pae_root(pfn: Pfn) -> Entry {
        Entry(((pfn.0 as u64) << 12) | PRESENT)
    }

    /// The same link, to a table that is never freed.
    #[inline(always)]
    pub(crate) const fn permanent(self) -> Entry {
        Entry(self.0 | PERMANENT)
    }

    /// A non-present entry that carries `tag`.
    ///
    /// A CPU with the L1TF flaw reads the cache at the address of a non-present entry. So the address bits stay
    /// set from 2 MiB up, which no RAM reaches, and the tag takes the 32 bits that are left. It follows that no
    /// guard is zero, whatever its tag.
    #[inline(always)]
    pub(crate) const fn guard(tag: u32) -> Entry {
        let low = (tag as u64 & 0xf_ffff) << 1;
        let high = (tag as u64 >> 20) << 52;
        Entry(low | high | GUARD_ADDRESS)
    }

    /// The tag, when this is a guard.
    #[inline(always)]
    pub(crate) const fn guard_tag(self) -> Option<u32> {
        if self.0 & PRESENT != 0 || self.0 & GUARD_ADDRESS != GUARD_ADDRESS {
            return None;
        }
        Some((self.0 >> 1) as u32 & 0xf_ffff | ((self.0 >> 52) as u32) << 20)
    }

    /// True when nothing is here: no leaf, no table, no guard.
    #[inline(always)]
    pub(crate) const fn is_absent(self) -> bool {
        self.0 == 0
    }

    /// True when the CPU would use the entry.
    #[inline(always)]
    pub(crate) const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// In an upper table: true when another table hangs below.
    #[inline(always)]
    pub(crate) const fn is_table(self) -> bool {
        self.0 & (PRESENT | LARGE) == PRESENT
    }

    /// In an upper table: true when the table below is never freed.
    #[inline(always)]
    pub(crate) const fn is_permanent(self) -> bool {
        self.0 & PERMANENT != 0
    }

    /// The frame of a page entry, or the table below an upper one.
    #[inline(always)]
    pub(crate) const fn pfn(self) -> Pfn {
        Pfn(((self.0 & ADDRESS) >> 12) as u32)
    }

    /// The first frame of a large entry that covers `pages` pages.
    #[inline(always)]
    pub(crate) const fn large_pfn(self, pages: u32) -> Pfn {
        Pfn(self.pfn().0 & !(pages - 1))
    }

    /// What a leaf allows. Tables of others may hold leaves that can be written and executed; those read as writable.
    #[inline(always)]
    pub(crate) const fn prot(self) -> Prot {
        if self.0 & WRITABLE != 0 {
            Prot::ReadWrite
        } else if self.0 & NO_EXECUTE != 0 {
            Prot::Read
        } else {
            Prot::ReadExecute
        }
    }

    /// How a leaf is cached.
    #[inline(always)]
    pub(crate) const fn cache(self, size: Size) -> CacheMode {
        let pat = match size {
            Size::Page => self.0 & PAT_PAGE,
            Size::Large => self.0 & PAT_LARGE,
        };
        match (pat != 0, self.0 & PCD != 0, self.0 & PWT != 0) {
            (_, false, false) => CacheMode::WriteBack,
            (_, false, true) => CacheMode::WriteThrough,
            (true, true, false) => CacheMode::WriteCombining,
            (false, true, false) | (_, true, true) => CacheMode::Uncached,
        }
    }

    /// True when the entry, of any level, lets stores through.
    #[inline(always)]
    pub(crate) const fn allows_write(self) -> bool {
        self.0 & WRITABLE != 0
    }

    /// True when the entry, of any level, lets instruction fetches through.
    #[inline(always)]
    pub(crate) const fn allows_execute(self) -> bool {
        self.0 & NO_EXECUTE == 0
    }

    /// The same leaf with another protection.
    #[inline(always)]
    pub(crate) const fn with_prot(self, prot: Prot) -> Entry {
        Entry(self.0 & !(WRITABLE | DIRTY | NO_EXECUTE) | prot_bits(prot))
    }

    /// The page entry that means the same as the first page of this large one.
    #[inline(always)]
    pub(crate) const fn first_page(self) -> Entry {
        let pat = if self.0 & PAT_LARGE != 0 { PAT_PAGE } else { 0 };
        Entry(self.0 & !(LARGE | PAT_LARGE) | pat)
    }
}

const fn prot_bits(prot: Prot) -> u64 {
    match prot {
        Prot::Read => NO_EXECUTE,
        Prot::ReadWrite => WRITABLE | DIRTY | NO_EXECUTE,
        Prot::ReadExecute => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const PROTS: [Prot; 3] = [Prot::Read, Prot::ReadWrite, Prot::ReadExecute];
    const CACHES: [CacheMode; 4] =
        [CacheMode::WriteBack, CacheMode::WriteThrough, CacheMode::WriteCombining, CacheMode::Uncached];

    /// Every single-bit frame number, its neighbours, and both ends.
    fn frames() -> Vec<Pfn> {
        let step = if cfg!(miri) { 5 } else { 1 };
        let mut frames: Vec<Pfn> =
            (0..32).step_by(step).flat_map(|bit| [1u32 << bit, (1u32 << bit) - 1, !(1u32 << bit)]).map(Pfn).collect();
        frames.extend([Pfn(u32::MAX), Pfn(0x1234_5678)]);
        frames
    }

    fn leaves() -> impl Iterator<Item = (Pfn, Size, Prot, CacheMode)> {
        frames().into_iter().flat_map(|pfn| {
            [Size::Page, Size::Large].into_iter().flat_map(move |size| {
                let pfn = if size == Size::Large { Pfn(pfn.0 & !511) } else { pfn };
                PROTS.into_iter().flat_map(move |prot| CACHES.into_iter().map(move |cache| (pfn, size, prot, cache)))
            })
        })
    }

    #[test]
    fn a_leaf_reads_back_as_it_was_written() {
        for (pfn, size, prot, cache) in leaves() {
            let entry = Entry::leaf(pfn, size, prot, cache);
            assert!(entry.is_present() && !entry.is_absent() && entry.guard_tag().is_none());
            assert_eq!((entry.prot(), entry.cache(size)), (prot, cache), "{entry:x?}");
            match size {
                Size::Page => assert_eq!(entry.pfn(), pfn),
                Size::Large => {
                    assert_eq!(entry.large_pfn(512), pfn);
                    assert!(!entry.is_table());
                }
            }
        }
    }

    #[test]
    fn no_leaf_sets_a_reserved_bit() {
        // SDM 3A, tables 4-18 and 4-20: address bits above the width (44 with 32-bit frame numbers), and bits 20..13
        // of a 2 MiB entry. Bits 2 (user) and 9..11, 52..62 are kept clear by choice.
        let never = 0x7ff0_0000_0000_0e04 | (ADDRESS & !((1 << 44) - 1));
        for (pfn, size, prot, cache) in leaves() {
            let entry = Entry::leaf(pfn, size, prot, cache).0;
            assert_eq!(entry & never, 0, "{pfn:?} {size:?} {prot:?} {cache:?}: {entry:#x}");
            if size == Size::Large {
                assert_eq!(entry & 0x1f_e000, 0, "{pfn:?} {prot:?} {cache:?}: {entry:#x}");
            }
        }
    }

    #[test]
    fn no_link_sets_a_reserved_bit() {
        for pfn in frames() {
            for link in [Entry::table(pfn), Entry::table(pfn).permanent()] {
                assert!(link.is_table() && link.pfn() == pfn);
                assert_eq!(link.0 & (0xfff0_0000_0000_0d84 | (ADDRESS & !((1 << 44) - 1))), 0, "{link:x?}");
            }
            // SDM 3A, table 4-8: bits 1, 2 and 5..8, and everything from the width up.
            let root = Entry::pae_root(pfn).permanent();
            assert!(root.is_table() && root.pfn() == pfn && root.is_permanent());
            assert_eq!(root.0 & (0xfff0_0000_0000_01e6 | (ADDRESS & !((1 << 44) - 1))), 0, "{root:x?}");
        }
        assert!(!Entry::table(Pfn(1)).is_permanent());
    }

    #[test]
    fn no_leaf_is_writable_and_executable() {
        for (pfn, size, prot, cache) in leaves() {
            let entry = Entry::leaf(pfn, size, prot, cache);
            assert_eq!((entry.allows_write(), entry.allows_execute()), (prot.writable(), prot.executable()));
            for other in PROTS {
                assert_eq!(entry.with_prot(other), Entry::leaf(pfn, size, other, cache));
            }
        }
    }

    #[test]
    fn dirty_and_read_only_never_meet() {
        for (pfn, size, prot, cache) in leaves() {
            let entry = Entry::leaf(pfn, size, prot, cache).0;
            assert_eq!(entry & DIRTY != 0, entry & WRITABLE != 0);
            assert_ne!(entry & ACCESSED, 0);
        }
    }

    #[test]
    fn a_split_large_entry_means_the_same() {
        for (pfn, size, prot, cache) in leaves().filter(|leaf| leaf.1 == Size::Large) {
            let first = Entry::leaf(pfn, size, prot, cache).first_page();
            for page in [0, 1, 511] {
                let small = Entry(first.0 + page * Entry::NEXT_PAGE);
                assert_eq!(small, Entry::leaf(Pfn(pfn.0 + page as u32), Size::Page, prot, cache));
            }
        }
    }

    #[test]
    fn the_cache_bits_select_the_slot_that_holds_the_mode() {
        // Memory types as the PAT register spells them: SDM 3A, table 12-10.
        for (pfn, size, prot, cache) in leaves() {
            let entry = Entry::leaf(pfn, size, prot, cache).0;
            let pat_bit = if size == Size::Page { 7 } else { 12 };
            let slot = (entry >> pat_bit & 1) << 2 | (entry >> 4 & 1) << 1 | (entry >> 3 & 1);
            let kind = match cache {
                CacheMode::Uncached => 0,
                CacheMode::WriteCombining => 1,
                CacheMode::WriteThrough => 4,
                CacheMode::WriteBack => 6,
            };
            assert_eq!(PAT >> (slot * 8) & 0xff, kind, "{cache:?} {size:?}");
        }
    }

    #[test]
    fn a_guard_keeps_its_tag_and_points_above_any_ram() {
        let tags =
            (0..32).flat_map(|bit| [1u32 << bit, (1u32 << bit) - 1, !(1u32 << bit)]).chain([u32::MAX, 0xdead_beef]);
        for tag in tags {
            let guard = Entry::guard(tag);
            assert_eq!(guard.guard_tag(), Some(tag));
            assert!(!guard.is_present() && !guard.is_absent() && !guard.is_table());
            // Whatever width the CPU has, the address it may look at is in the last 2 MiB of it.
            for width in 36..=52 {
                let seen = guard.0 & ADDRESS & ((1 << width) - 1);
                assert!(seen >= (1 << width) - (1 << 21), "{tag:#x} at {width} bits: {seen:#x}");
            }
        }
        assert_eq!(Entry::ABSENT.guard_tag(), None);
    }
}
