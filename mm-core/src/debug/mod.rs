//! Finding mistakes of those who use the manager.

#[cfg(feature = "page-owner")]
mod allocations;
mod event;
#[cfg(feature = "page-poison")]
mod hidden;
mod initial;
mod leak;
#[cfg(feature = "kmalloc-debug")]
mod objects;
#[cfg(feature = "page-owner")]
mod owner;
#[cfg(feature = "page-poison")]
mod poison;
#[cfg(feature = "trace-hooks")]
mod telling;
mod told;

#[cfg(feature = "page-owner")]
pub use allocations::{Allocation, AllocationKind, Allocations, Site, Sites};
pub use event::Event;
#[cfg(feature = "debug-pagealloc")]
pub use hidden::FreedPage;
pub(crate) use initial::ON_ALLOC;
pub use leak::{Holdings, Leak, LeakGuard};
#[cfg(feature = "page-owner")]
pub use owner::Owners;
#[cfg(feature = "page-poison")]
pub use poison::{PagePoison, ScrubCursor, Scrubbed};
#[cfg(feature = "trace-hooks")]
pub use telling::Telling;
