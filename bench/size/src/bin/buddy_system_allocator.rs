//! The smallest program on `BuddySystem`.
#![no_std]
#![no_main]

rtmm_size::program!(rtmm_size::BuddySystem);
