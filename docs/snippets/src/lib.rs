//! The Rust snippets of the guides in `docs/`: what a person copies from there compiles.
#![allow(missing_docs, dead_code, reason = "the guides explain them")]

/// `docs/features.md`.
pub mod features {
    include!(concat!(env!("OUT_DIR"), "/features.rs"));
}

/// `docs/porting.md`.
pub mod porting {
    include!(concat!(env!("OUT_DIR"), "/porting.rs"));
}

/// `docs/from-rtos.md`.
pub mod from_rtos {
    include!(concat!(env!("OUT_DIR"), "/from-rtos.rs"));
}

/// `docs/from-rust.md`.
pub mod from_rust {
    include!(concat!(env!("OUT_DIR"), "/from-rust.rs"));
}
