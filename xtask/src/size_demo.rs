//! What a demo takes on each bare board, by section.

use anyhow::{Context, Result};

use crate::boards::{BOARDS, Board};
use crate::rows::Row;
use crate::{cargo, elf, tools};

/// Cargo's release profile, but for room instead of speed.
const FOR_ROOM: &str = "profile.release.opt-level=\"z\"";

/// Builds a demo for every bare board, for room, and adds up its sections.
pub fn rows(demo: &str) -> Result<Vec<Row>> {
    let boards: Vec<&'static Board> = BOARDS.iter().filter(|board| !board.is_host() && board.is_whole()).collect();
    let mut rows = Vec::new();
    // Nothing is booted, so targets are enough: but they come with the emulators, which every other command wants.
    tools::provide(&boards)?;
    for board in boards {
        let program = cargo::demo(board, demo, false, &[FOR_ROOM])?;
        let read = std::fs::read(&program.path).context("reading the program");
        let size = read.and_then(|elf| elf::size(&elf)).with_context(|| program.path.display().to_string())?;
        rows.extend(as_rows(demo, board.name, size));
    }
    Ok(rows)
}

/// One row per kind of section.
fn as_rows(demo: &str, board: &str, size: elf::Size) -> Vec<Row> {
    let parts = [("text", size.text), ("rodata", size.rodata), ("data", size.data), ("bss", size.bss)];
    let row = |(part, bytes): (&str, u64)| Row {
        id: format!("size_{demo}_{part}"),
        board: board.to_owned(),
        unit: "bytes".to_owned(),
        value: bytes.into(),
        worst: None,
        goal: None,
        peer: None,
        peer_value: None,
    };
    parts.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_section_is_a_row() {
        let rows = as_rows("hello", "mps2-an385", elf::Size { text: 3000, rodata: 200, data: 8, bss: 512 });
        let told: Vec<_> = rows.iter().map(|row| format!("{}={}", row.id, row.value)).collect();
        assert_eq!(told, ["size_hello_text=3000", "size_hello_rodata=200", "size_hello_data=8", "size_hello_bss=512"]);
    }
}
