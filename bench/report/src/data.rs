//! What was measured.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// One figure with its goal.
#[derive(Debug, Deserialize)]
pub struct Row {
    /// What.
    pub id: String,
    /// Where.
    pub board: String,
    /// Of what.
    pub unit: String,
    /// The figure.
    pub value: f64,
    /// The worst seen.
    pub worst: Option<f64>,
    /// What it should be.
    pub goal: Option<f64>,
    /// Who else.
    pub peer: Option<String>,
    /// Their figure.
    pub peer_value: Option<f64>,
}

impl Row {
    /// Whether it reaches its goal; `None` without one.
    pub fn reaches(&self) -> Option<bool> {
        let more =
            ["page_order9", "arena_first", "arena_churned", "areas_first", "areas_held"].contains(&self.id.as_str());
        self.goal.map(|goal| if more { self.value >= goal } else { self.value <= goal })
    }
}

/// Everything.
pub struct Data {
    /// Figures.
    pub rows: Vec<Row>,
    /// The rest.
    pub told: Vec<Value>,
}

/// What one side of a workload took.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Summary {
    /// The average.
    pub mean: f64,
    /// The dearest.
    pub worst: f64,
}

/// What a workload took.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Figures {
    /// Allocations.
    pub alloc: Summary,
    /// Frees.
    pub free: Summary,
    /// How many calls were counted.
    pub calls: u64,
}

impl Figures {
    /// The mean of an allocation and a free.
    pub fn pair(&self) -> f64 {
        self.alloc.mean + self.free.mean
    }

    /// The dearest call.
    pub fn worst(&self) -> f64 {
        self.alloc.worst.max(self.free.worst)
    }
}

/// One allocator on one workload.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The allocator.
    pub peer: String,
    /// The workload.
    pub work: String,
    /// Where.
    pub board: String,
    /// What it took.
    pub figures: Figures,
    /// Allocations that failed.
    pub failures: u64,
}

impl Data {
    /// Reads the last results.
    pub fn read(folder: &Path) -> Result<Data> {
        Ok(Data { rows: file(&folder.join("rows.json"))?, told: file(&folder.join("data.json"))? })
    }

    /// All of one kind.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.told.iter().filter(move |one| one["kind"] == kind)
    }

    /// The counted cells of a kind (`heap` or `pages`); where both counted, a board's and not the host's.
    pub fn cells(&self, kind: &str) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        for one in self.of(kind) {
            let Ok(figures) = Figures::deserialize(&one["result"]["figures"]) else { continue };
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            let failures = one["result"]["failures"].as_u64().unwrap_or(0);
            let cell = Cell { peer: text("peer"), work: text("work"), board: text("board"), figures, failures };
            match cells.iter_mut().find(|known| known.peer == cell.peer && known.work == cell.work) {
                Some(known) if known.board == "host" => *known = cell,
                Some(_) => {}
                None => cells.push(cell),
            }
        }
        cells
    }

    /// The cell of an allocator and a workload.
    pub fn cell(&self, kind: &str, peer: &str, work: &str) -> Option<Cell> {
        self.cells(kind).into_iter().find(|cell| cell.peer == peer && cell.work == work)
    }

    /// The allocators of a kind, rtmm first and then in the order they were measured.
    pub fn peers(&self, kind: &str) -> Vec<String> {
        let mut peers = Vec::new();
        for cell in self.cells(kind) {
            if !peers.contains(&cell.peer) {
                peers.push(cell.peer);
            }
        }
        peers.sort_by_key(|peer| peer != "rtmm");
        peers
    }
}

fn file<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not understood", path.display()))
}
