//! Caches whose objects are watched: red zones and poison.

use super::{CacheFlags, RawKmemCache};
use crate::backend::Backend;
use crate::error::{AllocError, FreeError, MmError};
use crate::gfp::Gfp;
use crate::global::Manager;
use crate::slab::{Geometry, Guarded, Hooks, Poison, Spoilt, ZONE, Zones};
use core::panic::Location;
use core::ptr::NonNull;

/// How slabs are cut for the flags, and what is done to their objects.
pub(super) fn cut<B: Backend>(
    (size, slot, align): (usize, usize, usize),
    flags: CacheFlags,
    mut hooks: Hooks,
) -> Result<(Geometry, Hooks), MmError> {
    let zones = if flags.contains(CacheFlags::RED_ZONE) { Zones::Red } else { Zones::None };
    let poison = if flags.contains(CacheFlags::POISON) { Poison::Free } else { Poison::None };
    if (zones, poison) == (Zones::None, Poison::None) {
        return Ok((Geometry::for_cache(slot, align, B::PAGE_SIZE), hooks));
    }
    if poison == Poison::Free && hooks.has_constructor() {
        // Poison would undo it.
        return Err(MmError::Inval);
    }
    hooks.guarded = Some(Guarded { object: size, zones, poison });
    if zones == Zones::None {
        return Ok((Geometry::for_cache(slot, align, B::PAGE_SIZE), hooks));
    }
    let whole = slot + ZONE.next_multiple_of(align) * 2;
    if whole > B::PAGE_SIZE << B::MAX_ORDER {
        return Err(AllocError::TooBig.into());
    }
    Ok((Geometry::for_guarded(size, align, ZONE, B::PAGE_SIZE), hooks))
}

impl<M: Manager> RawKmemCache<M> {
    fn report(&self, spoilt: Spoilt, caller: &'static Location<'static>) {
        self.manager.mm().cache_slabs(self.control()).report(self.name(), spoilt, caller);
    }

    /// An object that was taken, or another in its place when it was spoilt.
    #[cold]
    #[track_caller]
    pub(super) fn sound(&self, object: NonNull<u8>, flags: Gfp) -> Result<NonNull<u8>, AllocError> {
        let slabs = self.manager.mm().cache_slabs(self.control());
        slabs.sound(self.name(), object, flags, Location::caller())
    }

    /// [`free`](Self::free) of an object that is watched.
    #[cold]
    #[track_caller]
    pub(super) fn free_guarded(&self, guarded: &Guarded, addr: usize) -> Result<(), FreeError> {
        match self.manager.mm().cache_slabs(self.control()).give_guarded(guarded, addr) {
            Ok(None) => Ok(()),
            Ok(Some(spoilt)) => {
                self.report(spoilt, Location::caller());
                Ok(())
            }
            Err(FreeError::WrongAllocator) => Err(self.refusal(addr)),
            Err(error) => Err(error),
        }
    }

    /// Looks at every object of a cache made with `RED_ZONE` or `POISON`, as Linux's `validate_slab_cache`: reports
    /// each that was overwritten, and returns how many. A free one stays where it is, and is withdrawn when it is
    /// taken.
    ///
    /// Context: task. Cost: walks the frame table; one slab under the cache's lock at a time. A diagnostic, not
    /// bounded.
    #[track_caller]
    pub fn validate(&self) -> usize {
        let control = self.control();
        let Some(guarded) = &control.hooks.guarded else { return 0 };
        let slabs = self.manager.mm().cache_slabs(control);
        let (mut from, mut found) = ((0, 0), 0);
        while let Some((spoilt, next)) = slabs.find_spoilt(guarded, from) {
            self.report(spoilt, Location::caller());
            (from, found) = (next, found + 1);
        }
        found
    }
}
