//! Device registers.

use super::{or_null, report};
use core::ffi::c_void;
use mm_core::{Manager, PhysAddr};

/// See `rtmm_ioremap`.
pub fn ioremap<M: Manager>(m: M, phys: u64, size: usize) -> *mut c_void {
    or_null(m.mm().ioremap(PhysAddr(phys), size))
}

/// See `rtmm_iounmap`.
pub fn iounmap<M: Manager>(m: M, addr: *const c_void) {
    report(m, addr.addr(), m.mm().iounmap(addr.cast()));
}
