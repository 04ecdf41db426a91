//! Exact instruction counts, from the bench program on each board.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::boards::{BOARDS, Board};
use crate::qemu::Boot;
use crate::rows::{self, Row};
use crate::{cargo, run, tools, verdict};

/// The program of `rtmm-examples` that measures.
const PROGRAM: &str = "bench";
/// How a line with a figure begins; JSON follows.
const MARK: &str = "BENCH ";
/// Seconds for one board: counting instructions keeps the emulator to one thread and a slow clock.
const SECONDS: u64 = 300;

/// Measures on one board, or on every one that counts instructions.
pub fn bench(board: Option<&str>, json: Option<PathBuf>) -> Result<()> {
    let boards: Vec<&'static Board> = match board {
        Some(name) => vec![Board::named(name)?],
        None => BOARDS.iter().filter(|board| board.counts_instructions()).collect(),
    };
    tools::provide(&boards)?;
    let mut rows = Vec::new();
    for board in boards {
        rows.extend(measure(board).with_context(|| format!("bench on {}", board.name))?);
    }
    print!("\n{}", rows::table(&rows));
    if let Some(path) = json {
        rows::write(&rows, &path)?;
    }
    Ok(())
}

fn measure(board: &'static Board) -> Result<Vec<Row>> {
    let program = cargo::demo(board, PROGRAM, false, &[])?;
    let boot = Boot { icount: board.counts_instructions(), ..Boot::default() };
    let (exit, lines) = run::boot_echoing(board, &program.path, &boot, SECONDS, false)?;
    if let Some(complaint) = verdict::complaint(exit, board.codes, !board.is_host()) {
        bail!("it ended with {complaint}\n{}", lines.join("\n"));
    }
    read(&lines, board.name)
}

/// The figures among a guest's lines.
fn read(lines: &[String], board: &str) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for line in lines {
        let Some((_, json)) = line.split_once(MARK) else { continue };
        let mut row: Row =
            serde_json::from_str(json).with_context(|| format!("a figure that is not understood: {json}"))?;
        // The row of the table it was booted from: the host's two share a name of their own.
        board.clone_into(&mut row.board);
        ensure!(rows.iter().all(|earlier| earlier.id != row.id), "two figures are called {}", row.id);
        rows.push(row);
    }
    ensure!(!rows.is_empty(), "it measured nothing\n{}", lines.join("\n"));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn figures_are_found_between_other_lines() {
        let said = lines(&[
            "calibrated: 1000 ticks per thousand",
            r#"BENCH {"id":"kmalloc_64","board":"x","unit":"instructions","value":75,"worst":443,"goal":60}"#,
            r#"BENCH {"id":"page_0","unit":"instructions","value":69}"#,
        ]);
        let rows = read(&said, "qemu-x86_64").unwrap();
        assert_eq!((rows.len(), rows[0].board.as_str(), rows[0].is_over()), (2, "qemu-x86_64", true));
        assert_eq!(rows[1].worst, None);
    }

    #[test]
    fn no_figures_damaged_ones_and_doubles_are_errors() {
        assert!(read(&lines(&["hello"]), "x").is_err());
        assert!(read(&lines(&["BENCH {\"id\":"]), "x").is_err());
        let one = r#"BENCH {"id":"a","unit":"u","value":1}"#;
        assert!(read(&lines(&[one, one]), "x").is_err());
    }
}
