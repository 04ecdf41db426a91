//! Device registers.

use super::{or_null, report};
use core::ffi::c_void;
use mm_core::{Manager, PhysAddr};

/// See `rtmm_ioremap`.
pub fn ioremap<M: Manager>(m: M, phys: u64, size: usize) -> *mut c_void {
    or_null(m.mm().ioremap(PhysAddr(phys), size))
}

/// See `rtmm_ioremap_wc`.
pub fn ioremap_wc<M: Manager>(m: M, phys: u64, size: usize) -> *mut c_void {
    or_null(m.mm().ioremap_wc(PhysAddr(phys), size))
}

/// See `rtmm_ioremap_wt`.
pub fn ioremap_wt<M: Manager>(m: M, phys: u64, size: usize) -> *mut c_void {
    or_null(m.mm().ioremap_wt(PhysAddr(phys), size))
}

/// See `rtmm_ioremap_cache`.
pub fn ioremap_cache<M: Manager>(m: M, phys: u64, size: usize) -> *mut c_void {
    or_null(m.mm().ioremap_cache(PhysAddr(phys), size))
}

/// See `rtmm_iounmap`.
pub fn iounmap<M: Manager>(m: M, addr: *const c_void) {
    report(m, addr.addr(), m.mm().iounmap(addr.cast()));
}
