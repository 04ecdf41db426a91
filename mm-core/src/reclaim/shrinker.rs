//! Shrinkers: whoever keeps memory he could do without, and says so.

use super::Round;
use crate::backend::Backend;
use crate::error::{AllocError, MmError};
use crate::gfp::Gfp;
use crate::lock::Locked;
use crate::manager::Mm;
use crate::platform::Platform;
#[cfg(not(feature = "small"))]
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// The most shrinkers a manager can have.
pub const MAX_SHRINKERS: usize = if cfg!(feature = "small") { 4 } else { 8 };

/// What is asked of a shrinker.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ShrinkRequest {
    /// The flags of the request that found no memory.
    pub flags: Gfp,
    /// The pages it wants.
    pub pages: usize,
    /// How many of its things the shrinker should look at; of no meaning when it is asked how many it has.
    pub scan: usize,
}

/// Somebody who keeps memory that can be had again when it is short, as Linux's `struct shrinker`.
///
/// It is called in a task that asked for memory with a flag that may wait, with no lock of the manager held. It may
/// free and allocate; what it allocates is not reclaimed for. What it says is not trusted: whatever it returns, it is
/// asked at most once in each of at most four rounds.
pub trait Shrinker: Sync {
    /// How many things could be freed now; 0 when there is nothing to do. Should be quick, and may be a guess.
    fn count(&self, request: &ShrinkRequest) -> usize;

    /// Looks at up to `request.scan` things, frees what can be freed, and returns how many that were. 0 says that
    /// there is no use in asking again.
    fn scan(&self, request: &ShrinkRequest) -> usize;
}

/// A registered shrinker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ShrinkerId {
    slot: u8,
    /// Tells one user of the slot from the next.
    serial: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    shrinker: Option<&'static dyn Shrinker>,
    serial: u32,
}

struct Table {
    entries: [Entry; MAX_SHRINKERS],
    /// The slot of the one that runs; there is no second, since one context reclaims at a time.
    running: Option<u8>,
}

impl Table {
    const EMPTY: Table = Table { entries: [Entry { shrinker: None, serial: 0 }; MAX_SHRINKERS], running: None };

    /// Puts a shrinker into a free slot, whose next user it becomes. A slot that has had as many users as there are
    /// serial numbers stays free for good: with the first number once more an old id would name somebody else.
    fn insert(&mut self, shrinker: &'static dyn Shrinker) -> Option<ShrinkerId> {
        let is_free = |entry: &Entry| entry.shrinker.is_none() && entry.serial != u32::MAX;
        let slot = self.entries.iter().position(is_free)?;
        let entry = &mut self.entries[slot];
        entry.shrinker = Some(shrinker);
        entry.serial += 1;
        Some(ShrinkerId { slot: slot as u8, serial: entry.serial })
    }
}

/// The table of shrinkers.
pub struct Shrinkers<P: Platform, B: Backend> {
    table: Locked<P::Lock, Table>,
    /// Null before there was one.
    #[cfg(not(feature = "small"))]
    round: AtomicPtr<Round<P, B>>,
    #[cfg(feature = "small")]
    round: core::marker::PhantomData<Round<P, B>>,
}

impl<P: Platform, B: Backend> Shrinkers<P, B> {
    pub const fn new() -> Self {
        Shrinkers {
            table: Locked::new(Table::EMPTY),
            #[cfg(not(feature = "small"))]
            round: AtomicPtr::new(core::ptr::null_mut()),
            #[cfg(feature = "small")]
            round: core::marker::PhantomData,
        }
    }

    /// How they are asked, if there may be any.
    #[cfg(not(feature = "small"))]
    pub(super) fn round(&self) -> Option<&Round<P, B>> {
        // SAFETY: null, or `Mm::ROUND`.
        unsafe { self.round.load(Relaxed).as_ref() }
    }

    /// Asks the shrinker in `slot` to look at a share of its things: an eighth in the first of four rounds, all in the
    /// last. Returns how many it says it freed.
    pub fn ask(&self, slot: usize, mut request: ShrinkRequest, rounds_left: usize) -> usize {
        /// Counts as running until it returns, or unwinds.
        struct Running<'a, P: Platform, B: Backend>(&'a Shrinkers<P, B>);
        impl<P: Platform, B: Backend> Drop for Running<'_, P, B> {
            fn drop(&mut self) {
                self.0.table.lock().running = None;
            }
        }
        let mut table = self.table.lock();
        let Some(shrinker) = table.entries[slot].shrinker else { return 0 };
        table.running = Some(slot as u8);
        drop(table);
        let _running = Running(self);
        let count = shrinker.count(&request);
        if count == 0 {
            return 0;
        }
        request.scan = (count >> rounds_left.min(3)).max(request.pages).max(LEAST).min(count);
        shrinker.scan(&request)
    }
}

/// The fewest things a shrinker is asked to look at, if it has as many: less is not worth the call.
const LEAST: usize = 32;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Registers a shrinker: from now on it is asked when memory is short.
    ///
    /// Context: any. Cost: constant; there are at most eight (four with feature `small`).
    ///
    /// # Errors
    /// `Alloc(NoMemory)` when there are as many, `Exists` when this one is registered.
    pub fn register_shrinker(&self, shrinker: &'static dyn Shrinker) -> Result<ShrinkerId, MmError> {
        let mut table = self.shrinkers.table.lock();
        let same = |entry: &Entry| {
            entry.shrinker.is_some_and(|known| core::ptr::addr_eq(known, shrinker) && size_of_val(shrinker) != 0)
        };
        if table.entries.iter().any(same) {
            return Err(MmError::Exists);
        }
        let id = table.insert(shrinker).ok_or(AllocError::NoMemory)?;
        self.use_reclaim();
        #[cfg(not(feature = "small"))]
        self.shrinkers.round.store(core::ptr::from_ref(Self::ROUND).cast_mut(), Relaxed);
        Ok(id)
    }

    /// Takes a shrinker out: when this returns `Ok` it is not running and will not be asked again.
    ///
    /// Context: any. Cost: constant.
    ///
    /// # Errors
    /// `Busy` while it runs, so always when it calls this itself; `Inval` when it is not registered (any more).
    pub fn unregister_shrinker(&self, id: ShrinkerId) -> Result<(), MmError> {
        let mut table = self.shrinkers.table.lock();
        let is_running = table.running == Some(id.slot);
        let entry = &mut table.entries[usize::from(id.slot) % MAX_SHRINKERS];
        if entry.shrinker.is_none() || entry.serial != id.serial {
            return Err(MmError::Inval);
        }
        if is_running {
            return Err(MmError::Busy(1));
        }
        entry.shrinker = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing(#[allow(dead_code, reason = "a shrinker without size is like any other")] u8);

    impl Shrinker for Nothing {
        fn count(&self, _: &ShrinkRequest) -> usize {
            0
        }

        fn scan(&self, _: &ShrinkRequest) -> usize {
            0
        }
    }

    #[test]
    fn a_slot_whose_serial_numbers_are_spent_is_not_used_again() {
        static NOTHING: Nothing = Nothing(0);
        let mut table = Table::EMPTY;
        table.entries.iter_mut().for_each(|entry| entry.serial = u32::MAX - 1);
        let mut known = std::vec::Vec::new();
        for slot in 0..MAX_SHRINKERS {
            let id = table.insert(&NOTHING).unwrap();
            assert_eq!((usize::from(id.slot), id.serial), (slot, u32::MAX));
            assert!(!known.contains(&id));
            known.push(id);
            table.entries[slot].shrinker = None;
        }
        // 0 or 1 once more would be the id of somebody who had it long ago.
        assert_eq!(table.insert(&NOTHING), None);
    }
}
