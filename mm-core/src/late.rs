//! What a program brings along by using it once, so that one that never does has none of it.
//!
//! Linked are the functions that are named somewhere. What a kmalloc that finds no memory and a kfree that is refused
//! do for areas and caches is named where the first of those is made, and reached by a pointer that is left here.

use crate::backend::Backend;
use crate::error::FreeError;
use crate::manager::Mm;
use crate::platform::Platform;
use crate::reclaim::Repeat;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// Whether an area holds an address.
type Hold<P, B> = fn(&Mm<P, B>, usize) -> bool;

/// See [`Mm::free_referenced`].
#[cfg(feature = "small")]
type FreeReferenced<P, B> = fn(&Mm<P, B>, usize, usize) -> Result<(), FreeError>;

/// What others do for caches.
#[cfg(not(feature = "small"))]
type Drain<P, B> = fn(&Mm<P, B>);

/// Pointers to it, null before there is a first area or cache.
pub(crate) struct Late<P: Platform, B: Backend> {
    areas: AtomicPtr<Hold<P, B>>,
    /// Where code is to be small caches keep nothing.
    #[cfg(not(feature = "small"))]
    caches: AtomicPtr<Drain<P, B>>,
    #[cfg(feature = "small")]
    again: AtomicPtr<Repeat<P, B>>,
    #[cfg(feature = "small")]
    referenced: AtomicPtr<FreeReferenced<P, B>>,
}

impl<P: Platform, B: Backend> Late<P, B> {
    pub(crate) const fn new() -> Self {
        Late {
            areas: AtomicPtr::new(ptr::null_mut()),
            #[cfg(not(feature = "small"))]
            caches: AtomicPtr::new(ptr::null_mut()),
            #[cfg(feature = "small")]
            again: AtomicPtr::new(ptr::null_mut()),
            #[cfg(feature = "small")]
            referenced: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl<P: Platform, B: Backend> Mm<P, B> {
    const HOLD: &'static Hold<P, B> = &(Self::areas_hold as Hold<P, B>);
    #[cfg(feature = "small")]
    const REFERENCED: &'static FreeReferenced<P, B> = &(Self::free_referenced as FreeReferenced<P, B>);
    #[cfg(not(feature = "small"))]
    const DRAIN_CACHES: &'static Drain<P, B> = &(Self::drain_caches as Drain<P, B>);
    /// Where code is to be small, and areas are made by few calls.
    const LATE: bool = cfg!(feature = "small") && !B::HAS_MMU;

    /// An area is about to be made.
    #[inline(always)]
    pub(crate) fn use_areas(&self) {
        if Self::LATE {
            self.late.areas.store(ptr::from_ref(Self::HOLD).cast_mut(), Relaxed);
        }
    }

    /// A cache is about to be made.
    #[inline(always)]
    pub(crate) fn use_caches(&self) {
        #[cfg(not(feature = "small"))]
        self.late.caches.store(ptr::from_ref(Self::DRAIN_CACHES).cast_mut(), Relaxed);
    }

    /// [`areas_hold`](Self::areas_hold), if there ever was one.
    #[inline(always)]
    pub(crate) fn any_area_holds(&self, addr: usize) -> bool {
        if !Self::LATE {
            return self.areas_hold(addr);
        }
        // SAFETY: null, or `HOLD`.
        unsafe { self.late.areas.load(Relaxed).as_ref() }.is_some_and(|hold| hold(self, addr))
    }

    /// Something can be taken back when memory is short: a shrinker came, or the free of an area is put off. Classes and
    /// caches keep nothing where code is to be small.
    #[inline(always)]
    pub(crate) fn use_reclaim(&self) {
        #[cfg(feature = "small")]
        if Self::LATE {
            self.late.again.store(ptr::from_ref(Self::REPEAT).cast_mut(), Relaxed);
        }
    }

    /// A reference on a page is about to be taken.
    #[inline(always)]
    pub(crate) fn use_references(&self) {
        #[cfg(feature = "small")]
        self.late.referenced.store(ptr::from_ref(Self::REFERENCED).cast_mut(), Relaxed);
    }

    /// [`free_referenced`](Self::free_referenced), of a block that somebody has a reference on.
    #[inline(always)]
    pub(crate) fn free_any_referenced(&self, pfn: usize, pages: usize) -> Result<(), FreeError> {
        #[cfg(feature = "small")]
        // SAFETY: null, or `REFERENCED`.
        if let Some(free) = unsafe { self.late.referenced.load(Relaxed).as_ref() } {
            return free(self, pfn, pages);
        }
        let _ = (pfn, pages);
        // A count of references that nobody took is damage, and what is damaged stays.
        Err(FreeError::Reserved)
    }

    /// What repeats a request that failed, if that may be of use.
    #[inline(always)]
    pub(crate) fn again(&self) -> Option<&Repeat<P, B>> {
        #[cfg(feature = "small")]
        if Self::LATE {
            // SAFETY: null, or `REPEAT`.
            return unsafe { self.late.again.load(Relaxed).as_ref() };
        }
        Some(Self::REPEAT)
    }

    /// [`drain_caches`](Self::drain_caches), if there ever was one.
    #[inline(always)]
    pub(crate) fn drain_any_caches(&self) {
        #[cfg(not(feature = "small"))]
        // SAFETY: null, or `DRAIN_CACHES`.
        if let Some(drain) = unsafe { self.late.caches.load(Relaxed).as_ref() } {
            drain(self);
        }
    }
}
