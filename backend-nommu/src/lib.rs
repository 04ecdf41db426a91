//! rtmm without an MMU.
#![no_std]
