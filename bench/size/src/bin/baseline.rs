//! The smallest program on `Nothing`.
#![no_std]
#![no_main]

rtmm_size::program!(rtmm_size::Nothing);
