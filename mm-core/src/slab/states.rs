//! Where the states of kmalloc's classes stand: in the manager itself, or in memory set aside at boot.

use super::{CacheState, MAX_CLASSES};
use crate::lock::Locked;
use crate::platform::RawLock;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// The states of kmalloc's classes; a backend chooses between [`InManager`] and [`SetAside`].
///
/// # Safety
/// `get` gives the same state for the same class every time, and different ones for different classes.
pub unsafe trait ClassStates<L: RawLock>: Send + Sync {
    /// None used yet.
    const NEW: Self;

    /// Bytes that `init` is to set aside for `count` states.
    fn bytes(count: usize) -> usize;

    /// Takes over what was set aside. Called once, while no other CPU uses the manager.
    ///
    /// # Safety
    /// `at` is aligned to 8, `bytes(count)` long and nobody else's, for as long as the manager lives.
    unsafe fn place(&self, at: *mut u8, count: usize);

    /// The state of a class; `None` before `init` where it was not set aside yet.
    ///
    /// # Safety
    /// `class` is below the `count` of [`place`](Self::place).
    unsafe fn get(&self, class: usize) -> Option<&Locked<L, CacheState>>;
}

/// In the manager: an allocation is spared a load.
pub struct InManager<L: RawLock>([Locked<L, CacheState>; MAX_CLASSES]);

// SAFETY: one array element for each class.
unsafe impl<L: RawLock> ClassStates<L> for InManager<L> {
    const NEW: Self = InManager([const { Locked::new(CacheState::new()) }; MAX_CLASSES]);

    fn bytes(_: usize) -> usize {
        0
    }

    unsafe fn place(&self, _: *mut u8, _: usize) {}

    #[inline(always)]
    unsafe fn get(&self, class: usize) -> Option<&Locked<L, CacheState>> {
        // SAFETY: there are as many classes at most.
        Some(unsafe { self.0.get_unchecked(class) })
    }
}

/// Beside the frame table: the manager itself stays small, and there are as many as the page size has classes.
pub struct SetAside<L: RawLock>(AtomicPtr<Locked<L, CacheState>>);

// SAFETY: one element for each class of an array that `place` made.
unsafe impl<L: RawLock> ClassStates<L> for SetAside<L> {
    const NEW: Self = SetAside(AtomicPtr::new(core::ptr::null_mut()));

    fn bytes(count: usize) -> usize {
        const { assert!(align_of::<Locked<L, CacheState>>() <= 8, "the platform's lock is aligned to more than 8 bytes") };
        count * size_of::<Locked<L, CacheState>>()
    }

    unsafe fn place(&self, at: *mut u8, count: usize) {
        let states = at.cast::<Locked<L, CacheState>>();
        for class in 0..count {
            // SAFETY: room for as many, by the caller's word.
            unsafe { states.add(class).write(Locked::new(CacheState::new())) };
        }
        self.0.store(states, Relaxed);
    }

    #[inline(always)]
    unsafe fn get(&self, class: usize) -> Option<&Locked<L, CacheState>> {
        let states = self.0.load(Relaxed);
        // SAFETY: placed, and the class is one of them by the caller's word.
        (!states.is_null()).then(|| unsafe { &*states.add(class) })
    }
}
