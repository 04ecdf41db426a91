//! The host: the same manager in a process
#![no_std]
