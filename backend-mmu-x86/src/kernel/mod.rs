//! The kernel's own tables: built once at boot, then looked through by diagnostics.

mod build;
mod live;

pub use build::{Segment, activate, build, build_in_pages};
pub use live::{cached_in_two_ways, empty_table, for_each_mapping, writable_and_executable};
