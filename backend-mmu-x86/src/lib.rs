//! x86 page tables for rtmm.
#![no_std]
