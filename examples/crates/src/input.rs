//! The file a program was given, in a vector.

use crate::board::{self, say};
use alloc::vec::Vec;

/// Reads the file, or as much of it as `most`, and then says so in a line `FILE-CUT`.
///
/// # Errors
/// What went wrong.
pub fn read(most: usize) -> Result<Vec<u8>, &'static str> {
    let file = board::file().ok_or("no file was given to this guest")?;
    let length = file.len().min(most);
    if length < file.len() {
        say!("FILE-CUT {}", length);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| "no memory for the file")?;
    bytes.resize(length, 0);
    if file.read_at(0, &mut bytes) == length { Ok(bytes) } else { Err("the file ended early") }
}
