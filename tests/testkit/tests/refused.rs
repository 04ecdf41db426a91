//! What the compiler refuses: to reuse what was not flushed, and to say "writable and executable".

#[test]
#[cfg_attr(any(miri, target_pointer_width = "32"), ignore = "runs the compiler, for the machine it runs on")]
fn flush_before_free_and_write_or_execute_hold_by_type() {
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
