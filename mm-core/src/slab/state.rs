//! What the lock of a cache guards: the current word, and the words that stand open beside it.

use super::{Geometry, NOWHERE, Slab};
use crate::bits::{USED_UP, WORD_SHIFT, Word, lowest, rarely};
use crate::meta::NIL;
use core::ptr::NonNull;

/// The part of a cache that its lock guards.
#[repr(C)]
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
    /// Words that have a free slot since they had none, the last one last. Among objects that are freed and allocated
    /// at random that is what most words are: here they come and go without being listed.
    open: [Open; OPEN],
    /// How many bytes of `open` there are.
    opened: u8,
    /// Somebody may be waiting for an object. Then there is none free, and no word is opened: `opened` and this are
    /// compared with `room` as one number.
    pub(super) waited: bool,
    /// How many bytes of `open` there may be: none where the only slot of a word may be the last of its slab.
    room: u16,
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

/// A word that was open, and has several free slots.
pub struct OpenWord {
    at: *mut Word,
    slab: *mut Slab,
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
            open: [Open::NONE; OPEN],
            opened: 0,
            waited: false,
            room: 0,
        }
    }

    /// Somebody may be waiting for an object from now on, or nobody any more.
    #[inline(always)]
    pub(super) fn set_waited(&mut self, waited: bool) {
        self.waited = waited;
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
        let opened = self.opened();
        if opened >= self.room {
            return false;
        }
        let (at, object) = (Slab::words(slab).wrapping_add(w), slab.cast::<u8>().with_addr(addr));
        // SAFETY: there is room behind so many bytes of whole entries.
        unsafe { *self.open.as_mut_ptr().byte_add(usize::from(opened)) = Open { at, object, slab } };
        self.opened += size_of::<Open>() as u8;
        true
    }

    /// True when a word would be opened but for room: nobody waits, and the slab cannot be wholly free.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        let opened = self.opened();
        opened != 0 && opened == self.room
    }

    /// How many bytes of `open` there are; more than there can be when somebody waits.
    #[inline(always)]
    fn opened(&self) -> u16 {
        u16::from_le_bytes([self.opened, u8::from(self.waited)])
    }

    /// The word that was opened last.
    #[inline(always)]
    fn last_open(&self) -> Option<*const Open> {
        if OPEN == 0 || self.opened == 0 {
            return None;
        }
        // SAFETY: it ends behind so many bytes of whole entries.
        Some(unsafe { self.open.as_ptr().byte_add(usize::from(self.opened)).sub(1) })
    }

    /// Takes the object of the word that was opened last, if there is one and the word has no other.
    #[inline(always)]
    pub fn take_open(&mut self) -> Result<NonNull<u8>, Option<OpenWord>> {
        let open = self.last_open().ok_or(None)?;
        self.opened -= size_of::<Open>() as u8;
        // SAFETY: an entry, which nothing is written over here; its word is one of a live slab, and has a free slot; the
        // lock is held.
        unsafe {
            let at = (*open).at;
            if *at & (*at - 1) != 0 {
                return Err(Some(OpenWord { at, slab: (*open).slab }));
            }
            *at = 0;
            Ok(NonNull::new_unchecked((*open).object))
        }
    }

    /// Takes the lowest slot of a word that is not open any more and has several; it is the current word from now on, when
    /// the one before is used up.
    #[inline(always)]
    pub fn take_first(&mut self, OpenWord { at, slab }: OpenWord) -> NonNull<u8> {
        // SAFETY: a word of a live slab, as `take_open` found it in the same lock hold, and that has a slot.
        unsafe { self.point_and_take(slab, at, at.offset_from_unsigned(Slab::words(slab))) }
    }

    /// [`point`](Self::point) at a word that has a free slot, the lowest of which is taken.
    ///
    /// # Safety
    /// It has, and those of `point`.
    #[inline(always)]
    pub(super) unsafe fn point_and_take(&mut self, slab: *mut Slab, at: *mut Word, w: usize) -> NonNull<u8> {
        // SAFETY: by the caller's word.
        unsafe {
            let word = *at;
            *at = word & (word - 1);
            self.point(slab, at, w);
            self.object(lowest(word))
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
                // SAFETY: an entry.
                self.open[i] = unsafe { *last };
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
        Some(self.object(lowest(word)))
    }

    /// The object of a bit of the current word.
    #[inline(always)]
    fn object(&self, bit: usize) -> NonNull<u8> {
        // SAFETY: slots lie in the slab's pages, which have a kernel address, so the pointer is not null.
        unsafe { NonNull::new_unchecked(self.base.wrapping_add(bit * self.size)) }
    }

    /// Notes how slabs are cut; called for each that is made, before there is a free.
    #[inline(always)]
    pub(super) fn cut(&mut self, geometry: &Geometry) {
        self.size = geometry.size as usize;
        self.room = if geometry.last == 1 { 0 } else { (OPEN * size_of::<Open>()) as u16 };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    struct Cut {
        slab: Slab,
        words: [Word; 8],
    }

    const OBJECT: usize = 0x1_0000;

    fn slab_of(slots: usize) -> (CacheState, Cut) {
        let geometry = Geometry::cut(64, 8, slots, 4096);
        let mut state = CacheState::new();
        state.cut(&geometry);
        let slab = Slab {
            origin: OBJECT.wrapping_neg(),
            next: NIL,
            prev: NIL,
            recip: geometry.recip,
            summary: 0,
            owner: 0,
            place: NOWHERE,
        };
        (state, Cut { slab, words: [0; 8] })
    }

    #[test]
    fn words_are_opened_as_far_as_there_is_room_and_come_back_last_first() {
        let (mut state, mut cut) = slab_of(512);
        let slab = (&raw mut cut).cast::<Slab>();
        for w in 0..OPEN {
            // SAFETY: one of its words.
            unsafe { *Slab::words(slab).add(w) = 1 };
            assert!(!state.is_full());
            assert!(state.try_open(slab, w, OBJECT + (w << WORD_SHIFT) * 64));
        }
        assert!(!state.try_open(slab, OPEN, OBJECT) && state.is_full() == (OPEN != 0));
        for w in (0..OPEN).rev() {
            let object = state.take_open().ok().expect("a word is open, and has one slot");
            assert_eq!(object.addr().get(), OBJECT + (w << WORD_SHIFT) * 64);
        }
        assert!(matches!(state.take_open(), Err(None)) && !state.is_full());
        assert!(cut.words.iter().all(|word| *word == 0));
    }

    #[test]
    fn of_several_slots_the_lowest_comes_first_and_the_word_is_the_current_one() {
        let (mut state, mut cut) = slab_of(512);
        let slab = (&raw mut cut).cast::<Slab>();
        if OPEN == 0 {
            return;
        }
        assert!(state.try_open(slab, 3, OBJECT + ((3 << WORD_SHIFT) + 9) * 64));
        // SAFETY: one of its words; a second slot of it was freed since.
        unsafe { *Slab::words(slab).add(3) = 1 << 9 | 1 << 5 };
        let Err(Some(word)) = state.take_open() else { panic!("the word has two slots") };
        assert_eq!(state.take_first(word).addr().get(), OBJECT + ((3 << WORD_SHIFT) + 5) * 64);
        assert_eq!(state.take().map(|object| object.addr().get()), Some(OBJECT + ((3 << WORD_SHIFT) + 9) * 64));
        assert_eq!((state.take(), cut.slab.place), (None, 3));
    }

    #[test]
    fn nothing_is_opened_for_who_waits_nor_where_one_slot_may_be_a_whole_slab() {
        let (mut state, mut cut) = slab_of(512);
        let slab = (&raw mut cut).cast::<Slab>();
        state.waited = true;
        assert!(!state.try_open(slab, 0, OBJECT) && !state.is_full());
        let one = slab_of(1).0;
        let mut last = slab_of(Word::BITS as usize + 1).0;
        assert_eq!((one.room, last.room), (0, 0));
        assert!(!last.try_open(slab, 1, OBJECT) && !last.is_full());
    }
}
