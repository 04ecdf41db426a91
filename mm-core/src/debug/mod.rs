//! Finding mistakes of those who use the manager.

mod leak;

pub use leak::{Holdings, Leak, LeakGuard};
