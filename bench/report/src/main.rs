//! Makes tables and plots of what was measured.
fn main() {}
