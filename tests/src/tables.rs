//! What every test leaves of the page tables, where there are any.

use crate::board::MM;
use rtmm::PageTable;
use rtmm::backend::kernel;

/// Panics when a frame can be written by one mapping and executed by another, or is cached in two ways, or when a table
/// has no entry and was not given back.
#[track_caller]
pub fn check() {
    let (machine, root) = (MM.backend().machine(), MM.backend().kernel_root());
    // SAFETY: the root is the live one, and at the end of a test nothing changes the tables.
    let (both, cached, empty) = unsafe {
        (
            kernel::writable_and_executable(machine, root),
            kernel::cached_in_two_ways(machine, root),
            kernel::empty_table(machine, root),
        )
    };
    assert_eq!(both, None, "writable and executable");
    assert_eq!(cached, None, "cached in two ways");
    assert_eq!(empty, None, "an empty table");
}
