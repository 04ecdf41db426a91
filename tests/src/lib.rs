//! On-target suites, one source for every board
#![no_std]
