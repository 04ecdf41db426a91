//! Taking all memory that can be had, and breaking it up into single pages.

use crate::board::MM;
use rtmm::{Backend, GFP_ATOMIC, GFP_DMA, GFP_DMA32, Gfp, Pfn};

/// Blocks of pages, with a kernel address or without, chained through their first words so that their number needs no
/// other memory.
#[derive(Debug)]
#[must_use = "the pages stay taken"]
pub struct Hoard {
    first: Option<Pfn>,
    count: usize,
}

/// What stands at the beginning of each block.
#[derive(Clone, Copy, Debug)]
struct Link {
    next: Option<Pfn>,
    order: usize,
}

impl Hoard {
    const EMPTY: Hoard = Hoard { first: None, count: 0 };

    /// Takes single pages until there are none, the atomic reserve and what lower zones keep included.
    pub fn of_everything() -> Hoard {
        let mut hoard = Hoard::of(GFP_ATOMIC | Gfp::NOWARN);
        hoard.take_special(0);
        hoard
    }

    /// Takes single pages with `flags` until there are none.
    pub fn of(flags: Gfp) -> Hoard {
        let mut hoard = Hoard::EMPTY;
        hoard.take(flags, 0);
        hoard
    }

    /// Takes blocks with `flags` that begin below frame `end`, until one does not, which is given back.
    ///
    /// # Panics
    /// When there is none past it.
    pub fn of_blocks_below(end: Pfn, flags: Gfp, order: usize) -> Hoard {
        let mut hoard = Hoard::EMPTY;
        loop {
            let block = MM.alloc_pages(flags, order).expect("a block past that frame");
            if block >= end {
                MM.free_pages_frame(block, order).expect("the block is ours");
                return hoard;
            }
            hoard.push(block, order);
        }
    }

    /// What ordinary requests leave: memory without a kernel address, and what zones keep for those who need them.
    fn take_special(&mut self, order: usize) {
        for kind in [Gfp::HIGHMEM, GFP_DMA32, GFP_DMA] {
            self.take(GFP_ATOMIC | kind | Gfp::NOWARN, order);
        }
    }

    /// Takes blocks until there are none.
    fn take(&mut self, flags: Gfp, order: usize) {
        while let Ok(block) = MM.alloc_pages(flags, order) {
            self.push(block, order);
        }
    }

    fn push(&mut self, block: Pfn, order: usize) {
        let link = Link { next: self.first, order };
        // SAFETY: the block is ours; a page holds a link and is aligned for it.
        unsafe { MM.backend().with_frame(block, |page| page.cast::<Link>().write(link)) };
        self.first = Some(block);
        self.count += 1 << order;
    }

    fn link(block: Pfn) -> Link {
        // SAFETY: the link was written by `push`, and the page is still ours.
        unsafe { MM.backend().with_frame(block, |page| page.cast::<Link>().read()) }
    }

    fn pop(&mut self) -> Option<(Pfn, usize)> {
        let block = self.first?;
        let Link { next, order } = Hoard::link(block);
        self.first = next;
        self.count -= 1 << order;
        Some((block, order))
    }

    /// True when `test` holds for the first frame number of every block.
    pub fn all(&self, mut test: impl FnMut(usize) -> bool) -> bool {
        let mut next = self.first;
        while let Some(block) = next {
            if !test(block.0 as usize) {
                return false;
            }
            next = Hoard::link(block).next;
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
            if order == 0 && block.0 % 2 == 0 {
                MM.free_pages_frame(block, 0).expect("the page is ours");
            } else {
                kept.push(block, order);
            }
        }
        kept
    }

    /// Gives every page back.
    pub fn free(mut self) {
        while let Some((block, order)) = self.pop() {
            MM.free_pages_frame(block, order).expect("the block is ours");
        }
    }
}

/// Breaks the free memory up into single pages: takes every page, gives every second back, and takes the blocks in
/// what the marks had kept.
pub fn fragment() -> Hoard {
    let mut hoard = Hoard::of_everything().free_every_second();
    MM.drain();
    hoard.take(GFP_ATOMIC | Gfp::NOWARN, 1);
    hoard.take_special(1);
    hoard
}
