//! The machine's memory protection: eight regions, as a Cortex-M has, by the process's own mappings.

use crate::layout;
use rtmm::backend::{Allows, RegionGuard, Slot};
use std::io::Error;
use std::ptr;
use std::sync::Mutex;

const SLOTS: usize = 8;

/// Where each region is, if it is.
#[derive(Debug)]
pub struct Regions {
    set: Mutex<[Option<(usize, usize)>; SLOTS]>,
}

impl Regions {
    pub(crate) const fn new() -> Self {
        Regions { set: Mutex::new([None; SLOTS]) }
    }

    fn replace(&self, slot: usize, with: Option<(usize, usize)>) {
        let mut set = self.set.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((start, bytes)) = std::mem::replace(&mut set[slot], with) {
            permit(start, bytes, libc::PROT_READ | libc::PROT_WRITE);
        }
    }
}

/// Changes what the process may do with memory of the machine.
fn permit(start: usize, bytes: usize, access: libc::c_int) {
    assert!(layout::direct_map().contains(start));
    // SAFETY: RAM of the machine, which was mapped when it was powered on; whoever uses it expects the change.
    let result = unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(start), bytes, access) };
    assert!(result == 0, "the system protects no page: {}", Error::last_os_error());
}

// SAFETY: the system ends the process's accesses that a mapping does not allow, by a signal, and those of its other
// mappings are left alone. Pages of the machine are multiples of the system's. No two regions meet, since areas do not.
unsafe impl RegionGuard for Regions {
    type Slots = [Slot; SLOTS];
    const FREE: [Slot; SLOTS] = [Slot::FREE; SLOTS];

    fn slots(&self) -> usize {
        SLOTS
    }

    unsafe fn set(&self, slot: usize, start: usize, bytes: usize, allows: Allows) {
        self.replace(slot, Some((start, bytes)));
        permit(
            start,
            bytes,
            match allows {
                Allows::Nothing => libc::PROT_NONE,
                Allows::Reads => libc::PROT_READ,
                Allows::Fetches => libc::PROT_READ | libc::PROT_EXEC,
            },
        );
    }

    unsafe fn clear(&self, slot: usize) {
        self.replace(slot, None);
    }
}
