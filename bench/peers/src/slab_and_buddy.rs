//! `buddy-slab-allocator`: its slabs over its buddy, put together as its documentation shows.

use crate::{Heap, HeapVisitor, layout, or_null};
use buddy_slab_allocator::interface::BuddySlabIf;
use buddy_slab_allocator::{
    BuddyAllocator, PerCpuSlab, SlabAllocResult, SlabAllocator, SlabDeallocResult, SlabPoolTrait, StaticSlabPool,
};
use core::ptr::NonNull;

const PAGE: usize = 4096;
/// More than the length of its slabs.
const ALIGNED: usize = 1 << 18;
/// From here on its global allocator takes pages.
const LARGEST: usize = 2048;

pub(crate) fn visit(visitor: &mut impl HeapVisitor) {
    visitor.visit("buddy-slab-allocator", SlabAndBuddy::new);
}

static POOL: StaticSlabPool<PAGE, 1> = StaticSlabPool::new([PerCpuSlab::new(0)], || 0);

/// What the crate wants of its surroundings, though the two parts are used without it.
struct Surroundings;

#[ax_crate_interface::impl_interface]
impl BuddySlabIf for Surroundings {
    fn virt_to_phys(vaddr: usize) -> usize {
        vaddr
    }

    fn slab_pool() -> &'static dyn SlabPoolTrait {
        &POOL
    }
}

struct SlabAndBuddy {
    slab: SlabAllocator<PAGE>,
    buddy: BuddyAllocator<PAGE>,
}

impl SlabAndBuddy {
    unsafe fn new(arena: NonNull<u8>, len: usize) -> Self {
        // Slabs are aligned to their length, which it finds only where its heap begins aligned. How far its records
        // reach before that it does not say, so the region's start is moved until a large aligned block is found.
        for skip in (0..ALIGNED).step_by(PAGE) {
            let mut buddy = BuddyAllocator::new();
            // SAFETY: the skipped part is less than the arena, which is the caller's.
            let region = unsafe { core::slice::from_raw_parts_mut(arena.as_ptr().add(skip), len - skip) };
            // SAFETY: by the caller, for as long as it lives; the one before is not used any more.
            if unsafe { buddy.init(region) }.is_err() {
                continue;
            }
            if let Ok(block) = buddy.alloc_pages(ALIGNED / PAGE, ALIGNED) {
                buddy.dealloc_pages(block, ALIGNED / PAGE);
                return SlabAndBuddy { slab: SlabAllocator::new(), buddy };
            }
        }
        panic!("no start suits it");
    }
}

// SAFETY: it is an allocator.
unsafe impl Heap for SlabAndBuddy {
    #[inline(always)]
    fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        if size > LARGEST || align > LARGEST {
            let block = self.buddy.alloc_pages(size.div_ceil(PAGE), align.max(PAGE)).ok();
            return block.map_or(core::ptr::null_mut(), core::ptr::with_exposed_provenance_mut);
        }
        loop {
            match self.slab.alloc(layout(size, align)) {
                Ok(SlabAllocResult::Allocated(ptr)) => return or_null(Some(ptr)),
                Ok(SlabAllocResult::NeedsSlab { size_class, pages }) => {
                    let bytes = pages * PAGE;
                    let Ok(base) = self.buddy.alloc_pages(pages, bytes) else { return core::ptr::null_mut() };
                    self.slab.add_slab(size_class, base, bytes, 0);
                }
                Err(_) => return core::ptr::null_mut(),
            }
        }
    }

    #[inline(always)]
    unsafe fn free(&mut self, ptr: NonNull<u8>, size: usize, align: usize) {
        if size > LARGEST || align > LARGEST {
            self.buddy.dealloc_pages(ptr.addr().get(), size.div_ceil(PAGE));
            return;
        }
        if let SlabDeallocResult::FreeSlab { base, pages } = self.slab.dealloc(ptr, layout(size, align)) {
            self.buddy.dealloc_pages(base, pages);
        }
    }
}
