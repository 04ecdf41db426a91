//! Drives builds, boards, tests and benches
fn main() {}
