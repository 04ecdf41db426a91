//! QEMU mps2-an385 (Cortex-M3): no MMU
#![no_std]
