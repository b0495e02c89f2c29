//! Plots panels as SVG: small plots, two in a row, both axes logarithmic. Written by hand because the plots consist of
//! lines and text only, and the evaluated libraries are larger than this file or unmaintained.

use std::fmt::Write as _;

use crate::report::{Curve, Panel, thousands};

const WIDTH: f64 = 860.0;
const COLUMNS: usize = 2;
const ROW: f64 = 214.0;
/// Margins of a panel: title and legend above, numbers to the left and below.
const TOP: f64 = 48.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 34.0;
const BOTTOM: f64 = 40.0;
/// Distinguishable on white, also with colour vision deficiency.
const COLOURS: [&str; 3] = ["#0b63c5", "#d4690b", "#12805c"];
const LIMIT_COLOUR: &str = "#6b7280";

/// Returns the SVG of all panels that are plotted.
pub(crate) fn draw(panels: &[Panel]) -> String {
    let drawn: Vec<&Panel> = panels.iter().filter(|panel| panel.drawn).collect();
    let height = ROW * drawn.len().div_ceil(COLUMNS) as f64 + 8.0;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">
<title>How the cost of scanning grows</title>
<style>
text {{ font: 11.5px -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: #4b5563 }}
.title {{ font-size: 13.5px; font-weight: 600; fill: #111827 }}
.grid {{ stroke: #e5e7eb; stroke-width: 1 }}
</style>
<rect width="100%" height="100%" rx="6" fill="#ffffff"/>
"##
    );
    let width = WIDTH / COLUMNS as f64;
    for (index, panel) in drawn.into_iter().enumerate() {
        let (column, row) = ((index % COLUMNS) as f64, (index / COLUMNS) as f64);
        let frame = Frame {
            left: column * width + LEFT,
            right: (column + 1.0) * width - RIGHT,
            top: row * ROW + TOP,
            bottom: (row + 1.0) * ROW - BOTTOM,
            x: Scale::from_values(panel.curves.iter().flat_map(xs)),
            y: Scale::from_values(panel.curves.iter().flat_map(ys)).extend_to_round(),
        };
        frame.draw(panel, &mut svg);
    }
    svg + "</svg>"
}

/// Plot area and scales of one panel.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: Scale,
    y: Scale,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        self.left + self.x.fraction(value) * (self.right - self.left)
    }

    fn y(&self, value: f64) -> f64 {
        self.bottom - self.y.fraction(value) * (self.bottom - self.top)
    }

    fn draw(&self, panel: &Panel, svg: &mut String) {
        let Self { left, right, top, bottom, .. } = *self;
        let Panel { title, by, unit, curves, .. } = panel;
        draw_text(svg, "title", left, top - 27.0, "start", &format!("{title}, {unit}"));
        for value in self.y.ticks() {
            let y = self.y(value);
            draw_line(svg, "class=\"grid\"", &[(left, y), (right, y)]);
            draw_text(svg, "", left - 7.0, y + 4.0, "end", &number(value));
        }
        let values: Vec<f64> = xs(&curves[0]).collect();
        for value in values.iter().step_by(values.len().div_ceil(6)) {
            let x = self.x(*value);
            draw_line(svg, "class=\"grid\"", &[(x, bottom), (x, bottom + 4.0)]);
            draw_text(svg, "", x, bottom + 16.0, "middle", &by.value(*value));
        }
        draw_text(svg, "", f64::midpoint(left, right), bottom + 32.0, "middle", by.name());
        let mut legend = left;
        let mut colours = COLOURS.iter();
        for curve in curves {
            let colour = if curve.limit { LIMIT_COLOUR } else { colours.next().unwrap() };
            let dashes = if curve.limit { " stroke-dasharray=\"5 3\"" } else { "" };
            let style = format!("stroke=\"{colour}\" stroke-width=\"2\"{dashes}");
            draw_line(svg, &style, &[(legend, top - 12.0), (legend + 16.0, top - 12.0)]);
            draw_text(svg, "", legend + 21.0, top - 8.0, "start", &curve.name);
            // Estimated width of the text.
            legend += 35.0 + 6.4 * curve.name.len() as f64;
            let points: Vec<_> = curve
                .points
                .iter()
                .map(|(at, value)| (self.x(*at), self.y(value.median)))
                .collect();
            draw_line(svg, &style, &points);
            for ((at, value), (x, y)) in curve.points.iter().zip(points) {
                let quartiles =
                    format!("stroke=\"{colour}\" stroke-width=\"1.2\" stroke-opacity=\"0.6\"");
                draw_line(
                    svg,
                    &quartiles,
                    &[(self.x(*at), self.y(value.low)), (x, self.y(value.high))],
                );
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.8\" fill=\"{colour}\"/>")
                    .unwrap();
            }
        }
    }
}

/// A logarithmic scale.
struct Scale {
    min: f64,
    max: f64,
}

impl Scale {
    fn from_values(values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.collect();
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(0.0, f64::max);
        Self { min, max }
    }

    /// Returns the scale extended to round numbers on both ends.
    fn extend_to_round(&self) -> Self {
        let mut round = round_numbers();
        if self.max > 30.0 * self.min {
            round.retain(|number| is_power_of_ten(*number));
        }
        let min = round.iter().rfind(|number| **number <= self.min).unwrap();
        let max = round.iter().find(|number| **number >= self.max && *number > min).unwrap();
        Self { min: *min, max: *max }
    }

    /// Returns the position of a value on the scale, from 0 to 1.
    fn fraction(&self, value: f64) -> f64 {
        (value / self.min).ln() / (self.max / self.min).ln()
    }

    /// Returns at most six round numbers on the scale, fewer than all if there are more.
    fn ticks(&self) -> Vec<f64> {
        let is_within = |number: &f64| (self.min..=self.max).contains(number);
        let round: Vec<f64> = round_numbers().into_iter().filter(is_within).collect();
        if round.len() <= 6 {
            return round;
        }
        let powers = round.into_iter().filter(|number| is_power_of_ten(*number));
        let powers: Vec<f64> = powers.rev().collect();
        let mut ticks: Vec<f64> =
            powers.iter().step_by(powers.len().div_ceil(6)).copied().collect();
        ticks.reverse();
        ticks
    }
}

fn is_power_of_ten(number: f64) -> bool {
    (number.log10() - number.log10().round()).abs() < 1e-9
}

/// Returns 1, 2 and 5 times each power of ten from 1e-6 to 1e12.
fn round_numbers() -> Vec<f64> {
    let numbers = (-6..13).flat_map(|power| [1, 2, 5].map(|digit| format!("{digit}e{power}")));
    numbers.map(|number| number.parse().unwrap()).collect()
}

fn xs(curve: &Curve) -> impl Iterator<Item = f64> {
    curve.points.iter().map(|(at, _)| *at)
}

fn ys(curve: &Curve) -> impl Iterator<Item = f64> {
    curve.points.iter().flat_map(|(_, value)| [value.low, value.high])
}

fn number(value: f64) -> String {
    if value < 1.0 { value.to_string() } else { thousands(value) }
}

fn draw_line(svg: &mut String, style: &str, points: &[(f64, f64)]) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    writeln!(svg, "<polyline fill=\"none\" {style} points=\"{}\"/>", points.join(" ")).unwrap();
}

fn draw_text(svg: &mut String, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    writeln!(svg, "<text{class} x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
        .unwrap();
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::report::load_panels;

    #[test]
    fn documented_plot_matches_documented_figures() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let svg = draw(&load_panels(&docs.join("growth.json")));
        assert_eq!(fs::read_to_string(docs.join("growth.svg")).unwrap().trim_end(), svg);
    }

    #[test]
    fn scales_end_at_round_numbers_with_at_most_six_ticks() {
        let ticks =
            |values: &[f64]| Scale::from_values(values.iter().copied()).extend_to_round().ticks();
        assert_eq!(ticks(&[370.0, 480.0]), [200.0, 500.0]);
        assert_eq!(ticks(&[200.0, 500.0]), [200.0, 500.0]);
        assert_eq!(ticks(&[7.0]), [5.0, 10.0]);
        assert_eq!(ticks(&[0.02, 3.0]), [0.01, 0.1, 1.0, 10.0]);
        assert_eq!(ticks(&[0.001, 1000.0]), [0.001, 0.1, 10.0, 1000.0]);
    }
}
