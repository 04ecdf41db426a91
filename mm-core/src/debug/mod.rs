//! Finding mistakes of those who use the manager.

mod leak;
#[cfg(feature = "page-poison")]
mod poison;

pub use leak::{Holdings, Leak, LeakGuard};
#[cfg(feature = "page-poison")]
pub use poison::{PagePoison, ScrubCursor, Scrubbed};
