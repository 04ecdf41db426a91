//! Watched objects of kmalloc: a look at all of them.

use crate::backend::Backend;
use crate::manager::Mm;
use crate::platform::Platform;
use crate::slab::{KMALLOC, Slabs};
use core::panic::Location;

impl<P: Platform, B: Backend> Mm<P, B> {
    /// Looks at every object of kmalloc's classes, free or not, for bytes written before it, behind it, or in it while
    /// it is free, as Linux's `slabinfo -v`: reports each as [`Bug::ObjectDamaged`](crate::Bug::ObjectDamaged), and
    /// returns how many. A free one stays where it is, and is withdrawn when it is taken.
    ///
    /// Objects above the largest class are whole pages and not watched.
    ///
    /// Context: task. Cost: walks the frame table once for each class; one slab under its class's lock at a time. A
    /// diagnostic, not bounded.
    #[track_caller]
    #[doc(alias = "validate_slab_cache")]
    pub fn kmalloc_validate(&self) -> usize {
        let caller = Location::caller();
        let look = |slabs: Slabs<'_, P, B>| {
            let Some(guarded) = &slabs.hooks.guarded else { return 0 };
            let (mut from, mut found) = ((0, 0), 0);
            while let Some((spoilt, next)) = slabs.find_spoilt(guarded, from) {
                slabs.report(KMALLOC, spoilt, caller);
                (from, found) = (next, found + 1);
            }
            found
        };
        self.classes().chain(self.dma_classes().map(|(_, slabs)| slabs)).map(look).sum()
    }
}
