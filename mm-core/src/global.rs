//! Handles: how RAII types name their manager, and the macro that makes a board's global one.

use crate::backend::Backend;
use crate::error::AllocError;
use crate::gfp::{GFP_NOWAIT, Gfp};
use crate::manager::Mm;
use crate::platform::{Bug, Platform};
use core::alloc::Layout;

/// A copyable handle to a manager: `&Mm`, or the zero-sized type that [`global_mm!`](crate::global_mm) makes.
///
/// # Safety
/// `mm` gives the same manager every time, and every copy of the handle gives that one.
pub unsafe trait Manager: Copy {
    /// The manager's platform.
    type Platform: Platform;
    /// The manager's backend.
    type Backend: Backend;

    /// The manager.
    fn mm(&self) -> &Mm<Self::Platform, Self::Backend>;
}

// SAFETY: a reference refers to one manager.
unsafe impl<P: Platform, B: Backend> Manager for &Mm<P, B> {
    type Platform = P;
    type Backend = B;

    #[inline(always)]
    fn mm(&self) -> &Mm<P, B> {
        self
    }
}

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Allocates for a [`Layout`], as `GlobalAlloc` does: never waits, null on failure.
    ///
    /// Alignment is honoured up to the largest block. Zero-sized layouts get null.
    #[inline]
    pub fn alloc_layout(&self, layout: Layout, flags: Gfp) -> *mut u8 {
        match layout_size(layout).and_then(|size| self.kmalloc(size, flags)) {
            Ok(ptr) => ptr.as_ptr(),
            Err(_) => core::ptr::null_mut(),
        }
    }

    /// Frees what [`alloc_layout`](Self::alloc_layout) gave; a wrong free goes to `Platform::bug`.
    #[inline]
    pub fn dealloc_layout(&self, ptr: *mut u8) {
        if let Err(error) = self.kfree(ptr) {
            self.platform().bug(&Bug::BadFree { addr: ptr.addr(), error });
        }
    }

    /// Changes the size of what `alloc_layout` gave; null leaves the old object as it was.
    ///
    /// # Safety
    /// `ptr` came from `alloc_layout` with `layout`, and `size` is not 0.
    pub unsafe fn realloc_layout(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(size, layout.align()) else { return core::ptr::null_mut() };
        // SAFETY: by the caller's word.
        unsafe { self.resize_layout(ptr, layout, new, ALLOCATOR_FLAGS) }
    }

    /// Changes the layout of what `alloc_layout` gave, in place when it fits and not less than half of it would be
    /// used; null leaves the old object as it was. What is moved is allocated with `flags`.
    ///
    /// # Safety
    /// `ptr` came from `alloc_layout` with `old`, and `new` is not empty.
    pub unsafe fn resize_layout(&self, ptr: *mut u8, old: Layout, new: Layout, flags: Gfp) -> *mut u8 {
        let Ok(needed) = layout_size(new) else { return core::ptr::null_mut() };
        let usable = self.ksize(ptr).unwrap_or(0);
        let fits = needed <= usable && ptr.addr() & (new.align() - 1) == 0;
        if fits && needed > usable / 2 {
            return ptr;
        }
        let moved = self.alloc_layout(new, flags);
        if moved.is_null() {
            // Moving a small rest would save memory, but shrinking must not fail for want of it.
            return if fits { ptr } else { moved };
        }
        // SAFETY: the old object is at least `old.size()` long, the new one `new.size()`, and they are distinct.
        unsafe { moved.copy_from_nonoverlapping(ptr, old.size().min(new.size())) };
        self.dealloc_layout(ptr);
        moved
    }
}

/// What Rust's allocator asks with: it has no way to wait or to be told.
#[doc(hidden)]
pub const ALLOCATOR_FLAGS: Gfp = GFP_NOWAIT.union(Gfp::NOWARN);

/// The size whose natural alignment covers the layout's.
pub(crate) fn layout_size(layout: Layout) -> Result<usize, AllocError> {
    layout.size().checked_next_multiple_of(layout.align()).ok_or(AllocError::TooBig)
}

/// Makes a board's manager: the static, a zero-sized handle to it, its RAII types, and Rust's `GlobalAlloc`.
///
/// ```text
/// rtmm::global_mm! {
///     /// The board's memory manager.
///     pub static MM: Mm<BoardPlatform, Backend> = Mm::new(BoardPlatform, Backend::new());
///     #[global_allocator]      // leave out to keep another Rust allocator
/// }
/// ```
#[macro_export]
macro_rules! global_mm {
    (
        $(#[$doc:meta])*
        pub static $name:ident: Mm<$platform:ty, $backend:ty> = $init:expr;
        #[global_allocator]
    ) => {
        $crate::global_mm! { $(#[$doc])* pub static $name: Mm<$platform, $backend> = $init; }

        #[global_allocator]
        static RUST_ALLOCATOR: Kernel = Kernel;
    };
    (
        $(#[$doc:meta])*
        pub static $name:ident: Mm<$platform:ty, $backend:ty> = $init:expr;
    ) => {
        $(#[$doc])*
        pub static $name: $crate::Mm<$platform, $backend> = $init;

        /// The zero-sized handle to the global manager.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Kernel;

        // SAFETY: there is one static.
        unsafe impl $crate::Manager for Kernel {
            type Platform = $platform;
            type Backend = $backend;

            #[inline(always)]
            fn mm(&self) -> &$crate::Mm<$platform, $backend> {
                &$name
            }
        }

        // SAFETY: objects are distinct, live until freed, and aligned as the layout asks; failure is null.
        unsafe impl ::core::alloc::GlobalAlloc for Kernel {
            #[inline]
            unsafe fn alloc(&self, layout: ::core::alloc::Layout) -> *mut u8 {
                $name.alloc_layout(layout, $crate::ALLOCATOR_FLAGS)
            }

            #[inline]
            unsafe fn dealloc(&self, ptr: *mut u8, _layout: ::core::alloc::Layout) {
                $name.dealloc_layout(ptr)
            }

            #[inline]
            unsafe fn alloc_zeroed(&self, layout: ::core::alloc::Layout) -> *mut u8 {
                $name.alloc_layout(layout, $crate::ALLOCATOR_FLAGS.union($crate::Gfp::ZERO))
            }

            #[inline]
            unsafe fn realloc(&self, ptr: *mut u8, layout: ::core::alloc::Layout, size: usize) -> *mut u8 {
                // SAFETY: the caller's contract is the same.
                unsafe { $name.realloc_layout(ptr, layout, size) }
            }
        }

        /// An owned value in memory of the global manager.
        pub type KBox<T> = $crate::KBox<T, Kernel>;
        /// A cache of values in memory of the global manager.
        pub type KmemCache<T> = $crate::KmemCache<T, Kernel>;
        /// Owned pages of the global manager.
        pub type Pages = $crate::Pages<Kernel>;
        /// An owned vmalloc area of the global manager.
        pub type VmArea = $crate::VmArea<Kernel>;
        /// A frame of the global manager with a kernel address.
        #[allow(dead_code, reason = "a board may re-export it or not")]
        pub type KMap = $crate::KMap<Kernel>;
        /// An owned device mapping of the global manager.
        pub type IoMapping = $crate::IoMapping<Kernel>;
    };
}
