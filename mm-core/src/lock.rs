//! A value behind a [`RawLock`], and the single-core lock.

use crate::platform::RawLock;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

/// A value that is only reached with its lock held.
pub struct Locked<L: RawLock, T> {
    lock: L,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached through a guard, and `RawLock` admits one holder at a time.
unsafe impl<L: RawLock, T: Send> Sync for Locked<L, T> {}

impl<L: RawLock, T> Locked<L, T> {
    /// An open lock around `value`.
    pub const fn new(value: T) -> Self {
        Locked { lock: L::NEW, value: UnsafeCell::new(value) }
    }

    /// Takes the lock until the guard is dropped.
    ///
    /// Inside this crate a guard never outlives its function and no lock is taken twice; from outside the same must be
    /// promised, see [`acquire`](Self::acquire).
    #[inline(always)]
    pub(crate) fn lock(&self) -> Guard<'_, L, T> {
        let token = self.lock.acquire();
        Guard { owner: self, token, here: PhantomData }
    }

    /// The guard of a section that is open already: `token` comes from a lock of this type.
    ///
    /// # Safety
    /// The section is this lock's, or `L::EXCLUDES_ALL`; and nothing else ends it.
    #[inline(always)]
    pub(crate) unsafe fn resume(&self, token: L::Token) -> Guard<'_, L, T> {
        Guard { owner: self, token, here: PhantomData }
    }

    /// Where the value is, by a pointer that is good for the lock around it too.
    #[cfg(feature = "small")]
    #[inline(always)]
    pub(crate) fn value(&self) -> *const T {
        core::ptr::from_ref(self).cast::<u8>().wrapping_add(core::mem::offset_of!(Self, value)).cast()
    }

    /// The lock around a value.
    ///
    /// # Safety
    /// The pointer comes from [`value`](Self::value), and the lock is there for as long as the reference.
    #[cfg(feature = "small")]
    #[inline(always)]
    pub(crate) unsafe fn around<'a>(value: *const T) -> &'a Self {
        // SAFETY: by the caller's word.
        unsafe { &*value.cast::<u8>().wrapping_sub(core::mem::offset_of!(Self, value)).cast() }
    }

    /// Takes the lock if nobody has it; see [`RawLock::try_acquire`].
    #[cold]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, L, T>> {
        let token = self.lock.try_acquire()?;
        Some(Guard { owner: self, token, here: PhantomData })
    }

    /// Takes the lock until the guard is dropped.
    ///
    /// # Safety
    /// This context holds no guard of this lock, and guards of all locks are dropped in the reverse order of their
    /// making.
    #[inline(always)]
    pub unsafe fn acquire(&self) -> Guard<'_, L, T> {
        self.lock()
    }
}

/// The value of a [`Locked`], with the lock held.
#[must_use = "the lock opens when the guard is dropped"]
pub struct Guard<'a, L: RawLock, T> {
    owner: &'a Locked<L, T>,
    token: L::Token,
    /// A section ends on the CPU it began on.
    here: PhantomData<*const ()>,
}

impl<'a, L: RawLock, T> Guard<'a, L, T> {
    /// Opens the lock for a moment: others may get it, and the value may be another afterwards.
    #[inline(always)]
    pub(crate) fn pause(&mut self) {
        // SAFETY: the token is the one of the last `acquire`, and guards made since are gone, for a guard never
        // outlives a later one.
        unsafe { self.owner.lock.release(self.token) };
        self.token = self.owner.lock.acquire();
    }

    /// Leaves the section open and hands out its token, for [`Locked::resume`] in another function: a guard is passed
    /// through memory, a token in a register.
    #[inline(always)]
    pub(crate) fn suspend(self) -> L::Token {
        core::mem::ManuallyDrop::new(self).token
    }

    /// [`RawLock::was_masked`] of this section.
    #[inline(always)]
    pub(crate) fn was_masked(&self) -> Option<bool> {
        L::was_masked(self.token)
    }
}

impl<L: RawLock, T> Deref for Guard<'_, L, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held until the guard is dropped.
        unsafe { &*self.owner.value.get() }
    }
}

impl<L: RawLock, T> DerefMut for Guard<'_, L, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held until the guard is dropped, and `self` is borrowed exclusively.
        unsafe { &mut *self.owner.value.get() }
    }
}

impl<L: RawLock, T> Drop for Guard<'_, L, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the token is the one `lock` got, and guards are dropped in the reverse order of their making.
        unsafe { self.owner.lock.release(self.token) }
    }
}

/// The single-core lock: a critical section of the `critical-section` crate. It takes no room.
#[cfg(feature = "critical-section")]
pub struct CriticalSectionLock(());

// SAFETY: a critical section excludes every other one; nesting restores in stack order by that crate's contract.
#[cfg(feature = "critical-section")]
unsafe impl RawLock for CriticalSectionLock {
    const NEW: Self = CriticalSectionLock(());
    type Token = critical_section::RestoreState;
    const EXCLUDES_ALL: bool = true;

    #[inline(always)]
    fn acquire(&self) -> Self::Token {
        // SAFETY: `release` is called with the state this returns, in stack order, by the contract of `RawLock`.
        unsafe { critical_section::acquire() }
    }

    #[inline(always)]
    unsafe fn release(&self, token: Self::Token) {
        // SAFETY: the caller hands back the token of the matching `acquire`.
        unsafe { critical_section::release(token) }
    }
}
