//! The last figures, which later ones must not be much worse than.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::{called, is_timed, more_is_better};
use crate::rows::Row;

/// By how much a figure may be worse.
const TOLERANCE: f64 = 0.05;

/// The figures of each board, by id.
type Figures = BTreeMap<String, BTreeMap<String, f64>>;

/// Writes the figures of `rows`; those of other boards stay.
pub fn renew(path: &Path, rows: &[Row]) -> Result<()> {
    let mut figures = read(path)?;
    for row in rows.iter().filter(|row| !is_timed(&row.id)) {
        if let Some(value) = row.value.as_f64() {
            figures.entry(row.board.clone()).or_default().insert(row.id.clone(), value);
        }
    }
    let mut text = serde_json::to_string_pretty(&figures)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What is worse than the last time, in words. A figure that is new is not.
pub fn worse(path: &Path, rows: &[Row]) -> Result<Vec<String>> {
    Ok(compare(&read(path)?, rows))
}

fn compare(last: &Figures, rows: &[Row]) -> Vec<String> {
    let mut found = Vec::new();
    for row in rows.iter().filter(|row| !is_timed(&row.id)) {
        // A goal is a better measure than the last time.
        if row.goal.is_some() && !row.misses_goal() {
            continue;
        }
        let Some(before) = last.get(&row.board).and_then(|figures| figures.get(&row.id)) else { continue };
        let Some(now) = row.value.as_f64() else { continue };
        let worse =
            if more_is_better(&row.id) { now < before * (1.0 - TOLERANCE) } else { now > before * (1.0 + TOLERANCE) };
        if worse {
            found.push(format!("{}: {now} after {before}", called(row)));
        }
    }
    found
}

fn read(path: &Path) -> Result<Figures> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is not understood", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Figures::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(id: &str, value: u32, goal: Option<u32>) -> Row {
        serde_json::from_value(json!({ "id": id, "board": "b", "unit": "u", "value": value, "goal": goal })).unwrap()
    }

    fn last(id: &str, value: f64) -> Figures {
        BTreeMap::from([("b".to_owned(), BTreeMap::from([(id.to_owned(), value)]))])
    }

    #[test]
    fn five_percent_are_allowed_and_no_more() {
        assert!(compare(&last("a", 100.0), &[row("a", 105, None)]).is_empty());
        assert_eq!(compare(&last("a", 100.0), &[row("a", 106, None)]).len(), 1);
        assert!(compare(&last("other", 100.0), &[row("a", 1000, None)]).is_empty());
    }

    #[test]
    fn where_more_is_better_less_is_worse() {
        assert_eq!(compare(&last("page_order9", 247.0), &[row("page_order9", 200, None)]).len(), 1);
        assert!(compare(&last("page_order9", 200.0), &[row("page_order9", 247, None)]).is_empty());
    }

    #[test]
    fn a_clock_is_held_against_nothing() {
        assert!(compare(&last("wall_kmalloc_4", 200.0), &[row("wall_kmalloc_4", 900, None)]).is_empty());
    }

    #[test]
    fn a_goal_that_is_kept_settles_it() {
        assert!(compare(&last("a", 50.0), &[row("a", 59, Some(60))]).is_empty());
        assert_eq!(compare(&last("a", 70.0), &[row("a", 80, Some(60))]).len(), 1);
    }
}
