//! What the lock of a cache guards: the current word, and the words that stand open beside it.

use super::{NOWHERE, Slab};
use crate::bits::{USED_UP, WORD_SHIFT, Word, lowest, rarely};
use crate::meta::NIL;
use core::ptr::NonNull;

/// The part of a cache that its lock guards.
pub struct CacheState {
    /// The current word of free bits.
    pub(super) current: *mut Word,
    /// The slot of the current word's bit 0, and from each slot to the next.
    base: *mut u8,
    pub(super) size: usize,
    /// The slab that has it, if there is one.
    pub(super) holder: *mut Slab,
    /// The first listed slab.
    pub(super) head: u32,
    /// Slabs, listed or not.
    pub(super) slabs: u32,
    /// Somebody may be waiting for an object. Then there is none free.
    pub(super) waited: bool,
    /// How many bytes of `open` there are.
    opened: u8,
    /// Words that have a free slot since they had none, the last one last. Among objects that are freed and allocated
    /// at random that is what most words are: here they come and go without being listed.
    open: [Open; OPEN],
}

/// The most open words of a cache. A 32-bit machine spares the room: what a class holds there is small, and so is
/// memory.
pub(super) const OPEN: usize = if usize::BITS == 64 && !cfg!(feature = "small") { 5 } else { 0 };
const _: () = assert!(OPEN * size_of::<Open>() < 0xff);

/// A word that is not shown by its slab's summary, though it has free slots.
#[derive(Clone, Copy)]
pub(super) struct Open {
    /// The word.
    pub(super) at: *mut Word,
    /// The object of its first free slot, which is free still.
    pub(super) object: *mut u8,
    /// Its slab.
    pub(super) slab: *mut Slab,
}

impl Open {
    const NONE: Open = Open { at: core::ptr::null_mut(), object: core::ptr::null_mut(), slab: core::ptr::null_mut() };
}

// SAFETY: the pointers are into the manager's RAM, good on every thread; the lock guards their use.
unsafe impl Send for CacheState {}

impl CacheState {
    /// A cache without slabs.
    pub const fn new() -> Self {
        CacheState {
            current: (&raw const USED_UP).cast_mut(),
            base: core::ptr::null_mut(),
            size: 0,
            holder: core::ptr::null_mut(),
            head: NIL,
            slabs: 0,
            waited: false,
            opened: 0,
            open: [Open::NONE; OPEN],
        }
    }

    /// The open words.
    #[allow(clippy::unnecessary_min_or_max, reason = "where `OPEN` is 0")]
    pub(super) fn open(&self) -> &[Open] {
        &self.open[..OPEN.min(usize::from(self.opened) / size_of::<Open>())]
    }

    /// Opens word `w` of a live slab, which has got its first free slot, the object at `addr`: if there is room, the
    /// slab cannot be wholly free, and nobody waits.
    #[inline(always)]
    pub fn try_open(&mut self, slab: *mut Slab, w: usize, addr: usize) -> bool {
        let at = Slab::words(slab).wrapping_add(w);
        let opened = usize::from(self.opened);
        // SAFETY: a word of a live slab; the lock is held.
        if opened >= OPEN * size_of::<Open>() || unsafe { *at } == 1 || self.waited {
            return false;
        }
        // SAFETY: there is room behind so many bytes of whole entries.
        unsafe {
            *self.open.as_mut_ptr().byte_add(opened) = Open { at, object: slab.cast::<u8>().with_addr(addr), slab }
        };
        self.opened += size_of::<Open>() as u8;
        true
    }

    /// The word that was opened last.
    #[inline(always)]
    fn last_open(&self) -> Option<Open> {
        if OPEN == 0 || self.opened == 0 {
            return None;
        }
        // SAFETY: it ends behind so many bytes of whole entries.
        Some(unsafe { *self.open.as_ptr().byte_add(usize::from(self.opened)).sub(1) })
    }

    /// Takes an object of the word that was opened last, if there is one: the only one it has, or else the lowest,
    /// and it is the current word from now on, when the one before is used up.
    #[inline(always)]
    pub fn take_open(&mut self) -> Option<NonNull<u8>> {
        let open = self.last_open()?;
        self.opened -= size_of::<Open>() as u8;
        // SAFETY: a word of a live slab, which has a free slot; the lock is held.
        unsafe {
            let word = *open.at;
            if word & (word - 1) != 0 {
                self.point(open.slab, open.at, open.at.offset_from_unsigned(Slab::words(open.slab)));
                return self.take();
            }
            *open.at = 0;
            Some(NonNull::new_unchecked(open.object))
        }
    }

    /// Makes `at`, word `w` of a slab, which its summary does not show, the current one. The one before is used up.
    ///
    /// # Safety
    /// The slab is live, and the lock held.
    #[inline(always)]
    pub(super) unsafe fn point(&mut self, slab: *mut Slab, at: *mut Word, w: usize) {
        // SAFETY: by the caller's word; the slab that has the current word is live.
        let origin = unsafe {
            if !self.holder.is_null() {
                (*self.holder).place = NOWHERE;
            }
            (*slab).place = w as u8;
            (*slab).origin
        };
        self.holder = slab;
        self.current = at;
        // Both lie in memory that is reached through the same mapping.
        self.base = slab.cast::<u8>().with_addr(((w << WORD_SHIFT) * self.size).wrapping_sub(origin));
    }

    /// Forgets the open words of a slab.
    pub(super) fn close(&mut self, slab: *mut Slab) {
        let mut i = self.open().len();
        while let Some(before) = i.checked_sub(1) {
            i = before;
            if core::ptr::eq(self.open[i].slab, slab)
                && let Some(last) = self.last_open()
            {
                self.open[i] = last;
                self.opened -= size_of::<Open>() as u8;
            }
        }
    }

    /// Takes the lowest slot of the current word, if it has one.
    #[inline(always)]
    pub fn take(&mut self) -> Option<NonNull<u8>> {
        // SAFETY: the current word is a word of a listed slab or `USED_UP`.
        let word = unsafe { *self.current };
        if word == 0 {
            rarely();
            return None;
        }
        // SAFETY: not `USED_UP`, since it has a bit.
        unsafe { *self.current = word & (word - 1) };
        // SAFETY: slots lie in the slab's pages, which have a kernel address, so the pointer is not null.
        Some(unsafe { NonNull::new_unchecked(self.base.wrapping_add(lowest(word) * self.size)) })
    }

    /// Takes up to `most` more slots of the word that one was just taken from: their bits, and the slot of bit 0.
    pub fn take_more(&mut self, most: usize) -> (*mut u8, Word) {
        // SAFETY: a word of a listed slab, or `USED_UP`, which has no bit and is not written to.
        let word = unsafe { *self.current };
        let mut left = word;
        for _ in 0..most {
            left &= left.wrapping_sub(1);
        }
        if left != word {
            // SAFETY: as above.
            unsafe { *self.current = left };
        }
        (self.base, word ^ left)
    }
}
