//! Memory for what a workload holds, and for other managers.

use crate::board::{Backend, MM};
use core::ptr::NonNull;
use rtmm::{Backend as _, GFP_KERNEL};

/// Room for `count` things, none of them there yet; less, down to nothing, where memory is short. Kept for good.
pub fn room<T>(mut count: usize) -> &'static mut [Option<T>] {
    while count != 0 {
        let bytes = count * size_of::<Option<T>>();
        // A quarter of what is free at most: the workload needs the rest.
        if bytes / Backend::PAGE_SIZE <= MM.free_page_count() / 4
            && let Ok(pages) = MM.alloc_pages_exact(bytes, GFP_KERNEL)
        {
            let first: NonNull<Option<T>> = pages.cast();
            for i in 0..count {
                // SAFETY: inside the pages, which are this function's.
                unsafe { first.add(i).write(None) };
            }
            // SAFETY: written just now, and given to nobody else.
            return unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), count) };
        }
        count /= 2;
    }
    &mut []
}

/// One of what is too large for a small board's stack, empty. Kept for good.
pub fn kept<T: Default>() -> Option<&'static mut T> {
    let slot = room::<T>(1).first_mut()?;
    Some(slot.get_or_insert_default())
}

/// Contiguous memory of `len` bytes, which may be more than the largest block. Kept for good, and `None` without having
/// taken anything when there is no such run.
///
/// Free blocks come lowest first, so that neighbours come one after the other. What is not part of the run is held in a
/// list until it is found.
pub fn contiguous(len: usize) -> Option<NonNull<u8>> {
    let block = Backend::PAGE_SIZE << Backend::MAX_ORDER;
    let mut others = Chain::new();
    let mut run: Option<(NonNull<u8>, usize)> = None;
    let found = loop {
        if run.is_some_and(|(_, have)| have >= len) {
            break true;
        }
        let Ok(next) = MM.get_free_pages(GFP_KERNEL, Backend::MAX_ORDER) else { break false };
        run = Some(match run {
            Some((start, have)) if start.addr().get() + have == next.addr().get() => (start, have + block),
            before => {
                if let Some((start, have)) = before {
                    put_blocks(&mut others, start, have);
                }
                (next, block)
            }
        });
    };
    if let (false, Some((start, have))) = (found, run) {
        put_blocks(&mut others, start, have);
    }
    while let Some(other) = others.take() {
        let _ = MM.free_pages(other.as_ptr(), Backend::MAX_ORDER);
    }
    run.filter(|_| found).map(|(start, _)| start)
}

/// Adds the blocks of `len` bytes from `start` on to a list.
fn put_blocks(list: &mut Chain, start: NonNull<u8>, len: usize) {
    for offset in (0..len).step_by(Backend::PAGE_SIZE << Backend::MAX_ORDER) {
        // SAFETY: the blocks from `start` on are `len` bytes.
        list.put(unsafe { start.add(offset) });
    }
}

/// Objects of the caller's in a list that runs through their first words.
pub struct Chain(*mut u8);

impl Chain {
    /// None.
    pub const fn new() -> Self {
        Chain(core::ptr::null_mut())
    }

    /// Adds an object, which is as long and aligned as a pointer.
    pub fn put(&mut self, object: NonNull<u8>) {
        // SAFETY: the caller owns the object.
        unsafe { object.cast::<*mut u8>().write(self.0) };
        self.0 = object.as_ptr();
    }

    /// Takes the last one.
    pub fn take(&mut self) -> Option<NonNull<u8>> {
        let object = NonNull::new(self.0)?;
        // SAFETY: an object of the list, owned by it.
        self.0 = unsafe { object.cast::<*mut u8>().read() };
        Some(object)
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}
