//! The smallest program on `Rlsf`.
#![no_std]
#![no_main]

rtmm_size::program!(rtmm_size::Rlsf);
