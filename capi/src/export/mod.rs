//! The symbols, and what the header says of them.
//!
//! `cargo xtask c header` takes the functions out of the macros and gives them to cbindgen: their documentation is the
//! header's.

mod areas;
mod caches;
mod memory;
mod setup;

/// Makes the C functions for a manager: `export_c!(MM)` or any other expression that is a
/// [`Manager`](mm_core::Manager).
///
/// Once in a program, in the crate that links it.
#[macro_export]
macro_rules! export_c {
    ($manager:expr) => {
        $crate::export_memory!($manager);
        $crate::export_areas!($manager);
        $crate::export_caches!($manager);
    };
}
