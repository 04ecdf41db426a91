//! `rtmm_fuzz::life_nommu` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rtmm_fuzz::life_nommu(bytes));
