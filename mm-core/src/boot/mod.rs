//! The boot memory map: any firmware's regions in, clean and ordered RAM minus reservations out.
//!
//! [`BootMap`] collects what the firmware and the linker script say, in any order and quality; [`RamMap`] is what
//! the manager starts from, and serves the few allocations that are made before it.

mod map;
mod ram;
mod set;
#[cfg(test)]
mod tests;

pub use map::BootMap;
pub use ram::{CutReport, RamMap};
