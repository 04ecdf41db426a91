//! Allocators of pages. They keep numbers only, so no memory stands behind the frames.

#[cfg(not(feature = "hosted"))]
pub(crate) fn visit(_visitor: &mut impl crate::FramesVisitor) {}

#[cfg(feature = "hosted")]
pub(crate) use with_a_heap::visit;

#[cfg(feature = "hosted")]
mod with_a_heap {
    use crate::{FRAMES_ROOM, Frames, FramesVisitor};
    use alloc::boxed::Box;
    use bitmap_allocator::{BitAlloc, BitAlloc16M};
    use buddy_slab_allocator::BuddyAllocator;
    use core::alloc::Layout;
    use core::ptr::NonNull;

    const PAGE: usize = 4096;
    /// The order of the blocks in which its frames are cut to size.
    const BLOCK: usize = 9;

    pub(crate) fn visit(visitor: &mut impl FramesVisitor) {
        visitor.visit("bitmap-allocator", Bitmap::new);
        visitor.visit("buddy_system_allocator", BuddyFrames::new);
        visitor.visit("buddy-slab-allocator", Buddy::new);
    }

    struct Bitmap(Box<BitAlloc16M>);

    impl Bitmap {
        unsafe fn new(frames: usize, _room: NonNull<u8>) -> Self {
            // Two MiB: built in place, not on the stack.
            // SAFETY: allocated as a box of that type; its default is all zeroes, "no bit is available".
            let mut bits = unsafe {
                Box::from_raw(alloc::alloc::alloc_zeroed(Layout::new::<BitAlloc16M>()).cast::<BitAlloc16M>())
            };
            bits.insert(0..frames);
            Bitmap(bits)
        }
    }

    impl Frames for Bitmap {
        const PER_FRAME: usize = 1;

        #[inline(always)]
        fn alloc(&mut self, order: usize) -> Option<usize> {
            if order == 0 { self.0.alloc() } else { self.0.alloc_contiguous(None, 1 << order, order) }
        }

        #[inline(always)]
        fn free(&mut self, first: usize, order: usize) {
            if order == 0 {
                self.0.dealloc(first);
            } else {
                self.0.dealloc_contiguous(first, 1 << order);
            }
        }
    }

    struct BuddyFrames(buddy_system_allocator::FrameAllocator<33>);

    impl BuddyFrames {
        unsafe fn new(frames: usize, _room: NonNull<u8>) -> Self {
            let mut buddy = buddy_system_allocator::FrameAllocator::new();
            buddy.add_frame(0, frames);
            BuddyFrames(buddy)
        }
    }

    impl Frames for BuddyFrames {
        const PER_FRAME: usize = 1;

        #[inline(always)]
        fn alloc(&mut self, order: usize) -> Option<usize> {
            self.0.alloc(1 << order)
        }

        #[inline(always)]
        fn free(&mut self, first: usize, order: usize) {
            self.0.dealloc(first, 1 << order);
        }
    }

    /// It keeps its records inside the memory it manages, so it has to be given real memory, of which it touches only
    /// the records.
    struct Buddy {
        buddy: BuddyAllocator<PAGE>,
    }

    impl Buddy {
        unsafe fn new(frames: usize, room: NonNull<u8>) -> Self {
            let mut buddy = BuddyAllocator::new();
            // SAFETY: by the caller.
            let region = unsafe { core::slice::from_raw_parts_mut(room.as_ptr(), FRAMES_ROOM) };
            // SAFETY: by the caller, for as long as it lives.
            unsafe { buddy.init(region) }.expect("a GiB is enough");
            // What is more than `frames` is kept from it, so that it is as full as the others are.
            let mut blocks: alloc::vec::Vec<usize> =
                core::iter::from_fn(|| buddy.alloc_pages(1 << BLOCK, PAGE << BLOCK).ok()).collect();
            blocks.sort_unstable();
            for &block in &blocks[..frames >> BLOCK] {
                buddy.dealloc_pages(block, 1 << BLOCK);
            }
            while buddy.alloc_pages(1, PAGE).is_ok_and(|page| page < blocks[0] || page >= blocks[frames >> BLOCK]) {}
            Buddy { buddy }
        }
    }

    impl Frames for Buddy {
        const PER_FRAME: usize = PAGE;

        #[inline(always)]
        fn alloc(&mut self, order: usize) -> Option<usize> {
            self.buddy.alloc_pages(1 << order, PAGE << order).ok()
        }

        #[inline(always)]
        fn free(&mut self, first: usize, order: usize) {
            self.buddy.dealloc_pages(first, 1 << order);
        }
    }
}
