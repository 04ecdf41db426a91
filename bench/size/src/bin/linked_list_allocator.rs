//! The smallest program on `LinkedList`.
#![no_std]
#![no_main]

rtmm_size::program!(rtmm_size::LinkedList);
