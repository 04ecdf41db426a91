//! kmalloc: objects of any size, from slabs by class or whole pages.

#[cfg(not(feature = "small"))]
mod edge;
mod free;

use crate::addr::Pfn;
use crate::backend::Backend;
use crate::bits::rarely;
use crate::debug::ON_ALLOC;
use crate::error::{AllocError, FreeError, Packed};
use crate::fault::FaultClass;
use crate::frame::FrameKind;
use crate::gfp::Gfp;
use crate::lock::Locked;
use crate::manager::Mm;
use crate::memory::wipe;
use crate::meta::NIL;
use crate::platform::{Platform, RawLock};
use crate::slab::{CacheState, ClassStates, ClassTable, MAX_CLASSES, OpenWord, Store};
use core::panic::Location;
use core::ptr::NonNull;

/// One way for every request, instead of a short one for most beside it.
const STRAIGHT: bool = cfg!(feature = "small");

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Allocates `size` bytes, as Linux's `kmalloc`.
    ///
    /// The object is aligned to the largest power of two that divides `size` (a power of two to itself) and to 8
    /// bytes at least. Its contents are undefined unless the flags hold `ZERO`. Sizes up to a page come from slabs of
    /// their class (of a larger one, when all free memory is in pieces too small for a slab), larger ones from
    /// exactly as many pages. `DMA` and `DMA32` requests are served from slabs of their own in whole cache lines, which they
    /// share with nothing; `HIGHMEM` is ignored, since the memory must have an address.
    ///
    /// Context: any; a task when the flags hold `WAIT`. Cost: some ten instructions while the class has a free
    /// object; a new slab adds a block of pages.
    ///
    /// # Errors
    /// `ZeroSize` for 0, `TooBig` above the largest block, `BadFlags`, `NoMemory`, `NoContig`, `NotReady`.
    #[inline]
    #[track_caller]
    pub fn kmalloc(&self, size: usize, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.made_object(self.kmalloc_at(size, flags, Location::caller()), size, flags, Location::caller())
    }

    #[inline(always)]
    fn kmalloc_at(
        &self,
        size: usize,
        flags: Gfp,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        let (table, flags) = (ClassTable::<B>::TABLE, flags.union(ON_ALLOC));
        // What is watched is looked at there.
        let watched = cfg!(feature = "kmalloc-debug");
        if STRAIGHT || watched || flags.bits() & !Gfp::PLAIN.bits() != 0 || size.wrapping_sub(1) >= table.largest {
            return self.kmalloc_other(size, flags, caller);
        }
        // (size + 7) / 8, by way of what was just compared.
        self.kmalloc_class(table.of[((size - 1) >> 3) + 1] as usize, flags, caller)
    }

    /// An object of a class. Reports a may-wait flag where waiting is impossible.
    #[inline(always)]
    fn kmalloc_class(
        &self,
        class: usize,
        flags: Gfp,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        if Self::KEEPS {
            return self.take_own(class, flags, caller);
        }
        if STRAIGHT {
            // The caller has asked `admit`.
            return self.class(class).ok_or(AllocError::NotReady)?.alloc(flags);
        }
        // SAFETY: the class of a size in the table.
        let Some(state) = (unsafe { self.classes.get(class) }) else {
            rarely();
            return Err(self.memory.admit(flags, caller).err().unwrap_or(AllocError::NotReady));
        };
        let mut held = state.lock();
        let Some(object) = held.take() else {
            rarely();
            let token = held.suspend();
            return match Store::<P, B>::OPENS {
                true => self.kmalloc_open(token, state, flags, class, caller).result(),
                false => self.kmalloc_next(token, state, flags, class, caller).result(),
            };
        };
        let masked = held.was_masked();
        drop(held);
        Ok(self.memory.told(object, flags, masked, caller))
    }

    /// The current word of a class is used up.
    #[inline(never)]
    fn kmalloc_open(
        &self,
        token: <P::Lock as RawLock>::Token,
        held: &Locked<P::Lock, CacheState>,
        flags: Gfp,
        class: usize,
        caller: &'static Location<'static>,
    ) -> Packed {
        // SAFETY: `kmalloc_class` locked the state of this class, and left its section to this function.
        let mut state = unsafe { held.resume(token) };
        let object = match state.take_open() {
            Ok(object) => object,
            Err(Some(word)) => return self.kmalloc_word(state.suspend(), held, flags, word, caller),
            Err(None) => return self.kmalloc_next(state.suspend(), held, flags, class, caller),
        };
        let masked = state.was_masked();
        drop(state);
        Packed::new(Ok(self.memory.told(object, flags, masked, caller)))
    }

    /// The word that was opened last has several free slots.
    #[inline(never)]
    fn kmalloc_word(
        &self,
        token: <P::Lock as RawLock>::Token,
        state: &Locked<P::Lock, CacheState>,
        flags: Gfp,
        word: OpenWord,
        caller: &'static Location<'static>,
    ) -> Packed {
        // SAFETY: `kmalloc_open` left the section of this state to this function.
        let mut state = unsafe { state.resume(token) };
        let object = state.take_first(word);
        let masked = state.was_masked();
        drop(state);
        Packed::new(Ok(self.memory.told(object, flags, masked, caller)))
    }

    /// The class has no open word.
    #[inline(never)]
    fn kmalloc_next(
        &self,
        token: <P::Lock as RawLock>::Token,
        held: &Locked<P::Lock, CacheState>,
        flags: Gfp,
        class: usize,
        caller: &'static Location<'static>,
    ) -> Packed {
        // SAFETY: the caller locked the state of this class.
        let slabs = unsafe { self.class_of(class, held) };
        // SAFETY: it left its section to this function.
        let mut state = unsafe { slabs.state.resume(token) };
        let Some(object) = slabs.next_word(&mut state) else {
            drop(state);
            return self.kmalloc_grow(class, flags, caller);
        };
        let masked = state.was_masked();
        drop(state);
        Packed::new(Ok(self.memory.told(object, flags, masked, caller)))
    }

    /// A class has no free object.
    #[cold]
    #[inline(never)]
    pub(crate) fn kmalloc_grow(&self, class: usize, flags: Gfp, caller: &'static Location<'static>) -> Packed {
        Packed::new(self.memory.admit(flags, caller).and_then(|flags| {
            let slabs = self.class(class).ok_or(AllocError::NotReady)?;
            slabs.alloc_slab(flags, None)
        }))
    }

    /// Special flags, zero, and sizes above the largest class.
    #[cfg_attr(feature = "small", inline)]
    #[cfg_attr(not(feature = "small"), inline(never))]
    pub(crate) fn kmalloc_other(
        &self,
        size: usize,
        flags: Gfp,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        if Self::OBTAINS {
            return self.kmalloc_obtain(size, flags, caller).result();
        }
        let flags = self.memory.admit(flags, caller)?.difference(Gfp::HIGHMEM);
        if size == 0 {
            return Err(AllocError::ZeroSize);
        }
        let table = ClassTable::<B>::TABLE;
        let for_device = flags.intersects(Gfp::DMA.union(Gfp::DMA32));
        if for_device && !STRAIGHT {
            return self.kmalloc_dma(size, flags, caller);
        }
        if for_device || size > table.largest {
            let pages = size.div_ceil(B::PAGE_SIZE);
            let pfn = self.take_block(pages, flags, FrameKind::Large, NIL)?;
            return Ok(self.block_ptr(pfn));
        }
        let class = table.of[(size + 7) >> 3] as usize;
        let mut object = self.kmalloc_class(class, flags.difference(Gfp::ZERO), caller)?;
        if cfg!(feature = "kmalloc-debug")
            && let Some(slabs) = self.class(class)
        {
            object = slabs.checked(object, flags.difference(Gfp::ZERO), caller)?;
        }
        if flags.contains(Gfp::ZERO) {
            // SAFETY: the object is ours and as long as its class, a multiple of 8 as is its address.
            unsafe { wipe(object.as_ptr(), table.object_size(class)) };
        }
        Ok(object)
    }

    /// [`kmalloc_other`](Self::kmalloc_other) by one call for objects and pages, where code is to be small and nobody
    /// waits.
    #[inline(never)]
    fn kmalloc_obtain(&self, size: usize, flags: Gfp, caller: &'static Location<'static>) -> Packed {
        let flags = match self.memory.admit(flags, caller) {
            Ok(_) if size == 0 => return Packed::new(Err(AllocError::ZeroSize)),
            Ok(flags) => flags.difference(Gfp::HIGHMEM),
            Err(error) => return Packed::new(Err(error)),
        };
        let bare = flags.difference(Gfp::ZERO);
        let mut found = self.kmalloc_once(size, bare);
        if found.result().is_err()
            && let Some(again) = self.again()
        {
            found = (again.object)(self, size, bare, found);
        }
        match found.result() {
            Ok(object) if flags.contains(Gfp::ZERO) => {
                let bytes = match Self::class_of_size(size, flags) {
                    Some(class) => ClassTable::<B>::TABLE.object_size(class),
                    None => size.next_multiple_of(B::PAGE_SIZE),
                };
                // SAFETY: as in `kmalloc_other`, or whole pages.
                unsafe { wipe(object.as_ptr(), bytes) };
            }
            Ok(_) => {}
            Err(error) => crate::trace::pages_failed(size.div_ceil(B::PAGE_SIZE), flags, error),
        }
        found
    }

    /// The class of a request, which is for some bytes; none when it is for whole pages.
    #[inline(always)]
    fn class_of_size(size: usize, flags: Gfp) -> Option<usize> {
        let table = ClassTable::<B>::TABLE;
        let whole = size > table.largest || flags.intersects(Gfp::DMA.union(Gfp::DMA32));
        (!whole).then(|| table.of[(size + 7) >> 3] as usize)
    }

    /// An object or pages, by one attempt. They are not zeroed.
    #[inline]
    pub(crate) fn kmalloc_once(&self, size: usize, flags: Gfp) -> Packed {
        let Some(class) = Self::class_of_size(size, flags) else {
            if let Err(error) = self.memory.fault_point(FaultClass::Page) {
                return Packed::new(Err(error));
            }
            return self.block_now(size.div_ceil(B::PAGE_SIZE), flags, FrameKind::Large, NIL);
        };
        // SAFETY: the class of a size in the table.
        let state = unsafe { self.classes.get(class) };
        let Some(state) = state else { return Packed::new(Err(AllocError::NotReady)) };
        #[cfg(feature = "small")]
        return Store { memory: &self.memory, state }.object(flags, None);
        #[cfg(not(feature = "small"))]
        // SAFETY: there is a state, and so a class.
        Packed::new(unsafe { self.class_of(class, state) }.object_now(flags))
    }

    /// The pointer to a block that was just taken.
    #[inline(always)]
    pub(crate) fn block_ptr(&self, pfn: Pfn) -> NonNull<u8> {
        // SAFETY: frames with a kernel address do not have address 0: page 0 is never RAM of a manager, because the
        // boot map keeps it out.
        unsafe { NonNull::new_unchecked(self.memory.frame_ptr(pfn)) }
    }

    /// [`kmalloc`](Self::kmalloc), zeroed to the full [`ksize`](Self::ksize).
    ///
    /// # Errors
    /// As `kmalloc`.
    #[inline]
    #[track_caller]
    pub fn kzalloc(&self, size: usize, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let (flags, caller) = (flags | Gfp::ZERO, Location::caller());
        self.made_object(self.kmalloc_other(size, flags, caller), size, flags, caller)
    }

    /// A zeroed array of `n` elements of `size` bytes.
    ///
    /// # Errors
    /// `TooBig` when the product overflows; else as `kmalloc`.
    #[inline]
    #[track_caller]
    pub fn kcalloc(&self, n: usize, size: usize, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let size = n.checked_mul(size).ok_or(AllocError::TooBig)?;
        let (flags, caller) = (flags | Gfp::ZERO, Location::caller());
        self.made_object(self.kmalloc_other(size, flags, caller), size, flags, caller)
    }

    /// Changes the size of an object, moving it if it must, as Linux's `krealloc`.
    ///
    /// Null allocates; size 0 frees and returns `None`. The object stays in place while the new size fits its
    /// [`ksize`](Self::ksize). The contents up to the smaller size are kept; with `ZERO`
    /// what is added to an object that was allocated with `ZERO` reads zero.
    ///
    /// Context and cost: as `kmalloc`, plus the copy.
    ///
    /// # Errors
    /// As `kmalloc`, and `BadPointer` when `ptr` is not a live object; the old object is then untouched.
    #[track_caller]
    pub fn krealloc(&self, ptr: *mut u8, size: usize, flags: Gfp) -> Result<Option<NonNull<u8>>, AllocError> {
        let caller = Location::caller();
        let Some(old) = NonNull::new(ptr) else {
            if size == 0 {
                return Ok(None);
            }
            return self.made_object(self.kmalloc_other(size, flags, caller), size, flags, caller).map(Some);
        };
        let usable = self.ksize(ptr).map_err(|_| AllocError::BadPointer)?;
        if !self.is_live(ptr.addr()) {
            return Err(AllocError::BadPointer);
        }
        if size == 0 {
            self.kfree(ptr).map_err(|_| AllocError::BadPointer)?;
            return Ok(None);
        }
        let flags = self.memory.admit(flags, caller)?;
        if size <= usable {
            if flags.contains(Gfp::ZERO) {
                // What is cut off here must read zero when a later call adds it again.
                // SAFETY: the object is the caller's, and `usable` bytes long.
                unsafe { old.add(size).write_bytes(0, usable - size) };
            }
            return Ok(Some(old));
        }
        let new = self.made_object(self.kmalloc_other(size, flags, caller), size, flags, caller)?;
        // SAFETY: both objects are live, distinct, and at least that long.
        unsafe { new.copy_from_nonoverlapping(old, usable.min(size)) };
        self.kfree(ptr).map_err(|_| AllocError::BadPointer)?;
        Ok(Some(new))
    }

    /// False for an object that was freed; `addr` is the start of one, as `ksize` found.
    pub(crate) fn is_live(&self, addr: usize) -> bool {
        match self.memory.frames.find(self.memory.backend.direct_frame(addr)) {
            Some((_, frame)) if frame.head().is(FrameKind::Slab) => {
                let head = frame.head();
                self.class(head.class()).is_some_and(|slabs| slabs.is_live(frame, head, addr))
                    && !self.is_at_hand(head.class(), addr)
            }
            Some((_, frame)) if frame.head().is(FrameKind::DmaSlab) => self.is_live_dma(frame, addr),
            other => other.is_some(),
        }
    }

    /// The bytes an object may really use: its class, or its pages.
    ///
    /// Context: any. Cost: constant. Null is 0 bytes.
    ///
    /// # Errors
    /// As [`kfree`](Self::kfree), except that a free object in a live slab is not noticed.
    pub fn ksize(&self, ptr: *const u8) -> Result<usize, FreeError> {
        let addr = ptr.addr();
        if addr == 0 {
            return Ok(0);
        }
        let Some((_, frame)) = self.memory.frames.find(self.memory.backend.direct_frame(addr)) else {
            return Err(self.memory.foreign());
        };
        let head = frame.head();
        match head.kind() {
            FrameKind::Slab | FrameKind::DmaSlab => {
                let class = head.class() % MAX_CLASSES;
                let g = &ClassTable::<B>::TABLE.geometry[class];
                let offset = addr & (B::PAGE_SIZE - 1) | (head.count() as usize) << B::PAGE_SHIFT;
                g.slot(offset).map(|_| ClassTable::<B>::TABLE.object_size(class)).ok_or(FreeError::Interior)
            }
            FrameKind::Large if addr & (B::PAGE_SIZE - 1) == 0 => Ok((head.count() as usize) << B::PAGE_SHIFT),
            FrameKind::Large => Err(FreeError::Interior),
            _ => Err(self.memory.refusal(addr)),
        }
    }
}
