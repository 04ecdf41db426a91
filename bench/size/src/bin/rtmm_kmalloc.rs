//! The smallest program on `RtmmKmalloc`.
#![no_std]
#![no_main]

rtmm_size::program!(rtmm_size::RtmmKmalloc);
