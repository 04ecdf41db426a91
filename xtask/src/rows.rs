//! Rows of figures: read from a guest, printed as a table, written as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::bench::more_is_better;

/// One figure, with what it should be and what others reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What is measured.
    pub id: String,
    /// Where.
    #[serde(default)]
    pub board: String,
    /// Of what `value` and `worst` are a number.
    pub unit: String,
    /// The median, unless the id says otherwise.
    pub value: Number,
    /// The worst seen.
    #[serde(default)]
    pub worst: Option<Number>,
    /// What it is meant to reach.
    #[serde(default)]
    pub goal: Option<Number>,
    /// Who else was measured in the same run.
    #[serde(default)]
    pub peer: Option<String>,
    /// Their figure.
    #[serde(default)]
    pub peer_value: Option<Number>,
}

impl Row {
    /// Whether there is a goal and the figure does not reach it.
    pub fn misses_goal(&self) -> bool {
        let (Some(goal), Some(value)) = (self.goal.as_ref().and_then(Number::as_f64), self.value.as_f64()) else {
            return false;
        };
        if more_is_better(&self.id) { value < goal } else { value > goal }
    }
}

/// The table, one line per row.
pub fn table(rows: &[Row]) -> String {
    let head = ["id", "board", "unit", "value", "worst", "goal", "peer", ""].map(str::to_owned);
    let cell = |number: &Option<Number>| number.as_ref().map_or("-".to_owned(), Number::to_string);
    let mut cells = vec![head];
    for row in rows {
        let note = if row.misses_goal() { "misses the goal" } else { "" };
        let value = row.value.to_string();
        let (worst, goal) = (cell(&row.worst), cell(&row.goal));
        let peer = match (&row.peer, &row.peer_value) {
            (Some(peer), Some(value)) => format!("{peer} {value}"),
            _ => String::new(),
        };
        cells.push([row.id.clone(), row.board.clone(), row.unit.clone(), value, worst, goal, peer, note.to_owned()]);
    }
    let widths: Vec<usize> =
        (0..8).map(|column| cells.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &cells {
        let padded = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            // Words to the left, numbers to the right.
            if (3..6).contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Writes the rows as a JSON list.
pub fn write(rows: &[Row], path: &Path) -> Result<()> {
    let mut text = serde_json::to_string_pretty(rows)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, value: u32, goal: Option<u32>) -> Row {
        Row {
            id: id.into(),
            board: "qemu-x86_64".into(),
            unit: "instructions".into(),
            value: value.into(),
            worst: Some(443.into()),
            goal: goal.map(Number::from),
            peer: None,
            peer_value: None,
        }
    }

    #[test]
    fn columns_line_up_and_missed_goals_are_marked() {
        let text = table(&[row("kmalloc_64", 75, Some(60)), row("page_0", 7, None)]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "id          board        unit          value  worst  goal  peer");
        assert_eq!(lines[1], "kmalloc_64  qemu-x86_64  instructions     75    443    60        misses the goal");
        assert_eq!(lines[2], "page_0      qemu-x86_64  instructions      7    443     -");
    }

    #[test]
    fn json_has_every_key_even_when_empty() {
        let text = serde_json::to_string(&[row("page_0", 7, None)]).unwrap();
        for key in ["id", "board", "unit", "value", "worst", "goal", "peer", "peer_value"] {
            assert!(text.contains(&format!("\"{key}\":")), "{key} is not in {text}");
        }
        assert!(text.contains("\"goal\":null"));
    }
}
