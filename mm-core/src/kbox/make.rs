//! The other ways to make a box: unwritten, zeroed, pinned, of a layout.

use super::{KBox, release};
use crate::error::AllocError;
use crate::gfp::Gfp;
use crate::global::{Manager, layout_size};
use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::pin::Pin;
use core::ptr::NonNull;

/// Memory for a layout; dangling when it is empty.
#[track_caller]
pub(super) fn memory<M: Manager>(layout: Layout, flags: Gfp, manager: &M) -> Result<NonNull<u8>, AllocError> {
    if layout.size() == 0 {
        // SAFETY: an alignment is not 0.
        return Ok(unsafe { NonNull::new_unchecked(core::ptr::without_provenance_mut(layout.align())) });
    }
    manager.mm().kmalloc(layout_size(layout)?, flags)
}

impl<T, M: Manager> KBox<T, M> {
    /// Memory for a value that is not written yet; [`write`](KBox::write) makes it one.
    ///
    /// # Errors
    /// As [`Mm::kmalloc`](crate::Mm::kmalloc); `TooBig` also for an alignment above the largest block.
    #[track_caller]
    pub fn new_uninit_in(flags: Gfp, manager: M) -> Result<KBox<MaybeUninit<T>, M>, AllocError> {
        let ptr = memory(Layout::new::<T>(), flags, &manager)?.cast();
        Ok(KBox { ptr, manager, owns: PhantomData })
    }

    /// [`new_uninit_in`](Self::new_uninit_in) with every byte zero. [`assume_init`](KBox::assume_init) makes it a `T`,
    /// if zeroes are one.
    ///
    /// ```
    /// use mm_core::{AllocError, GFP_KERNEL, KBox, Manager};
    ///
    /// fn table<M: Manager>(mm: M) -> Result<KBox<[u64; 512], M>, AllocError> {
    ///     let table = KBox::<[u64; 512], M>::try_new_zeroed_in(GFP_KERNEL, mm)?;
    ///     // SAFETY: zeroes are numbers.
    ///     Ok(unsafe { table.assume_init() })
    /// }
    /// ```
    ///
    /// # Errors
    /// As `new_uninit_in`.
    #[track_caller]
    pub fn try_new_zeroed_in(flags: Gfp, manager: M) -> Result<KBox<MaybeUninit<T>, M>, AllocError> {
        Self::new_uninit_in(flags | Gfp::ZERO, manager)
    }

    /// [`new_in`](KBox::new_in) for a value that must not move any more.
    ///
    /// # Errors
    /// As `new_in`.
    #[track_caller]
    pub fn pin_in(value: T, flags: Gfp, manager: M) -> Result<Pin<Self>, AllocError> {
        KBox::new_in(value, flags, manager).map(KBox::into_pin)
    }
}

impl<T: ?Sized, M: Manager> KBox<T, M> {
    /// Promises not to move the value any more.
    pub fn into_pin(self) -> Pin<Self> {
        // SAFETY: the value lies behind a pointer, stays there until it is dropped, and a pinned box gives neither the
        // value nor a `&mut` to it away unless it is `Unpin`.
        unsafe { Pin::new_unchecked(self) }
    }

    /// Gives up ownership for a reference that lives as long as the manager's handle may. The memory is never freed.
    pub fn leak<'a>(self) -> &'a mut T
    where
        M: 'a,
    {
        // SAFETY: the value is live, was ours, and nobody frees it any more.
        unsafe { ManuallyDrop::new(self).ptr.as_mut() }
    }
}

impl<T, M: Manager> KBox<MaybeUninit<T>, M> {
    /// Writes the value.
    pub fn write(mut self, value: T) -> KBox<T, M> {
        (*self).write(value);
        // SAFETY: just written.
        unsafe { self.assume_init() }
    }

    /// Takes the bytes for a value.
    ///
    /// # Safety
    /// They are one.
    pub unsafe fn assume_init(self) -> KBox<T, M> {
        let this = ManuallyDrop::new(self);
        KBox { ptr: this.ptr.cast(), manager: this.manager, owns: PhantomData }
    }
}

impl<M: Manager> KBox<[MaybeUninit<u8>], M> {
    /// Bytes of a layout that no type has: of a length known at run time, aligned up to the largest block.
    ///
    /// ```
    /// use core::alloc::Layout;
    /// use core::mem::MaybeUninit;
    /// use mm_core::{AllocError, GFP_KERNEL, KBox, Manager};
    ///
    /// fn ring<M: Manager>(mm: M, bytes: usize) -> Result<KBox<[MaybeUninit<u8>], M>, AllocError> {
    ///     let layout = Layout::from_size_align(bytes, 4096).map_err(|_| AllocError::TooBig)?;
    ///     KBox::of_layout_in(layout, GFP_KERNEL, mm)
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`Mm::kmalloc`](crate::Mm::kmalloc); `TooBig` also for an alignment above the largest block. An empty layout
    /// takes no memory.
    #[track_caller]
    pub fn of_layout_in(layout: Layout, flags: Gfp, manager: M) -> Result<Self, AllocError> {
        let ptr = NonNull::slice_from_raw_parts(memory(layout, flags, &manager)?.cast(), layout.size());
        Ok(KBox { ptr, manager, owns: PhantomData })
    }
}

impl<T, M: Manager> KBox<[T], M> {
    /// A slice of `len` values, made in order by `make`, which is told the index.
    ///
    /// ```
    /// use mm_core::{AllocError, GFP_KERNEL, KBox, Manager};
    ///
    /// fn squares<M: Manager>(mm: M) -> Result<KBox<[usize], M>, AllocError> {
    ///     KBox::from_fn_in(100, |n| n * n, GFP_KERNEL, mm)
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`Mm::kmalloc_array`](crate::Mm::kmalloc_array); `make` was not called then.
    #[track_caller]
    pub fn from_fn_in(len: usize, make: impl FnMut(usize) -> T, flags: Gfp, manager: M) -> Result<Self, AllocError> {
        let slots = Self::new_uninit_slice_in(len, flags, manager)?;
        // Owned as it grows: what was made is dropped when making the rest unwinds.
        let mut made = Made { slots: ManuallyDrop::new(slots), len: 0 };
        (0..len).map(make).for_each(|value| {
            made.slots[made.len].write(value);
            made.len += 1;
        });
        let slots = made.take();
        // SAFETY: each of the `len` values was written.
        Ok(unsafe { slots.assume_init() })
    }

    /// A slice of `len` values that are not written yet.
    ///
    /// # Errors
    /// As [`Mm::kmalloc_array`](crate::Mm::kmalloc_array), but an empty slice takes no memory.
    #[track_caller]
    pub fn new_uninit_slice_in(len: usize, flags: Gfp, manager: M) -> Result<KBox<[MaybeUninit<T>], M>, AllocError> {
        let layout = Layout::array::<T>(len).map_err(|_| AllocError::TooBig)?;
        let ptr = NonNull::slice_from_raw_parts(memory(layout, flags, &manager)?.cast(), len);
        Ok(KBox { ptr, manager, owns: PhantomData })
    }

    /// [`new_uninit_slice_in`](Self::new_uninit_slice_in) with every byte zero.
    ///
    /// # Errors
    /// As `new_uninit_slice_in`.
    #[track_caller]
    pub fn try_new_zeroed_slice_in(
        len: usize,
        flags: Gfp,
        manager: M,
    ) -> Result<KBox<[MaybeUninit<T>], M>, AllocError> {
        Self::new_uninit_slice_in(len, flags | Gfp::ZERO, manager)
    }
}

impl<T: Clone, M: Manager> KBox<[T], M> {
    /// A copy of a slice.
    ///
    /// # Errors
    /// As [`from_fn_in`](Self::from_fn_in).
    #[track_caller]
    pub fn from_slice_in(slice: &[T], flags: Gfp, manager: M) -> Result<Self, AllocError> {
        Self::from_fn_in(slice.len(), |i| slice[i].clone(), flags, manager)
    }
}

impl<T, M: Manager> KBox<[MaybeUninit<T>], M> {
    /// Takes the bytes for values.
    ///
    /// # Safety
    /// Each of them is one.
    pub unsafe fn assume_init(self) -> KBox<[T], M> {
        let this = ManuallyDrop::new(self);
        let ptr = NonNull::slice_from_raw_parts(this.ptr.cast(), this.ptr.len());
        KBox { ptr, manager: this.manager, owns: PhantomData }
    }
}

/// A slice that is being filled.
struct Made<T, M: Manager> {
    slots: ManuallyDrop<KBox<[MaybeUninit<T>], M>>,
    len: usize,
}

impl<T, M: Manager> Made<T, M> {
    /// The slice, which is the caller's from now on.
    fn take(self) -> KBox<[MaybeUninit<T>], M> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken once, and `this` is not dropped.
        unsafe { ManuallyDrop::take(&mut this.slots) }
    }
}

impl<T, M: Manager> Drop for Made<T, M> {
    fn drop(&mut self) {
        let slots = &mut *self.slots;
        let bytes = size_of_val::<[MaybeUninit<T>]>(slots);
        /// Frees the memory, also when dropping a value unwinds.
        struct Memory<M: Manager>(M, NonNull<u8>, usize);
        impl<M: Manager> Drop for Memory<M> {
            fn drop(&mut self) {
                release(&self.0, self.1, self.2);
            }
        }
        let _memory = Memory(slots.manager, slots.ptr.cast(), bytes);
        let made = core::ptr::slice_from_raw_parts_mut(slots.ptr.cast::<T>().as_ptr(), self.len);
        // SAFETY: the first `len` were written and are not used again.
        unsafe { made.drop_in_place() };
    }
}
