//! Bars: one per allocator.

use crate::data::{Cell, Data};
use crate::style::{FAINT, FONT, INK, OTHER, OWN, PAPER, number};
use anyhow::{Context, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// A bar's name and length.
type Bar = (String, f64);

/// Pairs of 64 bytes that find everything ready.
pub fn hot(data: &Data, path: &Path) -> Result<()> {
    let bars = cells(data, "heap", "W1", Cell::pair);
    draw(path, "64 bytes, allocated and freed at once", "instructions per pair, less is better", bars)
}

/// Replaces of small objects.
pub fn mixed(data: &Data, path: &Path) -> Result<()> {
    let bars = cells(data, "heap", "W3", Cell::pair);
    draw(path, "8 to 4095 bytes replaced at random, 10,000 live", "instructions per pair (mean), less is better", bars)
}

/// The dearest call of any workload.
pub fn worst(data: &Data, path: &Path) -> Result<()> {
    let mut bars: Vec<Bar> = Vec::new();
    for cell in data.cells("heap") {
        let worst = cell.figures.worst();
        match bars.iter_mut().find(|(peer, _)| *peer == cell.peer) {
            Some((_, known)) => *known = known.max(worst),
            None => bars.push((cell.peer, worst)),
        }
    }
    draw(path, "The dearest single call in any workload", "instructions, logarithmic, less is better", bars)
}

/// Pages, one by one and of all sizes.
pub fn pages(data: &Data, path: &Path) -> Result<()> {
    let mut bars = Vec::new();
    for (work, what) in [("P1", "one page"), ("P3", "mixed orders")] {
        for (peer, value) in cells(data, "pages", work, Cell::pair) {
            bars.push((format!("{peer}, {what}"), value));
        }
    }
    draw(path, "Pages, 1 GiB", "instructions per pair (mean), logarithmic, less is better", bars)
}

/// What P5 leaves.
pub fn large_blocks(data: &Data, path: &Path) -> Result<()> {
    let bars = data
        .of("page-use")
        .filter_map(|one| Some((one["peer"].as_str()?.to_owned(), one["result"]["large_after_churn"].as_f64()?)))
        .collect();
    draw(path, "Free blocks of 2 MiB after a million page replaces", "blocks, of 448 possible, more is better", bars)
}

impl Cell {
    fn pair(&self) -> f64 {
        self.figures.pair()
    }
}

/// The bars of a workload, of the allocators that could do all of it.
fn cells(data: &Data, kind: &str, work: &str, value: impl Fn(&Cell) -> f64) -> Vec<Bar> {
    let of_work = |cell: &Cell| cell.work == work && cell.failures == 0;
    data.cells(kind).into_iter().filter(of_work).map(|cell| (cell.peer.clone(), value(&cell))).collect()
}

const LEFT: i32 = 250;
const RIGHT: i32 = 90;
const TOP: i32 = 74;
const STEP: i32 = 30;
const WIDTH: i32 = 820;

/// Draws horizontal bars, the shortest first; by logarithm when they differ much.
fn draw(path: &Path, title: &str, unit: &str, mut bars: Vec<Bar>) -> Result<()> {
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    let most = bars.last().context("nothing was measured for a plot")?.1.max(1.0);
    let is_logarithmic = unit.contains("logarithmic") || (most > 1500.0);
    let unit = if is_logarithmic && !unit.contains("logarithmic") {
        unit.replacen(',', ", logarithmic,", 1)
    } else {
        unit.to_owned()
    };
    let scale = |value: f64| {
        let part = if is_logarithmic { value.max(1.0).ln() / most.ln() } else { value / most };
        (part * f64::from(WIDTH - LEFT - RIGHT)).round() as i32
    };
    let height = TOP + STEP * bars.len() as i32 + 14;
    let area = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&PAPER)?;
    let text = |size: i32| TextStyle::from((FONT, size).into_font()).color(&INK);
    area.draw(&Text::new(title.to_owned(), (24, 16), text(21)))?;
    area.draw(&Text::new(unit, (24, 44), text(14)))?;
    for (i, (name, value)) in bars.iter().enumerate() {
        let y = TOP + STEP * i as i32;
        let is_own = name.starts_with("rtmm");
        let colour = if is_own { OWN } else { OTHER };
        let middle = y + STEP / 2 - 2;
        area.draw(&Rectangle::new([(LEFT, y), (WIDTH - RIGHT, y + STEP - 8)], FAINT.mix(0.35).filled()))?;
        area.draw(&Rectangle::new([(LEFT, y), (LEFT + scale(*value).max(2), y + STEP - 8)], colour.filled()))?;
        let font = if is_own { (FONT, 15).into_font().style(FontStyle::Bold) } else { (FONT, 15).into_font() };
        let style = TextStyle::from(font).color(&INK);
        area.draw(&Text::new(name.clone(), (LEFT - 10, middle), style.pos(Pos::new(HPos::Right, VPos::Center))))?;
        let at = (LEFT + scale(*value).max(2) + 8, middle);
        area.draw(&Text::new(number(*value), at, text(14).pos(Pos::new(HPos::Left, VPos::Center))))?;
    }
    area.present().with_context(|| path.display().to_string())
}
