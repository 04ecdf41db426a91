//! A value that is set once while one CPU starts, and read from then on.

use core::cell::UnsafeCell;

/// Empty until [`BootCell::set`]; shared and unchanging afterwards.
pub struct BootCell<T>(UnsafeCell<Option<T>>);

// SAFETY: `set` runs before there is anybody to share with; afterwards the value is only read.
unsafe impl<T: Send + Sync> Sync for BootCell<T> {}

impl<T> Default for BootCell<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> BootCell<T> {
    /// An empty one.
    pub const fn new() -> Self {
        BootCell(UnsafeCell::new(None))
    }

    /// Fills it and returns the value.
    ///
    /// # Safety
    /// Called at most once, by the starting CPU with interrupts off, with no reference from [`BootCell::get`] alive.
    pub unsafe fn set(&self, value: T) -> &T {
        // SAFETY: the caller is alone, so this is the only reference.
        let slot = unsafe { &mut *self.0.get() };
        slot.insert(value)
    }

    /// The value, once it is set.
    pub fn get(&self) -> Option<&T> {
        // SAFETY: after `set` nobody writes, and `set` runs while nobody else does.
        unsafe { (*self.0.get()).as_ref() }
    }
}
