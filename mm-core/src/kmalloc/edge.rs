//! The rest of a kfree whose slab has to be looked at: a word of it has got its first free slot, or perhaps its last.

use crate::backend::Backend;
use crate::error::FreeError;
use crate::manager::Mm;
use crate::platform::{Platform, RawLock};
use crate::slab::{ClassStates, Slab, Slabs, Store};

impl<P: Platform, B: Backend> Mm<P, B> {
    /// A word that had no free slot got its first.
    #[inline(never)]
    pub(super) fn kfree_first(
        &self,
        addr: usize,
        slab: *mut Slab,
        w: usize,
        token: <P::Lock as RawLock>::Token,
    ) -> Result<(), FreeError> {
        // SAFETY: the slab is live, and the lock of its class is held.
        let slabs = unsafe { self.locked_class(Slab::owner(slab)) };
        // SAFETY: the caller locked this state, and left its section to this function.
        let mut state = unsafe { slabs.state.resume(token) };
        if Store::<P, B>::OPENS && state.try_open(slab, w, addr) {
            return Ok(());
        }
        match Store::<P, B>::OPENS && state.is_full() {
            true => self.kfree_shown(slab, w, state.suspend()),
            false => self.kfree_listed(slab, w, state.suspend()),
        }
        Ok(())
    }

    /// As many words are open as there is room for.
    #[inline(never)]
    fn kfree_shown(&self, slab: *mut Slab, w: usize, token: <P::Lock as RawLock>::Token) {
        // SAFETY: as in `kfree_first`.
        let slabs = unsafe { self.locked_class(Slab::owner(slab)) };
        // SAFETY: as above.
        let mut state = unsafe { slabs.state.resume(token) };
        slabs.show_first(&mut state, slab, w);
    }

    /// The rest of [`Slabs::settle`].
    #[inline(never)]
    pub(super) fn kfree_listed(&self, slab: *mut Slab, w: usize, token: <P::Lock as RawLock>::Token) {
        // SAFETY: as in `kfree_first`.
        let slabs = unsafe { self.locked_class(Slab::owner(slab)) };
        // SAFETY: as above.
        let mut state = unsafe { slabs.state.resume(token) };
        if slabs.show_listed(&mut state, slab, w) {
            self.kfree_last(state.suspend(), slab);
        }
    }

    /// A slab of a class may be wholly free, or somebody waits for an object.
    #[inline(never)]
    fn kfree_last(&self, token: <P::Lock as RawLock>::Token, slab: *mut Slab) {
        // SAFETY: as in `kfree_listed`, which left its section to this function.
        unsafe {
            let slabs = self.locked_class(Slab::owner(slab));
            slabs.settle_rest(slabs.state.resume(token), slab);
        }
    }

    /// The cache of a class whose lock is held.
    ///
    /// # Safety
    /// It is, so that there is one.
    #[inline(always)]
    unsafe fn locked_class(&self, class: usize) -> Slabs<'_, P, B> {
        // SAFETY: there is a state, since it is locked, and it is the class's.
        unsafe {
            let state = self.classes.get(class);
            core::hint::assert_unchecked(state.is_some());
            self.class_of(class, state.unwrap_unchecked())
        }
    }
}
