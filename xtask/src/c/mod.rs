//! `cargo xtask c`: the C interface's header, library and tests.

pub mod compilers;
pub mod header;
pub mod library;
pub mod programs;

use anyhow::{Result, bail};

use crate::boards::Board;

/// `cargo xtask c library`.
pub fn library(board: &str) -> Result<()> {
    let board = Board::named(board)?;
    if board.is_host() && board.extra.contains(&"mmu") {
        bail!("a process has no page tables that a library could write; there is one for --board host");
    }
    crate::tools::provide(&[board])?;
    println!("{}", library::build(board)?.display());
    Ok(())
}
