//! QEMU x86-64 (microvm, q35): real page tables
#![no_std]
