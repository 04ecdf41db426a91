//! rtmm and its peers on the host.
//!
//! Each measurement runs in a process of its own: allocators that are one per process start fresh, and one that fails
//! ends only its own row.

pub mod areas;
pub mod arena;
pub mod check;
pub mod figures;
pub mod flat;
pub mod platform;
pub mod step;
pub mod usage;
pub mod wall;
pub mod work;
