//! The smallest program on `EmbeddedLlff`.
#![no_std]
#![no_main]

rtmm_size::program!(rtmm_size::EmbeddedLlff);
