//! Makes the tables and plots of `docs/bench`, and the README's table, from what was measured last.
//!
//! Takes the workspace's folder. Reads `docs/bench/rows.json` and `docs/bench/data.json`.

mod bars;
mod curves;
mod data;
mod page;
mod reasons;
mod style;

use anyhow::{Context, Result};
use data::Data;
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let root = PathBuf::from(std::env::args_os().nth(1).context("usage: bench-report FOLDER")?);
    let folder = root.join("docs/bench");
    let data = Data::read(&folder)?;
    type Plot = fn(&Data, &Path) -> Result<()>;
    let plots: [(&str, Plot); 9] = [
        ("hot.svg", bars::hot),
        ("mixed.svg", bars::mixed),
        ("worst.svg", bars::worst),
        ("pages.svg", bars::pages),
        ("large-blocks.svg", bars::large_blocks),
        ("arena.svg", curves::arena),
        ("areas.svg", curves::areas),
        ("flat-memory.svg", curves::memory),
        ("flat-objects.svg", curves::objects),
    ];
    for (name, plot) in plots {
        // Only a part may have been measured so far.
        if let Err(error) = plot(&data, &folder.join(name)) {
            println!("    no {name}: {error:#}");
        }
    }
    page::write(&data, &folder.join("README.md"))?;
    page::splice(&data, &root.join("README.md"))
}
