//! `KBox`: an owned value in kmalloc memory.

mod make;

use crate::error::AllocError;
use crate::gfp::Gfp;
use crate::global::Manager;
use crate::platform::{Bug, Platform};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// An owned value in kmalloc memory, freed when dropped. Making one can fail; nothing aborts.
///
/// Zero-sized values take no memory. A value is aligned as its type asks, up to the largest block.
///
/// ```
/// use mm_core::{AllocError, GFP_KERNEL, KBox, Manager};
///
/// fn counter<M: Manager>(mm: M) -> Result<KBox<u32, M>, AllocError> {
///     let mut counter = KBox::new_in(0, GFP_KERNEL, mm)?;
///     *counter += 1;
///     Ok(counter)
/// }
/// ```
pub struct KBox<T: ?Sized, M: Manager> {
    ptr: NonNull<T>,
    manager: M,
    owns: PhantomData<T>,
}

// SAFETY: a box owns its value.
unsafe impl<T: ?Sized + Send, M: Manager + Send> Send for KBox<T, M> {}
// SAFETY: a shared box gives shared references only.
unsafe impl<T: ?Sized + Sync, M: Manager + Sync> Sync for KBox<T, M> {}

impl<T, M: Manager> KBox<T, M> {
    /// Moves `value` into memory of `manager`.
    ///
    /// # Errors
    /// As [`Mm::kmalloc`](crate::Mm::kmalloc). The value is dropped then.
    #[track_caller]
    pub fn new_in(value: T, flags: Gfp, manager: M) -> Result<Self, AllocError> {
        let ptr = make::memory(Layout::new::<T>(), flags, &manager)?.cast::<T>();
        // SAFETY: the memory is ours, long enough and aligned.
        unsafe { ptr.write(value) };
        Ok(KBox { ptr, manager, owns: PhantomData })
    }

    /// Moves the value out and frees the memory.
    pub fn into_inner(self) -> T {
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: the value is live, and is not dropped again: `this` is never dropped.
        let value = unsafe { this.ptr.read() };
        release(&this.manager, this.ptr.cast(), size_of::<T>());
        value
    }
}

impl<T: ?Sized, M: Manager> KBox<T, M> {
    /// Gives up ownership. [`from_raw_in`](Self::from_raw_in) takes it back.
    pub fn into_raw(self) -> NonNull<T> {
        core::mem::ManuallyDrop::new(self).ptr
    }

    /// Takes ownership of what [`into_raw`](Self::into_raw) gave.
    ///
    /// # Safety
    /// `ptr` came from `into_raw` of a box of the same manager, and is owned by nobody else.
    pub unsafe fn from_raw_in(ptr: NonNull<T>, manager: M) -> Self {
        KBox { ptr, manager, owns: PhantomData }
    }
}

fn release<M: Manager>(manager: &M, ptr: NonNull<u8>, size: usize) {
    if size == 0 {
        return;
    }
    let mm = manager.mm();
    if let Err(error) = mm.kfree(ptr.as_ptr()) {
        mm.platform().bug(&Bug::BadFree { addr: ptr.as_ptr().addr(), error });
    }
}

impl<T: ?Sized, M: Manager> Drop for KBox<T, M> {
    fn drop(&mut self) {
        /// Frees the memory, also when dropping the value unwinds.
        struct Memory<'a, M: Manager>(&'a M, NonNull<u8>, usize);
        impl<M: Manager> Drop for Memory<'_, M> {
            fn drop(&mut self) {
                release(self.0, self.1, self.2);
            }
        }
        // SAFETY: the value is live and ours.
        let size = unsafe { size_of_val(self.ptr.as_ref()) };
        let _memory = Memory(&self.manager, self.ptr.cast(), size);
        // SAFETY: as above; it is not used again.
        unsafe { self.ptr.drop_in_place() };
    }
}

// The value does not move with the box.
impl<T: ?Sized, M: Manager> Unpin for KBox<T, M> {}

impl<T: ?Sized, M: Manager> Deref for KBox<T, M> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the value is live and ours.
        unsafe { self.ptr.as_ref() }
    }
}

impl<T: ?Sized, M: Manager> DerefMut for KBox<T, M> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the value is live and ours.
        unsafe { self.ptr.as_mut() }
    }
}

impl<T: ?Sized + fmt::Debug, M: Manager> fmt::Debug for KBox<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display, M: Manager> fmt::Display for KBox<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
