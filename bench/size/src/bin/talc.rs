//! The smallest program on `Talc`.
#![no_std]
#![no_main]

rtmm_size::program!(rtmm_size::Talc);
