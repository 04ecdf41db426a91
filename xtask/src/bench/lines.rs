//! The lines in which programs tell of what they measured.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::rows::Row;

/// How a line with a row begins; JSON follows.
const ROW: &str = "BENCH ";
/// How a line begins that tables and plots are made of; JSON follows.
const DATA: &str = "DATA ";

/// What was measured.
#[derive(Debug, Default)]
pub struct Told {
    /// Figures with goals.
    pub rows: Vec<Row>,
    /// What tables and plots are made of.
    pub data: Vec<Value>,
}

/// The figures among a program's lines.
pub fn read(lines: &[String], board: &str) -> Result<Told> {
    let mut told = Told::default();
    for line in lines {
        if let Some((_, json)) = line.split_once(DATA).filter(|(before, _)| before.is_empty()) {
            let mut data: Value =
                serde_json::from_str(json).with_context(|| format!("data that are not understood: {json}"))?;
            data["from"] = board.into();
            told.data.push(data);
        } else if let Some((_, json)) = line.split_once(ROW) {
            let mut row: Row =
                serde_json::from_str(json).with_context(|| format!("a figure that is not understood: {json}"))?;
            // The row of the table it was booted from, whatever it calls itself.
            board.clone_into(&mut row.board);
            ensure!(told.rows.iter().all(|earlier| earlier.id != row.id), "two figures are called {}", row.id);
            told.rows.push(row);
        }
    }
    Ok(told)
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
            r#"BENCH {"id":"page_0","unit":"instructions","value":69.5}"#,
            r#"DATA {"kind":"heap","peer":"talc"}"#,
        ]);
        let told = read(&said, "qemu-x86_64").unwrap();
        let rows = &told.rows;
        assert_eq!((rows.len(), rows[0].board.as_str(), rows[0].misses_goal()), (2, "qemu-x86_64", true));
        assert_eq!(rows[1].worst, None);
        assert_eq!((&told.data[0]["peer"], &told.data[0]["from"]), (&"talc".into(), &"qemu-x86_64".into()));
    }

    #[test]
    fn damaged_figures_and_doubles_are_errors() {
        assert!(read(&lines(&["hello"]), "x").unwrap().rows.is_empty());
        assert!(read(&lines(&["BENCH {\"id\":"]), "x").is_err());
        let one = r#"BENCH {"id":"a","unit":"u","value":1}"#;
        assert!(read(&lines(&[one, one]), "x").is_err());
    }
}
