//! Pages of descriptors, by size. A pool keeps a page without a descriptor in use, so that the next one finds it.

use super::{META_REACH, MetaSize, NIL, UNIT, UNIT_SHIFT};
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::bits::{WORD_MASK, WORD_SHIFT, Word, lowest};
use crate::error::AllocError;
use crate::fault::FaultClass;
use crate::frame::{FrameKind, Head};
use crate::gfp::Gfp;
use crate::lock::Locked;
use crate::memory::Memory;
use crate::platform::{Platform, RawLock};
use crate::wait::Patience;

impl MetaSize {
    /// Descriptors in a page, after its header.
    pub const fn per_page(self, page_size: usize) -> usize {
        let n = (page_size - size_of::<Page>()) / self.bytes();
        if n > SLOTS { SLOTS } else { n }
    }
}

/// The units of the largest page; those of any page but its header have a bit.
const SLOTS: usize = 128;
const BITMAP_WORDS: usize = SLOTS >> WORD_SHIFT;
type Bitmap = [Word; BITMAP_WORDS];

/// The header of a page of descriptors.
#[repr(C, align(32))]
struct Page {
    /// By the first unit of a free descriptor, counted from behind the header.
    free: Bitmap,
    next: u32,
    prev: u32,
    /// How many are in use.
    used: u32,
}

const _: () = assert!(size_of::<Page>() == UNIT);

/// The pages of one size that have a free descriptor.
struct Pool {
    head: u32,
}

/// The pools of all sizes.
pub struct MetaPools<L: RawLock> {
    pools: [Locked<L, Pool>; MetaSize::ALL.len()],
}

impl<L: RawLock> MetaPools<L> {
    /// No pages.
    pub const fn new() -> Self {
        MetaPools { pools: [const { Locked::new(Pool { head: NIL }) }; MetaSize::ALL.len()] }
    }
}

impl Page {
    fn fill(&mut self, free: &Bitmap) {
        for (word, all) in self.free.iter_mut().zip(free) {
            *word = *all;
        }
        self.used = 0;
    }

    fn take(&mut self) -> Option<usize> {
        let (i, word) = self.free.iter_mut().enumerate().find(|(_, w)| **w != 0)?;
        let bit = lowest(*word);
        *word &= *word - 1;
        self.used += 1;
        Some((i << WORD_SHIFT) + bit)
    }

    fn give(&mut self, unit: usize) {
        self.free[(unit >> WORD_SHIFT) % BITMAP_WORDS] |= 1 << (unit & WORD_MASK);
        self.used -= 1;
    }

    fn is_unused(&self) -> bool {
        self.used == 0
    }

    fn is_used_up(&self, slots: u8) -> bool {
        self.used == slots.into()
    }
}

/// How the pages of a size are cut.
struct Cut {
    /// All descriptors free.
    free: Bitmap,
    /// How many there are.
    slots: u8,
}

impl Cut {
    const fn of(size: MetaSize, page_size: usize) -> Cut {
        let mut cut = Cut { free: [0; BITMAP_WORDS], slots: size.per_page(page_size) as u8 };
        let mut unit = 0;
        while unit < cut.slots as usize * (size.bytes() >> UNIT_SHIFT) {
            cut.free[unit >> WORD_SHIFT] |= 1 << (unit & WORD_MASK);
            unit += size.bytes() >> UNIT_SHIFT;
        }
        cut
    }
}

impl<P: Platform, B: Backend> Memory<P, B> {
    const CUTS: &'static [Cut; MetaSize::ALL.len()] = &[
        Cut::of(MetaSize::Small, B::PAGE_SIZE),
        Cut::of(MetaSize::Large, B::PAGE_SIZE),
        Cut::of(MetaSize::Control, B::PAGE_SIZE),
    ];

    /// True when `id`, which may be anything, is where a descriptor of `size` can be: for the scan, so that a record
    /// that was damaged is told and not followed.
    #[cold]
    pub(crate) fn is_meta(&self, id: u32, size: MetaSize) -> bool {
        let (page, unit) = (id >> (B::PAGE_SHIFT - UNIT_SHIFT), id & ((1 << (B::PAGE_SHIFT - UNIT_SHIFT)) - 1));
        let (step, slots) = (size.bytes() as u32 >> UNIT_SHIFT, size.per_page(B::PAGE_SIZE) as u32);
        let (slot, rest) = (unit.wrapping_sub(1) / step, unit.wrapping_sub(1) % step);
        let marked =
            self.frames.frame(Pfn(page)).is_some_and(|frame| frame.head() == Head::new(FrameKind::Meta, size as u8, 1));
        marked && slot < slots && rest == 0
    }

    #[inline]
    fn meta_page(&self, pfn: u32) -> *mut Page {
        self.frame_ptr(Pfn(pfn)).cast()
    }

    /// Takes a descriptor for a request with `flags`, with undefined contents; waits for a page, if the
    /// caller has patience.
    ///
    /// Context: any. Cost: constant, plus a page when all pages are used up.
    ///
    /// # Errors
    /// `NoMemory`.
    #[inline]
    pub(crate) fn meta_take(
        &self,
        size: MetaSize,
        flags: Gfp,
        patience: Option<&Patience<'_>>,
    ) -> Result<u32, AllocError> {
        self.fault_point(FaultClass::Descriptor)?;
        let cut = &Self::CUTS[size as usize];
        let mut pool = self.meta.pools[size as usize].lock();
        if pool.head == NIL {
            drop(pool);
            let own = flags.own();
            let pfn = match P::CAN_WAIT {
                true => self.take_block_until(1, own, FrameKind::Meta, 0, patience)?.0,
                false => self.take_block_now(1, own, FrameKind::Meta, 0)?.0,
            };
            if B::PHYS_BITS >= META_REACH.ilog2() && (pfn as u64 + 1) << B::PAGE_SHIFT > META_REACH {
                // A page above cannot be named.
                let _ = self.free_block(pfn as usize, FrameKind::Meta, Some(1));
                return Err(AllocError::NoMemory);
            }
            if let Some(frame) = self.frames.frame(Pfn(pfn)) {
                frame.set_head(Head::new(FrameKind::Meta, size as u8, 1));
            }
            pool = self.meta.pools[size as usize].lock();
            // SAFETY: the page is this pool's alone, and nobody else can see it yet.
            unsafe { (*self.meta_page(pfn)).fill(&cut.free) };
            self.meta_link(&mut pool, pfn);
        }
        let pfn = pool.head;
        // SAFETY: listed pages are the pool's, and its lock is held.
        let (unit, used_up) = unsafe { ((*self.meta_page(pfn)).take(), (*self.meta_page(pfn)).is_used_up(cut.slots)) };
        let Some(unit) = unit else { return Err(AllocError::NoMemory) };
        if used_up {
            self.meta_unlink(&mut pool, pfn);
        }
        Ok((pfn << (B::PAGE_SHIFT - UNIT_SHIFT)) + 1 + unit as u32)
    }

    /// Gives a live descriptor back; its page goes back too when it is empty, and not the only one or waited for.
    pub(crate) fn meta_give(&self, id: u32, size: MetaSize) {
        let pfn = id >> (B::PAGE_SHIFT - UNIT_SHIFT);
        let unit = (id & ((1 << (B::PAGE_SHIFT - UNIT_SHIFT)) - 1)) as usize - 1;
        let mut pool = self.meta.pools[size as usize].lock();
        let slots = Self::CUTS[size as usize].slots;
        let page = self.meta_page(pfn);
        let mut spare = NIL;
        // SAFETY: the descriptor is live, so its page is the pool's, as listed pages are, and the lock is held; no
        // reference to a page lives while its links are written.
        unsafe {
            if (*page).is_used_up(slots) {
                // A wholly free page is kept only while it is the only one listed. (This one is wholly free at once when it
                // holds a single descriptor: then it is this one that goes.)
                if slots != 1 && pool.head != NIL && (*self.meta_page(pool.head)).is_unused() {
                    spare = pool.head;
                    self.meta_unlink(&mut pool, spare);
                }
                self.meta_link(&mut pool, pfn);
            }
            (*page).give(unit);
            let only = pool.head == pfn && (*page).next == NIL && !self.waiting.is_any();
            if (*page).is_unused() && !only {
                self.meta_unlink(&mut pool, pfn);
                spare = pfn;
            }
        }
        drop(pool);
        if spare != NIL {
            let _ = self.free_block(spare as usize, FrameKind::Meta, Some(1));
        }
    }

    fn meta_link(&self, pool: &mut Pool, pfn: u32) {
        let next = core::mem::replace(&mut pool.head, pfn);
        // SAFETY: both pages are the pool's, and its lock is held.
        unsafe {
            (*self.meta_page(pfn)).next = next;
            (*self.meta_page(pfn)).prev = NIL;
            if next != NIL {
                (*self.meta_page(next)).prev = pfn;
            }
        }
    }

    fn meta_unlink(&self, pool: &mut Pool, pfn: u32) {
        // SAFETY: the page and its neighbours are the pool's, and its lock is held.
        unsafe {
            let (next, prev) = ((*self.meta_page(pfn)).next, (*self.meta_page(pfn)).prev);
            if next != NIL {
                (*self.meta_page(next)).prev = prev;
            }
            match prev {
                NIL => pool.head = next,
                prev => (*self.meta_page(prev)).next = next,
            }
        }
    }

    /// Gives back the empty page each pool keeps.
    pub(crate) fn meta_drain(&self) {
        for pool in &self.meta.pools {
            let mut pool = pool.lock();
            let pfn = pool.head;
            // SAFETY: listed pages are the pool's, and its lock is held.
            if pfn != NIL && unsafe { (*self.meta_page(pfn)).is_unused() } {
                self.meta_unlink(&mut pool, pfn);
                drop(pool);
                let _ = self.free_block(pfn as usize, FrameKind::Meta, Some(1));
            }
        }
    }

    /// How many descriptors of a page are in use, for the scan.
    pub(crate) fn meta_used(&self, pfn: u32, size: MetaSize) -> usize {
        let _pool = self.meta.pools[size as usize].lock();
        // SAFETY: the caller found the page marked as one of descriptors; the lock is held.
        unsafe { (*self.meta_page(pfn)).used as usize }
    }
}
