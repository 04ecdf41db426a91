//! Taking all memory there is, and breaking it up into single pages.

use crate::board::MM;
use core::ptr::{self, NonNull};
use rtmm::{Backend, GFP_ATOMIC, Gfp};

/// Pages taken one by one, chained through their first word so that their number needs no other memory.
#[derive(Debug)]
#[must_use = "the pages stay taken"]
pub struct Hoard {
    first: *mut Link,
    count: usize,
}

#[derive(Debug)]
struct Link {
    next: *mut Link,
}

impl Hoard {
    /// Takes pages until there are none, reserve included.
    pub fn of_everything() -> Hoard {
        Hoard::of(GFP_ATOMIC | Gfp::NOWARN)
    }

    /// Takes pages with `flags` until there are none.
    pub fn of(flags: Gfp) -> Hoard {
        let mut hoard = Hoard { first: ptr::null_mut(), count: 0 };
        while let Ok(page) = MM.get_free_page(flags) {
            hoard.push(page);
        }
        hoard
    }

    fn push(&mut self, page: NonNull<u8>) {
        let link = page.cast::<Link>();
        // SAFETY: the page was handed out to us just now; a page holds a link and is aligned for it.
        unsafe { link.write(Link { next: self.first }) };
        self.first = link.as_ptr();
        self.count += 1;
    }

    fn pop(&mut self) -> Option<NonNull<u8>> {
        let link = NonNull::new(self.first)?;
        // SAFETY: the link was written by `push`, and the page is still ours.
        self.first = unsafe { link.read() }.next;
        self.count -= 1;
        Some(link.cast())
    }

    /// True when `test` holds for the frame number of every page.
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

    /// Gives back the pages whose frame number is even, so that no two free pages are neighbours.
    pub fn free_every_second(mut self) -> Hoard {
        let mut kept = Hoard { first: ptr::null_mut(), count: 0 };
        while let Some(page) = self.pop() {
            if MM.backend().direct_frame(page.addr().get()) % 2 == 0 {
                MM.free_page(page.as_ptr()).expect("the page is ours");
            } else {
                kept.push(page);
            }
        }
        kept
    }

    /// Gives every page back.
    pub fn free(mut self) {
        while let Some(page) = self.pop() {
            MM.free_page(page.as_ptr()).expect("the page is ours");
        }
    }
}

/// Breaks the free memory up into single pages: takes every page, and gives every second back.
pub fn fragment() -> Hoard {
    let hoard = Hoard::of_everything().free_every_second();
    MM.drain();
    hoard
}
