//! The simulated machine of the host
#![no_std]
