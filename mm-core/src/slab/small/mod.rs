//! Slabs where room for code counts most (feature `small`).
//!
//! A cache lists its slabs that have a free slot, and an object is the lowest slot of the first of them. A slab goes back
//! to the buddy when its last object does: nothing is kept, so that nothing has to be taken back when memory is short, at
//! the price of a new slab for each first object. Pages of descriptors are slabs too, with their own descriptor in front.
//!
//! Invariant, under the cache's lock: a slab is listed exactly while it has a free slot, and has one in use, unless
//! somebody is being served who waits.

mod scan;
mod state;

pub use state::CacheState;

use super::{Detached, Geometry, Given, Hooks, Slab, give, meta_size};
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::bits::{WORD_MASK, WORD_SHIFT, Word};
use crate::error::{AllocError, Packed, PackedFree};
use crate::fault::FaultClass;
use crate::frame::{Frame, FrameKind, Head};
use crate::gfp::Gfp;
use crate::lock::{Guard, Locked};
use crate::manager::Mm;
use crate::memory::Memory;
use crate::meta::{META_REACH, NIL};
use crate::platform::{Platform, RawLock};
use crate::wait::Patience;
use core::ops::Deref;
use core::panic::Location;
use core::ptr::NonNull;

/// A cache together with what its operations need.
pub struct Slabs<'a, P: Platform, B: Backend> {
    /// Who takes memory back when it is short.
    pub mm: &'a Mm<P, B>,
    /// All the rest.
    pub store: Store<'a, P, B>,
}

impl<'a, P: Platform, B: Backend> Deref for Slabs<'a, P, B> {
    type Target = Store<'a, P, B>;

    #[inline(always)]
    fn deref(&self) -> &Store<'a, P, B> {
        &self.store
    }
}

/// A cache, but for who takes memory back.
pub struct Store<'a, P: Platform, B: Backend> {
    /// Where the memory comes from.
    pub memory: &'a Memory<P, B>,
    /// How slabs are cut.
    pub geometry: &'a Geometry,
    /// What the lock guards.
    pub state: &'a Locked<P::Lock, CacheState>,
    /// What becomes of objects when a slab is carved, and when it goes back.
    pub hooks: &'a Hooks,
    /// `Slab` for kmalloc's classes, `Meta` for descriptors, `CacheSlab` for the rest.
    pub kind: FrameKind,
    /// The class, the number of the cache, or the size of the descriptors.
    pub owner: u8,
}

impl<P: Platform, B: Backend> Clone for Store<'_, P, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform, B: Backend> Copy for Store<'_, P, B> {}

type State<'a, P> = Guard<'a, <P as Platform>::Lock, CacheState>;

impl<'a, P: Platform, B: Backend> Slabs<'a, P, B> {
    /// The cache with these.
    #[inline(always)]
    pub fn new(
        mm: &'a Mm<P, B>,
        geometry: &'a Geometry,
        state: &'a Locked<P::Lock, CacheState>,
        (kind, owner): (FrameKind, u8),
        hooks: &'a Hooks,
    ) -> Self {
        Slabs { mm, store: Store { memory: &mm.memory, geometry, state, hooks, kind, owner } }
    }

    /// An object of kmalloc's that was just taken; where objects are watched it, or another in its place.
    ///
    /// # Errors
    /// As [`alloc_slab`](Self::alloc_slab), when it was spoilt and there is no other.
    #[inline(always)]
    pub fn checked(
        &self,
        object: NonNull<u8>,
        flags: Gfp,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        #[cfg(feature = "kmalloc-debug")]
        return self.sound(super::KMALLOC, object, flags, caller);
        #[cfg(not(feature = "kmalloc-debug"))]
        {
            let _ = (flags, caller);
            Ok(object)
        }
    }
}

impl<'a, P: Platform, B: Backend> Store<'a, P, B> {
    /// Words are never opened.
    pub const OPENS: bool = false;

    /// An object of a slab that is there already: [`CacheState::take`] has looked at all of them.
    #[inline(always)]
    pub fn advance(&self, _state: &mut CacheState) -> Option<NonNull<u8>> {
        None
    }

    /// Takes an object of any slab there is.
    pub(super) fn any_object(&self, state: &mut CacheState) -> Option<NonNull<u8>> {
        state.take()
    }

    /// An object of a new slab. No lock is held.
    ///
    /// # Errors
    /// `NoMemory`, `NoContig`, `NotReady`.
    pub(super) fn grow(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.object(flags, None).result()
    }

    /// An object of a slab that is made of the caller's block, or, when others gave one back meanwhile, of another. A
    /// descriptor is waited for if the caller has patience. On failure the block goes back.
    pub(super) fn make_slab(
        &self,
        pfn: Pfn,
        flags: Gfp,
        patience: Option<&Patience<'_>>,
    ) -> Result<NonNull<u8>, AllocError> {
        let state = self.stock(pfn, flags, patience)?;
        self.first(state)
    }

    /// The object at `addr` of a live slab of this cache was freed.
    #[cfg_attr(feature = "small", inline(always))]
    pub fn settle(&self, state: State<'_, P>, slab: *mut Slab, _w: usize, _addr: usize) {
        self.given(state, slab);
    }

    /// All of [`settle`](Self::settle).
    #[inline(always)]
    pub fn show_listed(&self, _state: &mut CacheState, _slab: *mut Slab, _w: usize) -> bool {
        true
    }

    /// See [`show_listed`](Self::show_listed).
    #[inline(always)]
    pub fn settle_rest(&self, state: State<'_, P>, slab: *mut Slab) {
        self.given(state, slab);
    }

    /// Behind those who were served: what nobody wanted goes back.
    pub(super) fn served(&self, state: State<'_, P>) {
        if let Some(slab) = self.kept(&state) {
            self.release(state, slab);
        }
    }

    /// Nothing is kept but while somebody who waits is served.
    pub fn detach_kept(&self) -> Option<Detached> {
        None
    }

    /// Nothing is kept.
    pub fn drain(&self) {}

    /// Bytes of an object that are its owner's.
    #[inline(always)]
    pub fn object_size(&self) -> usize {
        #[cfg(feature = "slab-debug")]
        if let Some(guarded) = &self.hooks.guarded {
            return guarded.object;
        }
        self.geometry.size as usize
    }

    #[inline(always)]
    pub(super) fn slab(&self, id: u32) -> *mut Slab {
        self.memory.meta_ptr(id)
    }

    /// An object, of a new slab if there is none; without reclaim. Pages of descriptors are waited for, if the caller has
    /// patience. No lock is held.
    #[inline(never)]
    pub fn object(&self, flags: Gfp, patience: Option<&Patience<'_>>) -> Packed {
        Packed::new(self.object_here(flags, patience))
    }

    #[inline(always)]
    fn object_here(&self, flags: Gfp, patience: Option<&Patience<'_>>) -> Result<NonNull<u8>, AllocError> {
        let mut state = self.state.lock();
        if state.head.is_null() {
            drop(state);
            let pages = self.geometry.pages as usize;
            if self.kind != FrameKind::Meta {
                self.memory.fault_point(FaultClass::Slab)?;
                self.memory.fault_point(FaultClass::Page)?;
            }
            let pfn = match P::CAN_WAIT && self.kind == FrameKind::Meta {
                true => self.memory.take_block_until(pages, flags, FrameKind::Held, NIL, patience)?,
                false => self.memory.take_block_now(pages, flags, FrameKind::Held, NIL)?,
            };
            state = self.stock(pfn, flags, patience)?;
        }
        self.first(state)
    }

    /// The first object there is.
    #[inline(always)]
    fn first(&self, mut state: State<'_, P>) -> Result<NonNull<u8>, AllocError> {
        let object = state.take();
        self.open(state);
        object.ok_or(AllocError::NoMemory)
    }

    /// Makes a slab of the caller's block and a descriptor, and lists it. The lock is held from then on.
    #[inline(always)]
    fn stock(&self, pfn: Pfn, flags: Gfp, patience: Option<&Patience<'_>>) -> Result<State<'a, P>, AllocError> {
        let g = self.geometry;
        let made = if self.kind == FrameKind::Meta {
            // A page above cannot be named.
            let reach = B::PHYS_BITS < META_REACH.ilog2() || (pfn.0 as u64 + 1) << B::PAGE_SHIFT <= META_REACH;
            reach.then(|| self.memory.frame_ptr(pfn)).ok_or(AllocError::NoMemory)
        } else {
            let taken = self.memory.meta_take(meta_size(g.words as usize), flags, patience);
            taken.map(|id| self.memory.meta_ptr(id))
        };
        let slab = match made {
            Ok(slab) => slab.cast::<Slab>(),
            Err(error) => {
                let _ = self.memory.free_block(pfn.0 as usize, FrameKind::Held, None);
                return Err(error);
            }
        };
        #[cfg(feature = "page-owner")]
        if self.kind != FrameKind::Meta {
            self.memory.own_slab(pfn.0, g.slots);
        }
        let first = self.first_slot(pfn);
        // SAFETY: the descriptor is ours alone until it is listed or named by a frame.
        unsafe {
            // A compiler that knows the word calls the library's function for it.
            let full = core::hint::black_box(Word::MAX);
            let last = Slab::words(slab).add(g.words as usize - 1);
            let mut at = Slab::words(slab);
            while at != last {
                *at = full;
                at = at.add(1);
            }
            *last = g.last;
            (*slab).origin = first.addr().get().wrapping_neg();
            (*slab).recip = g.recip;
            (*slab).free = g.slots;
            (*slab).owner = self.owner;
        }
        if self.hooks.prepares() {
            let unfinished = self.detached(slab, pfn.0, &Hooks::NONE).until_constructed(self.memory);
            // SAFETY: nobody else has the slab yet.
            unsafe { self.hooks.construct_all(g, first.as_ptr()) };
            unfinished.finish();
        }
        if self.kind != FrameKind::Meta {
            crate::trace::slab(true, g.size, g.pages, pfn.0);
        }
        let mut state = self.state.lock();
        state.slabs += 1;
        state.size = g.size as usize;
        // Under the lock: from here on a free can find the slab.
        let id = self.memory.meta_id_at(slab.addr());
        let mut head = Head::new(self.kind, self.owner, 0);
        for frame in self.memory.frames.block(pfn, g.marked as usize) {
            frame.set_link(id);
            frame.set_head(head);
            head = head.next();
        }
        // SAFETY: live and unlisted, and the lock is held.
        unsafe { state.link(slab) };
        Ok(state)
    }

    /// Ends a section in which objects came: whoever waits for one is served.
    #[inline(always)]
    fn open(&self, state: State<'_, P>) {
        if state.waited {
            self.hand_over(state);
        }
    }

    /// Gives the slot at `addr` of a live slab of this cache back. The caller locked the cache, and ended no section since.
    ///
    /// # Errors
    /// `Interior`, `DoubleFree`; nothing was changed.
    #[inline(never)]
    pub fn take_back(&self, token: <P::Lock as RawLock>::Token, slab: *mut Slab, addr: usize) -> PackedFree {
        // SAFETY: the caller left the section to this function.
        let state = unsafe { self.state.resume(token) };
        // SAFETY: the slab is live and the lock held; neither a class nor descriptors have room behind the last slot.
        match unsafe { give(slab, addr, None) } {
            Given::Refused(error) => PackedFree::new(Err(error)),
            _ => {
                self.given(state, slab);
                PackedFree::new(Ok(1))
            }
        }
    }

    /// An object of a live slab of this cache was freed.
    #[inline(always)]
    fn given(&self, mut state: State<'_, P>, slab: *mut Slab) {
        // SAFETY: the slab is live, and the lock is held.
        unsafe {
            if (*slab).free == 1 {
                state.link(slab);
            }
        }
        if self.is_free(slab) && !state.waited {
            return self.release(state, slab);
        }
        self.open(state);
    }

    /// True when no slot of the slab is in use.
    pub(super) fn is_free(&self, slab: *mut Slab) -> bool {
        // SAFETY: the slab is live, and the lock is held.
        unsafe { (*slab).free == self.geometry.slots }
    }

    /// The first listed slab if it is wholly free.
    fn kept(&self, state: &CacheState) -> Option<*mut Slab> {
        (!state.head.is_null() && self.is_free(state.head)).then_some(state.head)
    }

    /// Unlists a wholly free slab and gives it back to the buddy.
    #[cold]
    #[inline(never)]
    fn release(&self, mut state: State<'_, P>, slab: *mut Slab) {
        // SAFETY: listed, since it has a free slot, and the lock is held.
        unsafe { state.unlink(slab) };
        state.slabs -= 1;
        let pfn = self.pfn_of(slab);
        let mut head = Head::new(FrameKind::Held, 0, self.geometry.pages.into());
        // Under the lock, so that a second free of one of its objects finds either the slab or none.
        for frame in self.memory.frames.block(pfn, self.geometry.marked as usize) {
            frame.set_head(head);
            head = Head::new(FrameKind::Tail, 0, 0);
        }
        drop(state);
        if self.kind == FrameKind::Meta {
            let _ = self.memory.free_block(pfn.0 as usize, FrameKind::Held, None);
            return;
        }
        self.detached(slab, pfn.0, self.hooks).give(self.memory);
    }

    /// A slab, or what is to become one, that nobody knows of.
    #[cfg_attr(feature = "small", inline(always))]
    fn detached(&self, slab: *mut Slab, pfn: u32, hooks: &Hooks) -> Detached {
        let g = self.geometry;
        let (id, descriptor) = (self.memory.meta_id_at(slab.addr()), meta_size(g.words as usize));
        Detached { id, descriptor, pfn, pages: g.pages, size: g.size, slack: g.slack, slots: g.slots, hooks: *hooks }
    }

    /// The first frame of a live slab, whose cache is locked.
    #[cfg_attr(feature = "small", inline(always))]
    pub(super) fn pfn_of(&self, slab: *mut Slab) -> Pfn {
        // SAFETY: live, and the lock is held.
        let first = unsafe { (*slab).origin }.wrapping_neg() - self.geometry.slack as usize;
        Pfn(self.memory.backend.direct_frame(first) as u32)
    }

    /// Slot 0 of the slab that begins at `pfn`.
    #[inline(always)]
    fn first_slot(&self, pfn: Pfn) -> NonNull<u8> {
        // SAFETY: in the slab's pages, which have a kernel address.
        unsafe { NonNull::new_unchecked(self.memory.frame_ptr(pfn).wrapping_add(self.geometry.slack as usize)) }
    }

    /// True when `addr` is the start of an object in a caller's hands; ``frame`` is the record of its
    /// frame, and `seen` the head it was found with.
    ///
    /// Context: any. Cost: constant.
    pub fn is_live(&self, frame: &Frame, seen: Head, addr: usize) -> bool {
        let _state = self.state.lock();
        if frame.head() != seen {
            return false;
        }
        let offset = addr & (B::PAGE_SIZE - 1) | (seen.count() as usize) << B::PAGE_SHIFT;
        self.geometry.slot(offset).filter(|slot| *slot < self.geometry.slots as usize).is_some_and(|slot| {
            let word = Slab::words(self.slab(frame.link())).wrapping_add(slot >> WORD_SHIFT);
            // SAFETY: the frame names a live descriptor for as long as its head says so, the lock is held, and the
            // slot is one of the slab's.
            unsafe { *word & 1 << (slot & WORD_MASK) == 0 }
        })
    }

    /// True when no object is in a caller's hands: there is no slab.
    pub fn is_idle(&self) -> bool {
        self.state.lock().slabs == 0
    }
}
