//! Descriptors where room for code counts most: they are the objects of slabs of one page, whose own descriptors stand in
//! front of them.

use super::{MetaSize, UNIT, UNIT_SHIFT};
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::error::{AllocError, Packed, PackedFree};
use crate::fault::FaultClass;
use crate::frame::{FrameKind, Head};
use crate::gfp::Gfp;
use crate::lock::Locked;
use crate::memory::Memory;
use crate::platform::{Platform, RawLock};
use crate::slab::{CacheState, Geometry, Slab, Store};
use crate::wait::Patience;

/// Room for a slab's descriptor with a bit for each unit of the largest page.
const LEAD: usize = 2 * UNIT;
const _: () = assert!(size_of::<Slab>() + 4096 / UNIT / 8 <= LEAD);

impl MetaSize {
    /// Descriptors in a page, behind its own.
    pub const fn per_page(self, page_size: usize) -> usize {
        (page_size - LEAD) / self.bytes()
    }

    const fn geometry(self, page_size: usize) -> Geometry {
        Geometry::cut(self.bytes(), 1, self.per_page(page_size), page_size)
    }
}

/// The caches of all sizes.
pub struct MetaPools<L: RawLock> {
    states: [Locked<L, CacheState>; MetaSize::ALL.len()],
}

impl<L: RawLock> MetaPools<L> {
    /// No pages.
    pub const fn new() -> Self {
        MetaPools { states: [const { Locked::new(CacheState::new()) }; MetaSize::ALL.len()] }
    }
}

impl<P: Platform, B: Backend> Memory<P, B> {
    const CUTS: &'static [Geometry; MetaSize::ALL.len()] = &[
        MetaSize::Small.geometry(B::PAGE_SIZE),
        MetaSize::Large.geometry(B::PAGE_SIZE),
        MetaSize::Control.geometry(B::PAGE_SIZE),
    ];

    #[inline(always)]
    fn meta_store(&self, size: MetaSize) -> Store<'_, P, B> {
        Store { memory: self, state: &self.meta.states[size as usize] }
    }

    /// Says how pages of descriptors are cut; called once, by `init`.
    pub(crate) fn set_up_meta(&self) {
        for (size, geometry) in Self::CUTS.iter().enumerate() {
            // SAFETY: a constant.
            unsafe { self.meta.states[size].lock().set_up(geometry, FrameKind::Meta, size as u8) };
        }
    }

    /// True when `id`, which may be anything, is where a descriptor of `size` can be: for the scan, so that a record
    /// that was damaged is told and not followed.
    #[cold]
    pub(crate) fn is_meta(&self, id: u32, size: MetaSize) -> bool {
        let (page, unit) = (id >> (B::PAGE_SHIFT - UNIT_SHIFT), id & ((1 << (B::PAGE_SHIFT - UNIT_SHIFT)) - 1));
        let head = Head::new(FrameKind::Meta, size as u8, 0);
        let marked = self.frames.frame(Pfn(page)).is_some_and(|frame| frame.head() == head);
        marked && Self::CUTS[size as usize].slot((unit << UNIT_SHIFT) as usize).is_some()
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
        self.descriptor(size, flags, patience).result().map(|at| self.meta_id_at(at.addr().get()))
    }

    /// [`meta_take`](Self::meta_take), and where it is.
    #[inline(always)]
    pub(crate) fn descriptor(&self, size: MetaSize, flags: Gfp, patience: Option<&Patience<'_>>) -> Packed {
        if let Err(error) = self.fault_point(FaultClass::Descriptor) {
            return Packed::new(Err(error));
        }
        self.meta_store(size).object(flags.own(), patience)
    }

    /// Gives a live descriptor back; its page goes back too when it is empty.
    pub(crate) fn meta_give(&self, id: u32, size: MetaSize) {
        let _ = self.meta_give_at(self.meta_ptr(id), size);
    }

    /// [`meta_give`](Self::meta_give), by where it is. Returns what it did as [`Store::take_back`] does.
    #[inline(always)]
    pub(crate) fn meta_give_at(&self, at: *mut u8, size: MetaSize) -> PackedFree {
        let page = at.map_addr(|addr| addr & !(B::PAGE_SIZE - 1));
        let token = self.meta_store(size).state.lock().suspend();
        // SAFETY: the descriptor is live, and so is the slab of its page, whose cache was just locked.
        unsafe { Store::take_back(self, token, page.cast(), at.addr()) }
    }

    /// Nothing is kept.
    pub(crate) fn meta_drain(&self) {}

    /// How many descriptors of a page are in use, for the scan.
    pub(crate) fn meta_used(&self, pfn: u32, size: MetaSize) -> usize {
        let store = self.meta_store(size);
        let _lock = store.state.lock();
        let slab = self.frame_ptr(Pfn(pfn)).cast::<Slab>();
        // SAFETY: the caller found the page marked as one of descriptors; the lock is held.
        usize::from(Self::CUTS[size as usize].slots) - unsafe { Slab::free(slab) } as usize
    }
}
