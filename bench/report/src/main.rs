//! Makes the tables and plots of `docs/bench`, and the README's table, from what was measured last.
//!
//! Takes the workspace's folder. Reads `docs/bench/rows.json` and `docs/bench/data.json`.

mod bars;
mod curves;
mod data;
mod page;
mod style;

use anyhow::{Context, Result};
use data::Data;
use std::path::PathBuf;

fn main() -> Result<()> {
    let root = PathBuf::from(std::env::args_os().nth(1).context("usage: bench-report FOLDER")?);
    let folder = root.join("docs/bench");
    let data = Data::read(&folder)?;
    bars::hot(&data, &folder.join("hot.svg"))?;
    bars::mixed(&data, &folder.join("mixed.svg"))?;
    bars::worst(&data, &folder.join("worst.svg"))?;
    bars::pages(&data, &folder.join("pages.svg"))?;
    bars::large_blocks(&data, &folder.join("large-blocks.svg"))?;
    curves::arena(&data, &folder.join("arena.svg"))?;
    curves::memory(&data, &folder.join("flat-memory.svg"))?;
    curves::objects(&data, &folder.join("flat-objects.svg"))?;
    page::write(&data, &folder.join("README.md"))?;
    page::splice(&data, &root.join("README.md"))
}
