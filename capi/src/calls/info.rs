//! Counts and diagnostics.

use crate::EUCLEAN;
use crate::config::{judge, rtmm_config};
use crate::platform::{CallbackPlatform, bring_up};
use mm_core::{Backend, Manager, Mm};

/// See `rtmm_page_shift`.
pub fn page_shift<M: Manager>(_: M) -> u32 {
    M::Backend::PAGE_SHIFT
}

/// See `rtmm_max_order`.
pub fn max_order<M: Manager>(_: M) -> u32 {
    M::Backend::MAX_ORDER as u32
}

/// See `rtmm_has_mmu`.
pub fn has_mmu<M: Manager>(_: M) -> bool {
    M::Backend::HAS_MMU
}

/// See `rtmm_nr_free_pages`.
pub fn nr_free_pages<M: Manager>(m: M) -> usize {
    m.mm().free_page_count()
}

/// See `rtmm_drain`.
pub fn drain<M: Manager>(m: M) {
    m.mm().drain();
}

/// See `rtmm_check`.
pub fn check<M: Manager>(m: M) -> i32 {
    if m.mm().check().is_ok() { 0 } else { EUCLEAN }
}

/// See `rtmm_init`.
///
/// # Safety
/// As for [`judge`](crate::config::judge) and [`bring_up`](crate::platform::bring_up).
pub unsafe fn init<B: Backend>(mm: &Mm<CallbackPlatform, B>, config: *const rtmm_config) -> i32 {
    // SAFETY: by the caller.
    match unsafe { judge::<B>(config).and_then(|setup| bring_up(mm, setup)) } {
        Ok(()) => 0,
        Err(errno) => errno,
    }
}
