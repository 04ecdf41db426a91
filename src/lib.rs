//! Linux's `kmalloc`, `get_free_pages` and `vmalloc` for kernels, RTOSes and firmware, with or without an MMU.
#![no_std]

#[cfg(all(feature = "mmu", not(any(target_arch = "x86_64", target_arch = "x86"))))]
compile_error!("feature `mmu` needs an x86 target: there is no page-table backend for this one yet");

pub use mm_core::*;

#[cfg(feature = "mmu")]
pub use backend_mmu_x86 as backend;
#[cfg(not(feature = "mmu"))]
pub use backend_nommu as backend;

/// The README's example, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
