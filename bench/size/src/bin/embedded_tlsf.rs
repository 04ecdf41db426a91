//! The smallest program on `EmbeddedTlsf`.
#![no_std]
#![no_main]

rtmm_size::program!(rtmm_size::EmbeddedTlsf);
