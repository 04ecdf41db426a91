//! Curves: use of an arena over time, and cost against size.

use crate::data::Data;
use crate::style::{FAINT, FONT, INK, LINES, OWN, PAPER};
use anyhow::{Context, Result};
use plotters::prelude::*;
use serde_json::Value;
use std::path::Path;

/// A line's name and points.
type Line = (String, Vec<(f64, f64)>);

/// How much of an arena is in use, from empty to full and through the churn.
pub fn arena(data: &Data, path: &Path) -> Result<()> {
    let lines: Vec<Line> = data
        .of("arena")
        .filter(|one| one["mib"] == 16)
        .filter_map(|one| Some((one["peer"].as_str()?.to_owned(), points(&one["result"]["curve"])?)))
        .collect();
    let axis = Axis { name: "thousand calls", label: |x| format!("{:.0}", x / 1000.0), step: None };
    draw(path, "Use of 16 MiB: filled with holes in it, then churned", "percent in use", &axis, lines, Some(100.0))
}

/// How much of memory without an MMU large areas can have, beside bursts of small objects.
pub fn areas(data: &Data, path: &Path) -> Result<()> {
    let names = [
        ("both-ends", "exact, areas that stay from the high end"),
        ("one-end", "exact, all from the low end"),
        ("powers-of-two", "powers of two, as Linux without an MMU"),
    ];
    let line = |(rule, name): (&str, &str)| -> Option<Line> {
        let one = data.of("areas").find(|one| one["rule"] == rule && one["mib"] == 16)?;
        Some((name.to_owned(), points(&one["result"]["curve"])?))
    };
    let lines = names.into_iter().filter_map(line).collect();
    let axis = Axis { name: "areas asked for", label: |x| format!("{x:.0}"), step: None };
    draw(path, "16 MiB without an MMU: areas grow, then are replaced", "percent in areas", &axis, lines, Some(100.0))
}

/// Cost against the size of memory.
pub fn memory(data: &Data, path: &Path) -> Result<()> {
    let of = |kind: &str, name: &str| -> Line {
        let points = data.of(kind).filter_map(|one| Some((one["log"].as_f64()?, mean(one)?))).collect();
        (name.to_owned(), points)
    };
    let lines = vec![of("flat-pages", "a page, half in use"), of("flat-bytes", "64 bytes")];
    let label = |log: f64| match log as u32 {
        log @ 0..20 => format!("{} KiB", 1u64 << (log - 10)),
        log @ 20..30 => format!("{} MiB", 1u64 << (log - 20)),
        log => format!("{} GiB", 1u64 << (log - 30)),
    };
    let axis = Axis { name: "size of memory", label, step: Some(2.0) };
    draw(path, "Cost against the size of memory", "instructions per pair (mean)", &axis, lines, None)
}

/// Cost against the number of live objects.
pub fn objects(data: &Data, path: &Path) -> Result<()> {
    let points = data.of("flat-objects").filter_map(|one| Some((one["live"].as_f64()?.log10(), mean(one)?))).collect();
    let label = |log: f64| format!("{}", 10f64.powf(log.round()));
    let axis = Axis { name: "live objects", label, step: Some(1.0) };
    let lines = vec![("8 to 4095 bytes".to_owned(), points)];
    draw(
        path,
        "Cost against the number of live objects, replaced at random",
        "instructions per pair (mean)",
        &axis,
        lines,
        None,
    )
}

fn mean(one: &Value) -> Option<f64> {
    one["result"]["pair"]["mean"].as_f64()
}

fn points(curve: &Value) -> Option<Vec<(f64, f64)>> {
    curve.as_array()?.iter().map(|point| Some((point[0].as_f64()?, point[1].as_f64()?))).collect()
}

struct Axis {
    name: &'static str,
    label: fn(f64) -> String,
    step: Option<f64>,
}

/// Draws lines, each named at its end.
fn draw(path: &Path, title: &str, unit: &str, axis: &Axis, lines: Vec<Line>, top: Option<f64>) -> Result<()> {
    let all = || lines.iter().flat_map(|(_, points)| points);
    let left = all().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let right = all().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
    let high = top.unwrap_or(all().map(|point| point.1).fold(0.0, f64::max) * 1.25);
    anyhow::ensure!(left < right && high > 0.0, "nothing was measured for a plot of {title}");
    let area = SVGBackend::new(path, (900, 460)).into_drawing_area();
    area.fill(&PAPER)?;
    let text = |size: i32| TextStyle::from((FONT, size).into_font()).color(&INK);
    area.draw(&Text::new(title.to_owned(), (24, 16), text(21)))?;
    area.draw(&Text::new(unit.to_owned(), (24, 44), text(14)))?;
    let (plot, legend) = area.margin(66, 12, 12, 12).split_horizontally(650);
    let mut chart = ChartBuilder::on(&plot)
        .x_label_area_size(44)
        .y_label_area_size(54)
        .margin_right(16)
        .build_cartesian_2d(left..right, 0.0..high)?;
    let ticks = axis.step.map_or(8, |step| ((right - left) / step).round() as usize + 1);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK.mix(0.5))
        .x_labels(ticks)
        .y_labels(6)
        .x_label_formatter(&|x| (axis.label)(*x))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(text(13))
        .x_desc(axis.name)
        .axis_desc_style(text(14))
        .draw()?;
    // The first is rtmm's, drawn last so that it lies on top.
    for (i, (name, points)) in lines.iter().enumerate().rev() {
        let is_own = i == 0;
        let colour = if is_own { OWN } else { LINES[(i - 1) % LINES.len()] };
        let width = if is_own { 3 } else { 2 };
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(width)))?;
        if points.len() < 20 {
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 4, colour.filled())))?;
        }
        let y = 8 + 24 * i as i32;
        legend.draw(&PathElement::new(vec![(4, y + 7), (26, y + 7)], colour.stroke_width(width + 1)))?;
        legend.draw(&Text::new(name.clone(), (34, y), text(14)))?;
    }
    area.present().with_context(|| path.display().to_string())
}
