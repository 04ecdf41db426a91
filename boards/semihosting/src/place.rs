//! What lies at an address, in words for a fault report.

use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};
use rtmm::AreaHit;

/// [`rtmm::Mm::find_area`] of the board's manager.
type Find = fn(usize) -> Option<AreaHit>;

/// The function, or null.
static FIND: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Makes `find` what fault reports ask for the area at an address. It takes no lock.
pub fn name_areas_by(find: Find) {
    FIND.store(find as *mut (), Ordering::Relaxed);
}

/// An address, printed as ` in ` and the area it has to do with; as nothing where there is none.
#[derive(Debug)]
pub struct Place(pub usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let find = FIND.load(Ordering::Relaxed);
        if find.is_null() {
            return Ok(());
        }
        // SAFETY: only `name_areas_by` stores there, and it stores such a function.
        let find = unsafe { core::mem::transmute::<*mut (), Find>(find) };
        match find(self.0) {
            Some(hit) => write!(f, " in {hit}"),
            None => Ok(()),
        }
    }
}
