//! QEMU virt (Cortex-A53, MMU off): 64 bits without an MMU
#![no_std]
