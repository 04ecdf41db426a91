//! `rtmm_fuzz::boot_map` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rtmm_fuzz::boot_map(bytes));
