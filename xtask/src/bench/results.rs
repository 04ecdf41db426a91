//! The results that are kept, by where they were measured.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::lines::Told;
use crate::rows::{self, Row};

/// Whether everything that is kept is of this run.
pub struct Kept {
    earlier: usize,
}

impl Kept {
    /// True when something is older.
    pub fn is_partial(&self) -> bool {
        self.earlier > 0
    }
}

/// Writes `rows.json` and `data.json`: `told`, and of what there was what was measured elsewhere.
pub fn renew(folder: &Path, told: Told) -> Result<Kept> {
    let (rows_path, data_path) = (folder.join("rows.json"), folder.join("data.json"));
    let rows: Vec<Row> = read(&rows_path)?;
    let data: Vec<Value> = read(&data_path)?;
    let (earlier, rows, data) = merge(rows, data, told);
    rows::write(&rows, &rows_path)?;
    let lines: Vec<String> = data.iter().map(ToString::to_string).collect();
    // One line each, so that a change shows as one.
    std::fs::write(&data_path, format!("[\n{}\n]\n", lines.join(",\n")))
        .with_context(|| data_path.display().to_string())?;
    Ok(Kept { earlier })
}

/// What was told anew replaces all rows of its boards, and all data of the programs it came from.
fn merge(mut rows: Vec<Row>, mut data: Vec<Value>, told: Told) -> (usize, Vec<Row>, Vec<Value>) {
    let boards: BTreeSet<&str> = told.rows.iter().map(|row| row.board.as_str()).collect();
    rows.retain(|row| !boards.contains(row.board.as_str()));
    let sources: BTreeSet<String> = told.data.iter().map(|one| one["from"].to_string()).collect();
    data.retain(|one| !sources.contains(&one["from"].to_string()));
    let earlier = rows.len() + data.len();
    rows.extend(told.rows);
    rows.sort_by(|a, b| a.board.cmp(&b.board));
    data.extend(told.data);
    (earlier, rows, data)
}

fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is not understood", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(id: &str, board: &str, value: u32) -> Row {
        serde_json::from_value(json!({ "id": id, "board": board, "unit": "u", "value": value })).unwrap()
    }

    #[test]
    fn what_was_measured_anew_replaces_what_was_there() {
        let rows = vec![row("a", "x", 1), row("gone", "x", 1), row("a", "y", 2)];
        let data = vec![json!({ "from": "x", "n": 1 }), json!({ "from": "host", "n": 2 })];
        let told = Told { rows: vec![row("a", "x", 9)], data: vec![json!({ "from": "host", "n": 3 })] };
        let (earlier, rows, data) = merge(rows, data, told);
        assert_eq!(earlier, 2);
        assert_eq!(rows, [row("a", "x", 9), row("a", "y", 2)]);
        assert_eq!(data, [json!({ "from": "x", "n": 1 }), json!({ "from": "host", "n": 3 })]);
    }
}
