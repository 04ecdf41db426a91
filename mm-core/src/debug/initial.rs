//! What memory holds when it changes hands: zeroes, with `init-on-alloc`.

use crate::gfp::Gfp;

/// What every request asks for beside what it says.
pub const ON_ALLOC: Gfp = if cfg!(feature = "init-on-alloc") { Gfp::ZERO } else { Gfp::empty() };
