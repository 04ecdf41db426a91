//! Colours and sizes that all plots share.

use plotters::style::RGBColor;

/// Plots are read on pages of light and of dark background, so they bring their own.
pub const PAPER: RGBColor = RGBColor(255, 255, 255);
/// Text.
pub const INK: RGBColor = RGBColor(36, 41, 47);
/// Axes and lines behind.
pub const FAINT: RGBColor = RGBColor(222, 226, 230);
/// rtmm.
pub const OWN: RGBColor = RGBColor(0, 98, 155);
/// The others.
pub const OTHER: RGBColor = RGBColor(160, 170, 180);
/// Lines of several allocators, after rtmm's: Okabe and Ito's colours, which most eyes tell apart.
pub const LINES: [RGBColor; 7] = [
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(148, 132, 20),
    RGBColor(110, 110, 110),
];
/// The font.
pub const FONT: &str = "sans-serif";

/// A number as people read it.
pub fn number(value: f64) -> String {
    if value >= 100_000.0 {
        format!("{:.0}k", value / 1000.0)
    } else if value >= 10_000.0 {
        format!("{:.1}k", value / 1000.0)
    } else if value >= 100.0 || value.fract().abs() < 0.05 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}
