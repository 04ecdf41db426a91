//! What a program brings along by using it once, so that one that never does has none of it.
//!
//! Linked are the functions that are named somewhere. What a kmalloc that finds no memory and a kfree that is refused
//! do for areas and caches is named where the first of those is made, and reached by a pointer that is left here.

use crate::backend::Backend;
use crate::manager::Mm;
use crate::platform::Platform;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// What others do for areas.
struct AreaCalls<P: Platform, B: Backend> {
    hold: fn(&Mm<P, B>, usize) -> bool,
    flush: fn(&Mm<P, B>) -> usize,
}

/// What others do for caches.
type Drain<P, B> = fn(&Mm<P, B>);

/// Pointers to it, null before there is a first area or cache.
pub(crate) struct Late<P: Platform, B: Backend> {
    areas: AtomicPtr<AreaCalls<P, B>>,
    caches: AtomicPtr<Drain<P, B>>,
}

impl<P: Platform, B: Backend> Late<P, B> {
    pub(crate) const fn new() -> Self {
        Late { areas: AtomicPtr::new(ptr::null_mut()), caches: AtomicPtr::new(ptr::null_mut()) }
    }
}

impl<P: Platform, B: Backend> Mm<P, B> {
    const AREA_CALLS: &'static AreaCalls<P, B> = &AreaCalls { hold: Self::areas_hold, flush: Self::flush_deferred };
    const DRAIN_CACHES: &'static Drain<P, B> = &(Self::drain_caches as Drain<P, B>);
    /// Where code is to be small, and areas are made by few calls.
    const LATE: bool = cfg!(feature = "small") && !B::HAS_MMU;

    /// An area is about to be made.
    #[inline(always)]
    pub(crate) fn use_areas(&self) {
        if Self::LATE {
            self.late.areas.store(ptr::from_ref(Self::AREA_CALLS).cast_mut(), Relaxed);
        }
    }

    /// A cache is about to be made.
    #[inline(always)]
    pub(crate) fn use_caches(&self) {
        self.late.caches.store(ptr::from_ref(Self::DRAIN_CACHES).cast_mut(), Relaxed);
    }

    /// [`areas_hold`](Self::areas_hold), if there ever was one.
    #[inline(always)]
    pub(crate) fn any_area_holds(&self, addr: usize) -> bool {
        if !Self::LATE {
            return self.areas_hold(addr);
        }
        // SAFETY: null, or `AREA_CALLS`.
        unsafe { self.late.areas.load(Relaxed).as_ref() }.is_some_and(|calls| (calls.hold)(self, addr))
    }

    /// [`flush_deferred`](Self::flush_deferred), if there ever was an area.
    #[inline(always)]
    pub(crate) fn flush_any_deferred(&self) -> usize {
        if !Self::LATE {
            return self.flush_deferred();
        }
        // SAFETY: null, or `AREA_CALLS`.
        unsafe { self.late.areas.load(Relaxed).as_ref() }.map_or(0, |calls| (calls.flush)(self))
    }

    /// [`drain_caches`](Self::drain_caches), if there ever was one.
    #[inline(always)]
    pub(crate) fn drain_any_caches(&self) {
        // SAFETY: null, or `DRAIN_CACHES`.
        if let Some(drain) = unsafe { self.late.caches.load(Relaxed).as_ref() } {
            drain(self);
        }
    }
}
