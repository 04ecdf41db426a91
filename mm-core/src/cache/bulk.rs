//! Many objects of a cache at a time.

use super::RawKmemCache;
use crate::error::{AllocError, FreeError};
use crate::gfp::Gfp;
use crate::global::Manager;
use crate::platform::{Bug, Platform};
use crate::slab::BATCH;
use core::panic::Location;

impl<M: Manager> RawKmemCache<M> {
    /// Fills `objects` with objects, as Linux's `kmem_cache_alloc_bulk`: all of it or nothing.
    ///
    /// Context: any; a task when the flags hold `WAIT`. Cost: a few instructions an object, 32 objects in one lock
    /// hold, and what new slabs take.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc). What was taken so far went back, and `objects` holds null pointers.
    #[track_caller]
    #[doc(alias = "kmem_cache_alloc_bulk")]
    pub fn alloc_bulk(&self, flags: Gfp, objects: &mut [*mut u8]) -> Result<(), AllocError> {
        let caller = Location::caller();
        let (pages, zero) = self.admit(flags, caller)?;
        let slabs = self.manager.mm().cache_slabs(self.control());
        let mut taken = 0;
        #[cfg(feature = "slab-debug")]
        if self.control().hooks.guarded.is_some() {
            // Each is looked at by itself.
            for at in 0..objects.len() {
                match self.alloc(flags) {
                    Ok(object) => objects[at] = object.as_ptr(),
                    Err(error) => {
                        self.take_back(&objects[..at]);
                        objects.fill(core::ptr::null_mut());
                        return Err(error);
                    }
                }
            }
            return Ok(());
        }
        while taken < objects.len() {
            let at_hand = slabs.take_batch(&mut objects[taken..]);
            taken += at_hand;
            if at_hand < BATCH && taken < objects.len() {
                match slabs.alloc_slab(pages, None) {
                    Ok(object) => objects[taken] = object.as_ptr(),
                    Err(error) => {
                        self.take_back(&objects[..taken]);
                        objects.fill(core::ptr::null_mut());
                        return Err(error);
                    }
                }
                taken += 1;
            }
        }
        if zero {
            // SAFETY: the objects are ours and that long.
            objects.iter().for_each(|object| unsafe { object.write_bytes(0, self.object_size()) });
        }
        let (mm, size) = (self.manager.mm(), self.object_size());
        objects.iter().for_each(|&object| mm.made_cached(object, self.name(), size, flags, caller));
        Ok(())
    }

    /// Gives objects back, first to last, as Linux's `kmem_cache_free_bulk`, but with each free checked.
    ///
    /// Context: any. Cost: a few instructions an object, up to 32 objects in one lock hold, and what slabs that become
    /// free take.
    ///
    /// # Errors
    /// What [`free`](Self::free) says of the first object that is refused, and how many before it were freed.
    #[doc(alias = "kmem_cache_free_bulk")]
    pub fn free_bulk(&self, objects: &[*mut u8]) -> Result<(), (usize, FreeError)> {
        let slabs = self.manager.mm().cache_slabs(self.control());
        let mut given = 0;
        #[cfg(feature = "slab-debug")]
        if self.control().hooks.guarded.is_some() {
            return (0..objects.len()).try_for_each(|i| self.free(objects[i]).map_err(|error| (i, error)));
        }
        while given < objects.len() {
            match slabs.give_batch(&objects[given..]) {
                Ok(n) => {
                    let told = objects[given..given + n].iter();
                    told.for_each(|&object| _ = self.manager.mm().freed_cached(Ok(()), self.name(), object));
                    given += n;
                }
                Err(FreeError::WrongAllocator) => return Err((given, self.refusal(objects[given].addr()))),
                Err(error) => return Err((given, error)),
            }
        }
        Ok(())
    }

    /// Gives objects back that are ours.
    pub(super) fn take_back(&self, objects: &[*mut u8]) {
        if let Err((freed, error)) = self.free_bulk(objects) {
            self.manager.mm().platform().bug(&Bug::BadFree { addr: objects[freed].addr(), error });
        }
    }
}
