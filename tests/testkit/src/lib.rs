//! What tests on the host run on.
//!
//! - [`Ram`]: physical memory with holes, real enough for raw pointers, Miri included; also the arena of a manager
//!   without an MMU.
//! - [`SimMachine`]: an x86 machine with that memory and several CPUs, each with a TLB that never forgets by itself,
//!   so that a flush that was left out shows as a stale translation, every time.
//! - [`TestPlatform`]: an RTOS whose context is set by the test and whose bug reports cannot go unnoticed.
//! - [`SimRegions`]: a memory protection unit that remembers what it was told, so that each guard can be held against
//!   the area it belongs to.
//! - [`SimTables`]: table frames with a count of their entries that does not trust the walker.

mod cpu;
#[cfg(feature = "defmt")]
pub mod log;
mod machine;
mod platform;
mod ram;
mod regions;
pub mod rig;
mod tables;

pub use cpu::{Access, Fault, MemoryType, Seen};
pub use machine::{Entries, SimConfig, SimMachine, SimPae};
pub use platform::TestPlatform;
pub use ram::Ram;
pub use regions::{SimRegion, SimRegions};
pub use tables::SimTables;
