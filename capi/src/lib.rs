//! rtmm for C: `rtmm_kmalloc` and its kin, with Linux's names behind the prefix, its argument order, and `NULL`.
//!
//! Two kinds of program use it, and the functions are the same in both:
//!
//! - A kernel whose start code is Rust has a manager already. [`export_c!`] gives it the symbols, so that C drivers
//!   linked into it share that manager.
//! - A kernel in C links `librtmm.a` (package `rtmm-c`, in `library/`) and brings the manager up by `rtmm_init`, with
//!   its RAM and its hooks in a [`rtmm_config`]. [`export_setup!`] is that function.
//!
//! The header `include/rtmm.h` is generated from this crate. `include/linux/` holds headers in Linux's manner, which
//! call the same things by Linux's own names.
//!
//! # What every function keeps to
//! - Nothing unwinds into C. Failed allocations are null; functions that return `int` give 0 or a negative errno; no
//!   pointer is ever an encoded error (`ERR_PTR`).
//! - `kfree` and the other frees return nothing. A wrong one changes nothing and is told to the manager's platform:
//!   the callback `bug` of [`rtmm_config`].
//! - Flags, orders, sizes and enumerations are integers, checked; an unknown bit or value is refused.
#![no_std]
#![allow(non_camel_case_types)]

#[cfg(test)]
extern crate std;

pub mod bug;
pub mod calls;
pub mod config;
mod export;
pub mod gfp;
pub mod handle;
pub mod platform;
pub mod shrink;

pub use bug::rtmm_bug;
pub use config::{rtmm_config, rtmm_range, rtmm_zone};
pub use handle::{rtmm_cache, rtmm_mempool, rtmm_shrinker};
pub use shrink::rtmm_shrink_request;

/// An address as C has it; the header keeps it apart from sizes.
pub type uintptr_t = usize;

/// What the exporting macros name; no part of the interface.
#[doc(hidden)]
pub use mm_core as core_;

/// `EINVAL`, as a negative errno value.
pub(crate) const EINVAL: i32 = -22;
/// `E2BIG`, as a negative errno value.
pub(crate) const E2BIG: i32 = -7;
/// `EEXIST`, as a negative errno value.
pub(crate) const EEXIST: i32 = -17;
/// `EUCLEAN`, Linux's "structure needs cleaning", as a negative errno value.
pub(crate) const EUCLEAN: i32 = -117;
