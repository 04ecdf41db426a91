//! Taking all memory that can be had, and breaking it up into single pages.

use crate::board::MM;
use core::ptr::{self, NonNull};
use rtmm::{Backend, GFP_ATOMIC, GFP_DMA, GFP_DMA32, Gfp};

/// Blocks of pages, chained through their first words so that their number needs no other memory.
#[derive(Debug)]
#[must_use = "the pages stay taken"]
pub struct Hoard {
    first: *mut Link,
    count: usize,
}

#[derive(Debug)]
struct Link {
    next: *mut Link,
    order: usize,
}

impl Hoard {
    const EMPTY: Hoard = Hoard { first: ptr::null_mut(), count: 0 };

    /// Takes single pages until there are none, the atomic reserve and what lower zones keep included.
    pub fn of_everything() -> Hoard {
        let mut hoard = Hoard::of(GFP_ATOMIC | Gfp::NOWARN);
        hoard.take(GFP_ATOMIC | GFP_DMA32 | Gfp::NOWARN, 0);
        hoard.take(GFP_ATOMIC | GFP_DMA | Gfp::NOWARN, 0);
        hoard
    }

    /// Takes single pages with `flags` until there are none.
    pub fn of(flags: Gfp) -> Hoard {
        let mut hoard = Hoard::EMPTY;
        hoard.take(flags, 0);
        hoard
    }

    /// Takes blocks until there are none.
    fn take(&mut self, flags: Gfp, order: usize) {
        while let Ok(block) = MM.get_free_pages(flags, order) {
            self.push(block, order);
        }
    }

    fn push(&mut self, block: NonNull<u8>, order: usize) {
        let link = block.cast::<Link>();
        // SAFETY: the block is ours; a page holds a link and is aligned for it.
        unsafe { link.write(Link { next: self.first, order }) };
        self.first = link.as_ptr();
        self.count += 1 << order;
    }

    fn pop(&mut self) -> Option<(NonNull<u8>, usize)> {
        let link = NonNull::new(self.first)?;
        // SAFETY: the link was written by `push`, and the page is still ours.
        let Link { next, order } = unsafe { link.read() };
        self.first = next;
        self.count -= 1 << order;
        Some((link.cast(), order))
    }

    /// True when `test` holds for the first frame number of every block.
    pub fn all(&self, mut test: impl FnMut(usize) -> bool) -> bool {
        let mut link = self.first;
        while !link.is_null() {
            if !test(MM.backend().direct_frame(link.addr())) {
                return false;
            }
            // SAFETY: the link was written by `push`, and the page is still ours.
            link = unsafe { link.read() }.next;
        }
        true
    }

    /// How many pages it holds.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Gives back the single pages whose frame number is even, so that no two free pages are neighbours.
    pub fn free_every_second(mut self) -> Hoard {
        let mut kept = Hoard::EMPTY;
        while let Some((block, order)) = self.pop() {
            if order == 0 && MM.backend().direct_frame(block.addr().get()) % 2 == 0 {
                MM.free_page(block.as_ptr()).expect("the page is ours");
            } else {
                kept.push(block, order);
            }
        }
        kept
    }

    /// Gives every page back.
    pub fn free(mut self) {
        while let Some((block, order)) = self.pop() {
            MM.free_pages(block.as_ptr(), order).expect("the block is ours");
        }
    }
}

/// Breaks the free memory up into single pages: takes every page, gives every second back, and takes the blocks in
/// what the marks had kept.
pub fn fragment() -> Hoard {
    let mut hoard = Hoard::of_everything().free_every_second();
    MM.drain();
    hoard.take(GFP_ATOMIC | Gfp::NOWARN, 1);
    hoard.take(GFP_ATOMIC | GFP_DMA32 | Gfp::NOWARN, 1);
    hoard.take(GFP_ATOMIC | GFP_DMA | Gfp::NOWARN, 1);
    hoard
}
