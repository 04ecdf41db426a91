//! `Pages`: the RAII form.

use crate::backend::Backend;
use crate::error::AllocError;
use crate::gfp::Gfp;
use crate::global::Manager;
use crate::platform::{Bug, Platform};
use core::ptr::NonNull;

/// A block of pages that frees itself.
pub struct Pages<M: Manager> {
    start: NonNull<u8>,
    order: usize,
    manager: M,
}

// SAFETY: the block is owned, and the manager is shared between threads.
unsafe impl<M: Manager + Send> Send for Pages<M> {}
// SAFETY: shared references only read the address.
unsafe impl<M: Manager + Sync> Sync for Pages<M> {}

impl<M: Manager> Pages<M> {
    /// Allocates `1 << order` pages from `manager`.
    ///
    /// # Errors
    /// As [`Mm::get_free_pages`](crate::Mm::get_free_pages).
    #[track_caller]
    pub fn new_in(flags: Gfp, order: usize, manager: M) -> Result<Self, AllocError> {
        let start = manager.mm().get_free_pages(flags, order)?;
        Ok(Pages { start, order, manager })
    }

    /// The first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The order it was allocated with.
    pub fn order(&self) -> usize {
        self.order
    }

    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        M::Backend::PAGE_SIZE << self.order
    }

    /// Gives up ownership; `Mm::free_pages` with [`order`](Self::order) frees it.
    pub fn into_raw(self) -> NonNull<u8> {
        core::mem::ManuallyDrop::new(self).start
    }
}

impl<M: Manager> Drop for Pages<M> {
    fn drop(&mut self) {
        let mm = self.manager.mm();
        if let Err(error) = mm.free_pages(self.start.as_ptr(), self.order) {
            mm.platform().bug(&Bug::BadFree { addr: self.start.as_ptr().addr(), error });
        }
    }
}
