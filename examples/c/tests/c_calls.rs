//! The calls as C sees them, each test of `capi/tests/calls.c` in a boot of its own, on the board's manager.
#![no_std]
#![no_main]

use rtmm::Backend as _;
use rtmm_examples_c::board::{self, Backend, Kernel};
use rtmm_examples_c::scull;

rtmm_capi::export_c!(Kernel);

#[embedded_test::setup]
fn setup() {
    board::init();
    assert_eq!(scull::page_shift(), Backend::PAGE_SHIFT, "the C files were compiled for another page size");
}

include!(concat!(env!("OUT_DIR"), "/calls.rs"));
