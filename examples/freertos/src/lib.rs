//! FreeRTOS, and the application in C, as the build script compiles them; and the board they run on.
#![no_std]

pub use rtmm_examples::board;
