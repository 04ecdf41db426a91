//! What the fuzzers run on any bytes; none may panic, whatever the bytes are.
//!
//! The bytes are read as a list of operations, so that a change of one byte changes one operation. The same functions
//! run under libFuzzer with AddressSanitizer (`cargo xtask fuzz`), and in a plain test on the inputs that are kept
//! in `corpus`.

mod boot_map;
mod life;
mod number;

pub use boot_map::boot_map;
pub use life::{life_mmu, life_nommu, life_pae};

/// What runs any bytes.
pub type Fuzzer = fn(&[u8]);

/// The functions by their names.
pub const TARGETS: [(&str, Fuzzer); 4] =
    [("life_nommu", life_nommu), ("life_mmu", life_mmu), ("life_pae", life_pae), ("boot_map", boot_map)];
