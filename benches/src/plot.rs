//! Panels as a picture: SVG with small plots, two in a row, both axes logarithmic. Written by hand: what there is to draw are
//! lines and words, and the libraries that were looked at are larger than this, or no longer kept up.

use std::fmt::Write as _;

use crate::report::{Curve, Panel, thousands};

const WIDTH: f64 = 860.0;
const COLUMNS: usize = 2;
const ROW: f64 = 214.0;
/// Around the lines of one panel: its title and legend above, numbers to the left and below.
const TOP: f64 = 48.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 34.0;
const BOTTOM: f64 = 40.0;
/// Told apart by people who see few colours as well, on white.
const COLOURS: [&str; 3] = ["#0b63c5", "#d4690b", "#12805c"];
const LIMIT: &str = "#6b7280";

/// The picture.
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
    for (place, panel) in drawn.into_iter().enumerate() {
        let (column, row) = ((place % COLUMNS) as f64, (place / COLUMNS) as f64);
        let frame = Frame {
            left: column * width + LEFT,
            right: (column + 1.0) * width - RIGHT,
            top: row * ROW + TOP,
            bottom: (row + 1.0) * ROW - BOTTOM,
            x: Scale::over(panel.curves.iter().flat_map(xs)),
            y: Scale::over(panel.curves.iter().flat_map(ys)).to_round(),
        };
        frame.draw(panel, &mut svg);
    }
    svg + "</svg>"
}

/// Where the lines of one panel lie.
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
        self.left + self.x.part(value) * (self.right - self.left)
    }

    fn y(&self, value: f64) -> f64 {
        self.bottom - self.y.part(value) * (self.bottom - self.top)
    }

    fn draw(&self, panel: &Panel, svg: &mut String) {
        let Self { left, right, top, bottom, .. } = *self;
        let Panel { title, by, unit, curves, .. } = panel;
        words(svg, "title", left, top - 27.0, "start", &format!("{title}, {unit}"));
        for value in self.y.ticks() {
            let y = self.y(value);
            line(svg, "class=\"grid\"", &[(left, y), (right, y)]);
            words(svg, "", left - 7.0, y + 4.0, "end", &number(value));
        }
        let places: Vec<f64> = xs(&curves[0]).collect();
        for place in places.iter().step_by(places.len().div_ceil(6)) {
            let x = self.x(*place);
            line(svg, "class=\"grid\"", &[(x, bottom), (x, bottom + 4.0)]);
            words(svg, "", x, bottom + 16.0, "middle", &by.value(*place));
        }
        words(svg, "", f64::midpoint(left, right), bottom + 32.0, "middle", by.name());
        let mut legend = left;
        let mut colours = COLOURS.iter();
        for curve in curves {
            let colour = if curve.limit { LIMIT } else { colours.next().unwrap() };
            let dashes = if curve.limit { " stroke-dasharray=\"5 3\"" } else { "" };
            let style = format!("stroke=\"{colour}\" stroke-width=\"2\"{dashes}");
            line(svg, &style, &[(legend, top - 12.0), (legend + 16.0, top - 12.0)]);
            words(svg, "", legend + 21.0, top - 8.0, "start", &curve.name);
            // About as wide as it will be.
            legend += 35.0 + 6.4 * curve.name.len() as f64;
            let points: Vec<_> = curve
                .points
                .iter()
                .map(|(at, found)| (self.x(*at), self.y(found.median)))
                .collect();
            line(svg, &style, &points);
            for ((at, found), (x, y)) in curve.points.iter().zip(points) {
                let spread =
                    format!("stroke=\"{colour}\" stroke-width=\"1.2\" stroke-opacity=\"0.6\"");
                line(svg, &spread, &[(self.x(*at), self.y(found.low)), (x, self.y(found.high))]);
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.8\" fill=\"{colour}\"/>")
                    .unwrap();
            }
        }
    }
}

/// A logarithmic scale.
struct Scale {
    least: f64,
    most: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        Self { least, most }
    }

    /// From a round number to a round number.
    fn to_round(&self) -> Self {
        let mut round = round_numbers();
        if self.most > 30.0 * self.least {
            round.retain(|it| is_power_of_ten(*it));
        }
        let least = round.iter().rfind(|it| **it <= self.least).unwrap();
        let most = round.iter().find(|it| **it >= self.most && *it > least).unwrap();
        Self { least: *least, most: *most }
    }

    /// From 0 to 1.
    fn part(&self, value: f64) -> f64 {
        (value / self.least).ln() / (self.most / self.least).ln()
    }

    /// Few enough.
    fn ticks(&self) -> Vec<f64> {
        let within = |it: &f64| (self.least..=self.most).contains(it);
        let round: Vec<f64> = round_numbers().into_iter().filter(within).collect();
        if round.len() <= 6 {
            return round;
        }
        let mut few: Vec<f64> = round.into_iter().filter(|it| is_power_of_ten(*it)).rev().collect();
        few = few.iter().step_by(few.len().div_ceil(6)).copied().collect();
        few.reverse();
        few
    }
}

fn is_power_of_ten(number: f64) -> bool {
    (number.log10() - number.log10().round()).abs() < 1e-9
}

/// 1, 2, 5, 10 and so on, from a millionth to a million millions.
fn round_numbers() -> Vec<f64> {
    let first = (-6..13).flat_map(|power| [1, 2, 5].map(|digit| format!("{digit}e{power}")));
    first.map(|it| it.parse().unwrap()).collect()
}

fn xs(curve: &Curve) -> impl Iterator<Item = f64> {
    curve.points.iter().map(|(at, _)| *at)
}

fn ys(curve: &Curve) -> impl Iterator<Item = f64> {
    curve.points.iter().flat_map(|(_, found)| [found.low, found.high])
}

fn number(value: f64) -> String {
    if value < 1.0 { value.to_string() } else { thousands(value) }
}

fn line(svg: &mut String, style: &str, points: &[(f64, f64)]) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    writeln!(svg, "<polyline fill=\"none\" {style} points=\"{}\"/>", points.join(" ")).unwrap();
}

fn words(svg: &mut String, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    writeln!(svg, "<text{class} x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
        .unwrap();
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::report::panels;

    #[test]
    fn the_picture_in_the_docs_is_of_the_figures_beside_it() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let picture = draw(&panels(&docs.join("growth.json")));
        assert_eq!(fs::read_to_string(docs.join("growth.svg")).unwrap().trim_end(), picture);
    }

    #[test]
    fn scales_end_at_round_numbers_and_have_few_ticks() {
        let ticks = |values: &[f64]| Scale::over(values.iter().copied()).to_round().ticks();
        assert_eq!(ticks(&[370.0, 480.0]), [200.0, 500.0]);
        assert_eq!(ticks(&[200.0, 500.0]), [200.0, 500.0]);
        assert_eq!(ticks(&[7.0]), [5.0, 10.0]);
        assert_eq!(ticks(&[0.02, 3.0]), [0.01, 0.1, 1.0, 10.0]);
        assert_eq!(ticks(&[0.001, 1000.0]), [0.001, 0.1, 10.0, 1000.0]);
    }
}
