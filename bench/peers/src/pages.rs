//! Allocators of pages. They keep numbers only, so no memory stands behind the frames.

#[cfg(not(feature = "hosted"))]
pub(crate) fn visit(_visitor: &mut impl crate::FramesVisitor) {}

#[cfg(feature = "hosted")]
pub(crate) use with_a_heap::visit;

#[cfg(feature = "hosted")]
mod with_a_heap {
    use crate::{Frames, FramesVisitor};
    use alloc::boxed::Box;
    use bitmap_allocator::{BitAlloc, BitAlloc16M};
    use core::alloc::Layout;

    pub(crate) fn visit(visitor: &mut impl FramesVisitor) {
        visitor.visit("bitmap-allocator", Bitmap::new);
        visitor.visit("buddy_system_allocator", BuddyFrames::new);
    }

    struct Bitmap(Box<BitAlloc16M>);

    impl Bitmap {
        fn new(frames: usize) -> Self {
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
        fn new(frames: usize) -> Self {
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
}
