//! `With`: a manager together with the flags to allocate with, as containers want it.

use crate::backend::Backend;
use crate::gfp::Gfp;
use crate::global::Manager;
use crate::manager::Mm;
use crate::platform::Platform;

/// A manager and the flags of every allocation made through it.
///
/// With feature `allocator-api2` it is an `allocator_api2::alloc::Allocator`, so that the containers of that crate, of
/// `hashbrown` and others live in kmalloc memory of this manager:
///
#[cfg_attr(feature = "allocator-api2", doc = "```")]
#[cfg_attr(not(feature = "allocator-api2"), doc = "```ignore")]
/// use allocator_api2::vec::Vec;
/// use mm_core::{GFP_KERNEL, Manager, With};
///
/// fn squares<M: Manager>(mm: M) -> Vec<u32, With<M>> {
///     let mut list = Vec::new_in(With::new(mm, GFP_KERNEL));
///     if list.try_reserve(10).is_ok() {
///         list.extend((0..10).map(|n| n * n));
///     }
///     list
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct With<M: Manager> {
    manager: M,
    flags: Gfp,
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// This manager with flags for every allocation.
    pub fn with(&self, flags: Gfp) -> With<&Self> {
        With::new(self, flags)
    }
}

impl<M: Manager> With<M> {
    /// A manager and flags.
    pub const fn new(manager: M, flags: Gfp) -> Self {
        With { manager, flags }
    }

    /// The manager.
    pub fn manager(&self) -> M {
        self.manager
    }

    /// The flags.
    pub fn flags(&self) -> Gfp {
        self.flags
    }
}

#[cfg(feature = "allocator-api2")]
mod allocator {
    use super::With;
    use crate::gfp::Gfp;
    use crate::global::Manager;
    use allocator_api2::alloc::{AllocError, Allocator};
    use core::alloc::Layout;
    use core::ptr::NonNull;

    /// Nothing at an address that is aligned as asked.
    fn nothing(layout: Layout) -> NonNull<[u8]> {
        // SAFETY: an alignment is not 0.
        let at = unsafe { NonNull::new_unchecked(core::ptr::without_provenance_mut(layout.align())) };
        NonNull::slice_from_raw_parts(at, 0)
    }

    fn block(at: *mut u8, size: usize) -> Result<NonNull<[u8]>, AllocError> {
        NonNull::new(at).map(|at| NonNull::slice_from_raw_parts(at, size)).ok_or(AllocError)
    }

    impl<M: Manager> With<M> {
        #[inline]
        fn take(&self, layout: Layout, flags: Gfp) -> Result<NonNull<[u8]>, AllocError> {
            if layout.size() == 0 {
                return Ok(nothing(layout));
            }
            block(self.manager.mm().alloc_layout(layout, flags), layout.size())
        }

        /// # Safety
        /// As for [`Allocator::grow`] and [`Allocator::shrink`].
        unsafe fn resize(
            &self,
            ptr: NonNull<u8>,
            old: Layout,
            new: Layout,
            flags: Gfp,
        ) -> Result<NonNull<[u8]>, AllocError> {
            if old.size() == 0 {
                return self.take(new, flags);
            }
            if new.size() == 0 {
                self.manager.mm().dealloc_layout(ptr.as_ptr());
                return Ok(nothing(new));
            }
            // SAFETY: by the caller's word the block is live, came with `old`, and `new` is not empty.
            let at = unsafe { self.manager.mm().resize_layout(ptr.as_ptr(), old, new, flags) };
            block(at, new.size())
        }
    }

    // SAFETY: blocks are distinct and live until they are deallocated, whatever becomes of the handle; every copy of it
    // frees them as well as it does.
    unsafe impl<M: Manager> Allocator for With<M> {
        #[inline]
        fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            self.take(layout, self.flags)
        }

        #[inline]
        fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            self.take(layout, self.flags | Gfp::ZERO)
        }

        #[inline]
        unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
            if layout.size() != 0 {
                self.manager.mm().dealloc_layout(ptr.as_ptr());
            }
        }

        unsafe fn grow(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
            // SAFETY: by the caller's word.
            unsafe { self.resize(ptr, old, new, self.flags) }
        }

        unsafe fn grow_zeroed(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
            // SAFETY: by the caller's word.
            let grown = unsafe { self.resize(ptr, old, new, self.flags)? };
            // SAFETY: the block is ours and `new.size()` long, which is not less than the old size.
            unsafe { grown.cast::<u8>().add(old.size()).write_bytes(0, new.size() - old.size()) };
            Ok(grown)
        }

        unsafe fn shrink(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
            // SAFETY: by the caller's word.
            unsafe { self.resize(ptr, old, new, self.flags) }
        }
    }
}
