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

use state::Cut;
pub use state::{CacheState, OpenWord};

use super::{ClassHooks, Detached, Geometry, Given, Hooks, Slab, give};
use crate::addr::Pfn;
use crate::backend::Backend;
use crate::bits::Word;
use crate::cache::Control;
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
use core::ptr::NonNull;

/// A cache together with what its operations need.
pub struct Slabs<'a, P: Platform, B: Backend> {
    /// Who takes memory back when it is short.
    pub mm: &'a Mm<P, B>,
    /// What most operations do with.
    pub store: Store<'a, P, B>,
    /// How slabs are cut.
    pub geometry: &'a Geometry,
    /// `Slab` for kmalloc's classes, `CacheSlab` for the rest.
    pub kind: FrameKind,
    /// The class, or the number of the cache.
    pub owner: u8,
    /// What becomes of objects when a slab is carved, and when it goes back.
    #[cfg_attr(not(feature = "slab-debug"), allow(dead_code))]
    pub hooks: &'a Hooks,
}

impl<'a, P: Platform, B: Backend> Deref for Slabs<'a, P, B> {
    type Target = Store<'a, P, B>;

    #[inline(always)]
    fn deref(&self) -> &Store<'a, P, B> {
        &self.store
    }
}

/// A cache by its state, which knows all but where memory comes from.
pub struct Store<'a, P: Platform, B: Backend> {
    /// Where the memory comes from.
    pub memory: &'a Memory<P, B>,
    /// What the lock guards.
    pub state: &'a Locked<P::Lock, CacheState>,
}

impl<P: Platform, B: Backend> Clone for Store<'_, P, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform, B: Backend> Copy for Store<'_, P, B> {}

type State<'a, P> = Guard<'a, <P as Platform>::Lock, CacheState>;

impl<'a, P: Platform, B: Backend> Slabs<'a, P, B> {
    /// The cache with these, whose state is set up.
    #[inline(always)]
    pub fn new(
        mm: &'a Mm<P, B>,
        geometry: &'a Geometry,
        state: &'a Locked<P::Lock, CacheState>,
        (kind, owner): (FrameKind, u8),
        hooks: &'a Hooks,
    ) -> Self {
        Slabs { mm, store: Store { memory: &mm.memory, state }, geometry, kind, owner, hooks }
    }

    /// How many pages whoever waits for memory waits for.
    pub fn waited_pages(&self) -> usize {
        self.geometry.pages.into()
    }

    /// The first frame of a live slab, whose cache is locked.
    pub(super) fn pfn_of(&self, slab: *mut Slab) -> Pfn {
        self.pfn_by(self.geometry, slab)
    }
}

impl<'a, P: Platform, B: Backend> Store<'a, P, B> {
    /// No words are opened.
    pub const OPENS: bool = false;

    /// An object of a slab that is there already: [`CacheState::take`] has looked at all of them.
    #[inline(always)]
    pub fn advance(&self, _state: &mut CacheState) -> Option<NonNull<u8>> {
        None
    }

    /// See [`advance`](Self::advance).
    #[inline(always)]
    pub fn next_word(&self, _state: &mut CacheState) -> Option<NonNull<u8>> {
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

    /// [`grow`](Self::grow): slabs are single pages already, and nothing smaller could stand in for one.
    #[inline(always)]
    pub(super) fn grow_or_spare(&self, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.grow(flags)
    }

    /// [`make_slab`](Self::make_slab), which needs no other way for pages that were waited for.
    pub(super) fn make_waited(
        &self,
        pfn: Pfn,
        flags: Gfp,
        patience: Option<&Patience<'_>>,
    ) -> Result<NonNull<u8>, AllocError> {
        self.make_slab(pfn, flags, patience)
    }

    /// An object of a slab that is made of the caller's block, or, when others gave one back meanwhile, of another. A
    /// descriptor is waited for if the caller has patience. On failure the block goes back.
    pub(super) fn make_slab(
        &self,
        pfn: Pfn,
        flags: Gfp,
        patience: Option<&Patience<'_>>,
    ) -> Result<NonNull<u8>, AllocError> {
        let cut = self.state.lock().cut();
        let (state, slab) = self.stock(cut, pfn, flags, patience).map_err(Packed::error)?;
        Ok(self.first(state, slab))
    }

    #[inline(always)]
    pub(super) fn slab(&self, id: u32) -> *mut Slab {
        self.memory.meta_ptr(id)
    }

    /// An object, of a new slab if there is none; without reclaim. Pages of descriptors are waited for, if the caller has
    /// patience. No lock is held.
    #[inline(never)]
    pub fn object(self, flags: Gfp, patience: Option<&Patience<'_>>) -> Packed {
        self.object_here(flags, patience).unwrap_or_else(|error| error)
    }

    #[inline(always)]
    fn object_here(&self, flags: Gfp, patience: Option<&Patience<'_>>) -> Result<Packed, Packed> {
        let failed = |error| Packed::new(Err(error));
        let mut state = self.state.lock();
        let mut slab = state.head;
        if slab.is_null() {
            let cut = state.cut();
            drop(state);
            let pages = cut.geometry().pages as usize;
            let is_meta = cut.head.is(FrameKind::Meta);
            if !is_meta {
                self.memory.fault_point(FaultClass::Slab).map_err(failed)?;
                self.memory.fault_point(FaultClass::Page).map_err(failed)?;
            }
            let pfn = match P::CAN_WAIT && is_meta {
                true => self.memory.take_block_until(pages, flags, FrameKind::Held, NIL, patience).map_err(failed)?,
                false => self.memory.take_by_depth(pages, flags, FrameKind::Held, NIL).or_failed()?,
            };
            (state, slab) = self.stock(cut, pfn, flags, patience)?;
        }
        Ok(Packed::new(Ok(self.first(state, slab))))
    }

    /// The first object of the slab that is listed first.
    #[inline(always)]
    fn first(&self, mut state: State<'a, P>, slab: *mut Slab) -> NonNull<u8> {
        // SAFETY: listed first, and the lock is held.
        let object = unsafe { state.take_of(slab) };
        self.open(state);
        object
    }

    /// Makes a slab of the caller's block and a descriptor, and lists it first. The lock is held from then on.
    #[inline(always)]
    fn stock(
        &self,
        cut: Cut,
        pfn: Pfn,
        flags: Gfp,
        patience: Option<&Patience<'_>>,
    ) -> Result<(State<'a, P>, *mut Slab), Packed> {
        let g = cut.geometry();
        let is_meta = cut.head.is(FrameKind::Meta);
        let made = if is_meta {
            // A page above cannot be named.
            let reach = B::PHYS_BITS < META_REACH.ilog2() || (pfn.0 as u64 + 1) << B::PAGE_SHIFT <= META_REACH;
            Packed::new(reach.then(|| self.block(pfn)).ok_or(AllocError::NoMemory))
        } else {
            self.memory.descriptor(g.descriptor, flags, patience)
        };
        let Some(slab) = made.memory() else {
            let _ = self.memory.free_block(pfn.0 as usize, FrameKind::Held, None);
            return Err(made);
        };
        let slab = slab.as_ptr().cast::<Slab>();
        #[cfg(feature = "page-owner")]
        if !is_meta {
            self.memory.own_slab(pfn.0, g.slots);
        }
        let first = self.block(pfn).as_ptr().wrapping_add(g.slack as usize);
        // SAFETY: the descriptor is ours alone until it is listed or named by a frame.
        unsafe {
            let words = Slab::words(slab);
            let (mut at, mut word) = (words.add(g.words as usize), g.last);
            loop {
                at = at.sub(1);
                // Else a compiler calls the library's function for it.
                at.write_volatile(word);
                if at == words {
                    break;
                }
                word = Word::MAX;
            }
            (*slab).origin = first.addr().wrapping_neg();
            (*slab).state = self.state.value();
            (*slab).free = g.slots.into();
        }
        if let Some(hooks) = self.hooks(&cut)
            && hooks.prepares()
        {
            let unfinished = self.detached(&cut, slab, pfn.0).until_constructed(self.memory);
            // SAFETY: nobody else has the slab yet.
            unsafe { hooks.construct_all(g, first) };
            unfinished.finish();
        }
        if !is_meta {
            crate::trace::slab(true, g.size, g.pages, pfn.0);
        }
        let mut state = self.state.lock();
        state.slabs += 1;
        // Under the lock: from here on a free can find the slab.
        let id = self.memory.meta_id_at(slab.addr());
        self.mark(g, pfn, cut.head, |frame, head| {
            frame.set_link(id);
            head.next()
        });
        // SAFETY: live and unlisted, and the lock is held.
        unsafe { state.link(slab) };
        Ok((state, slab))
    }

    /// Marks the frames of a slab: the first with `head`, each further one with what `next` says of the one before. Nearly
    /// all slabs have one.
    #[inline(always)]
    fn mark(&self, g: &Geometry, pfn: Pfn, mut head: Head, next: impl Fn(&Frame, Head) -> Head) {
        // Only watched objects are cut of more, since all others that are longer are alone in their slab.
        let marked = if cfg!(feature = "slab-debug") { g.marked as u32 } else { 1 };
        for i in 0..marked {
            if let Some((_, frame)) = self.memory.frames.find((pfn.0 + i) as usize) {
                frame.set_head(head);
                head = next(frame, head);
            }
        }
    }

    /// Ends a section in which objects came: whoever waits for one is served.
    #[inline(always)]
    fn open(&self, state: State<'a, P>) {
        if let Some(servants) = self.memory.servants() {
            // SAFETY: the section is left to it.
            unsafe { (servants.cache)(*self, state.suspend()) }
        }
    }

    /// Gives the slot at `addr` of a live slab back; a slab that is wholly free goes back to the buddy, and its
    /// descriptor the same way.
    ///
    /// # Errors
    /// `Interior`, `DoubleFree`; nothing was changed.
    ///
    /// # Safety
    /// The slab is live, and the caller locked its cache, and ended no section since.
    pub unsafe fn take_back(
        memory: &'a Memory<P, B>,
        token: <P::Lock as RawLock>::Token,
        slab: *mut Slab,
        addr: usize,
    ) -> PackedFree {
        // SAFETY: the slab is live, and so its cache is, as long as the manager if it is a class or of descriptors.
        let store = Store { memory, state: unsafe { Locked::around((*slab).state) } };
        // SAFETY: the caller left the section to this function.
        let state = unsafe { store.state.resume(token) };
        // SAFETY: the slab is live and the lock held; neither a class nor descriptors have room behind the last slot.
        match unsafe { give(slab, addr, None) } {
            Given::Refused(error) => PackedFree::new(Err(error)),
            _ => store.given(state, slab),
        }
    }

    /// The object at `addr` of a live slab of this cache was freed.
    #[cfg_attr(feature = "small", inline(always))]
    pub fn settle(&self, state: State<'a, P>, slab: *mut Slab, _w: usize, _addr: usize) {
        let _ = self.given(state, slab);
    }

    /// An object of a live slab of this cache was freed. Returns what [`take_back`](Self::take_back) does, as what is called
    /// last, so that it needs no calls.
    #[inline(always)]
    fn given(self, mut state: State<'a, P>, slab: *mut Slab) -> PackedFree {
        // SAFETY: the slab is live, and the lock is held.
        unsafe {
            if (*slab).free == 1 {
                state.link(slab);
            }
        }
        // Where another slab is listed nobody waits for an object, and who waits for pages is served when this one goes.
        // SAFETY: as above.
        let alone = state.head == slab && unsafe { (*slab).next.is_null() };
        if (alone || !state.is_free(slab))
            && let Some(servants) = self.memory.servants()
        {
            // SAFETY: as above.
            unsafe { (servants.cache)(self, state.suspend()) };
            return PackedFree::new(Ok(1));
        }
        self.leave(state.suspend(), slab)
    }

    /// Behind those who were served: what nobody wanted goes back. A slab that is wholly free is listed first, whatever was
    /// freed meanwhile.
    pub(super) fn served(self, state: State<'a, P>) {
        let slab = state.head;
        if !slab.is_null() {
            let _ = self.leave(state.suspend(), slab);
        }
    }

    /// Ends a section behind a free: a slab of this cache that is wholly free is unlisted and goes back to the buddy. The
    /// caller locked the cache, and ended no section since.
    #[inline]
    fn leave(self, token: <P::Lock as RawLock>::Token, slab: *mut Slab) -> PackedFree {
        // SAFETY: the caller left the section to this function.
        let mut state = unsafe { self.state.resume(token) };
        if !state.is_free(slab) {
            return PackedFree::new(Ok(1));
        }
        // SAFETY: listed, since it has a free slot, and the lock is held.
        unsafe { state.unlink(slab) };
        state.slabs -= 1;
        let cut = state.cut();
        let (g, first) = (cut.geometry(), self.first_of(slab));
        let pfn = self.pfn_by(g, slab);
        // Under the lock, so that a second free of one of its objects finds either the slab or none.
        self.mark(g, pfn, Head::new(FrameKind::Held, 0, g.pages.into()), |_, _| Head::new(FrameKind::Tail, 0, 0));
        drop(state);
        if let Some(hooks) = self.hooks(&cut) {
            // SAFETY: what has a destructor was constructed, and no cache has the slab any more.
            unsafe { hooks.destroy_all(first, g.size as usize, g.slots as usize) };
        }
        if !cut.head.is(FrameKind::Meta) {
            self.detached(&cut, slab, pfn.0).told(self.memory);
        }
        let (memory, size) = (self.memory, g.descriptor);
        let _ = memory.free_block(pfn.0 as usize, FrameKind::Held, None);
        if cut.head.is(FrameKind::Meta) {
            return PackedFree::new(Ok(1));
        }
        memory.meta_give_at(slab.cast(), size)
    }

    /// What is done to objects, if there may be anything.
    #[inline(always)]
    fn hooks(&self, cut: &Cut) -> Option<&'a Hooks> {
        if cut.head.is(FrameKind::CacheSlab) {
            // SAFETY: so it was set up, and a cache that has a slab, or is to have one, lives.
            return Some(unsafe { Control::<P>::hooks_of(cut.geometry) });
        }
        let watched = cfg!(feature = "kmalloc-debug") && cut.head.is(FrameKind::Slab);
        watched.then(|| ClassHooks::<B>::of(cut.head.class()))
    }

    /// A slab, or what is to become one, that nobody knows of.
    #[inline(always)]
    fn detached(&self, cut: &Cut, slab: *mut Slab, pfn: u32) -> Detached {
        let g = cut.geometry();
        let (id, descriptor) = (self.memory.meta_id_at(slab.addr()), g.descriptor);
        let hooks = Hooks::NONE;
        Detached { id, descriptor, pfn, pages: g.pages, size: g.size, slack: g.slack, slots: g.slots, hooks }
    }

    /// The first frame of a live slab that is cut so, whose cache is locked.
    #[inline(always)]
    pub(super) fn pfn_by(&self, geometry: &Geometry, slab: *mut Slab) -> Pfn {
        let first = self.first_of(slab).addr() - geometry.slack as usize;
        Pfn(self.memory.backend.direct_frame(first) as u32)
    }

    /// Slot 0 of a live slab, whose cache is locked.
    #[inline(always)]
    fn first_of(&self, slab: *mut Slab) -> *mut u8 {
        // SAFETY: live, and the lock is held. Both lie in memory that is reached through the same mapping.
        slab.cast::<u8>().with_addr(unsafe { (*slab).origin }.wrapping_neg())
    }

    /// A block that was taken.
    #[inline(always)]
    fn block(&self, pfn: Pfn) -> NonNull<u8> {
        // SAFETY: pages that have a kernel address, which is not that of page 0.
        unsafe { NonNull::new_unchecked(self.memory.frame_ptr(pfn)) }
    }

    /// Nothing is kept but while somebody who waits is served.
    pub fn detach_kept(&self) -> Option<Detached> {
        None
    }

    /// Nothing is kept.
    pub fn drain(&self) {}

    /// True when no object is in a caller's hands: there is no slab.
    pub fn is_idle(&self) -> bool {
        self.state.lock().slabs == 0
    }
}
