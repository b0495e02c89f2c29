//! Plots of the latest minutes, as SVG pictures. Colours are attributes: the content security policy forbids styles.

use std::fmt::Write as _;

use crate::scan::recent::MinuteCounts;

/// Minimum number of minutes from the left to the right edge.
const MIN_SPAN: usize = 10;

const WIDTH: u16 = 480;
const HEIGHT: u16 = 150;
const LEFT: u16 = 44;
const TOP: u16 = 22;
const BOTTOM: u16 = 20;

/// Colours that people with deficient colour vision can tell apart (Okabe and Ito). Lines differ by their dashes as well.
const LINES: [(&str, &str); 4] =
    [("#0072b2", "none"), ("#d55e00", "none"), ("#000000", "2 3"), ("#009e73", "6 3")];

/// A plot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Plot {
    Rates,
    Durations,
    Load,
}

/// One line of a plot, from the earliest minute to the current one.
struct PlotLine {
    name: &'static str,
    values: Vec<f64>,
}

impl Plot {
    pub(super) const ALL: [Self; 3] = [Self::Rates, Self::Durations, Self::Load];

    /// Returns the name of the picture.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Rates => "rates.svg",
            Self::Durations => "durations.svg",
            Self::Load => "load.svg",
        }
    }

    pub(super) fn caption(self) -> &'static str {
        match self {
            Self::Rates => "Answers of a minute",
            Self::Durations => "Duration of scans, seconds",
            Self::Load => "Highest load of a minute",
        }
    }

    fn lines(self, minutes: &[MinuteCounts]) -> Vec<PlotLine> {
        let line = |name, value: fn(&MinuteCounts) -> f64| PlotLine {
            name,
            values: minutes.iter().map(value).collect(),
        };
        match self {
            Self::Rates => vec![
                line("clean", |minute| minute.clean.into()),
                line("not clean", |minute| minute.not_clean.into()),
                line("failed", |minute| minute.failed.into()),
                line("from memory", |minute| minute.from_memory.into()),
            ],
            Self::Durations => vec![
                line("median", |minute| seconds(minute, 50)),
                line("95 % within", |minute| seconds(minute, 95)),
            ],
            Self::Load => vec![
                line("busy workers", |minute| number(minute.max_busy)),
                line("waiting jobs", |minute| number(minute.max_waiting)),
            ],
        }
    }

    /// Returns the values of the current minute, for people who do not see the picture.
    pub(super) fn description(self, minutes: &[MinuteCounts]) -> String {
        let lines = self.lines(minutes);
        let values = lines.iter().filter_map(|line| {
            let last = line.values.last()?;
            let highest = line.values.iter().copied().fold(0.0, f64::max);
            Some(format!("{} {} (highest: {})", line.name, rounded(*last), rounded(highest)))
        });
        format!("current minute: {}", values.collect::<Vec<_>>().join(", "))
    }

    /// Returns the picture.
    pub(super) fn svg(self, minutes: &[MinuteCounts]) -> String {
        let lines = self.lines(minutes);
        let values = lines.iter().flat_map(|line| &line.values);
        let scale = values.copied().fold(f64::MIN_POSITIVE, f64::max);
        let span = minutes.len().saturating_sub(1).max(MIN_SPAN);
        let (right, floor) = (WIDTH - 6, HEIGHT - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
             <path d=\"M{LEFT} {TOP}V{floor}H{right}\" fill=\"none\" stroke=\"#767676\"/>\n\
             <g fill=\"#333333\"><g text-anchor=\"end\"><text x=\"{}\" y=\"{}\">{}</text>\
             <text x=\"{}\" y=\"{floor}\">0</text>\
             <text x=\"{right}\" y=\"{}\">now</text></g>\
             <text x=\"{LEFT}\" y=\"{}\">{span} minutes ago</text></g>\n",
            LEFT - 4,
            TOP + 4,
            if scale > f64::MIN_POSITIVE { rounded(scale) } else { "1".to_owned() },
            LEFT - 4,
            HEIGHT - 6,
            HEIGHT - 6,
        );
        let mut legend = LEFT;
        for (line, (colour, dashes)) in lines.iter().zip(LINES) {
            // Writing to a string cannot fail.
            let _ = write!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" stroke-dasharray=\"{dashes}\" points=\"{}\"/>\n\
                 <path d=\"M{legend} 9h16\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\
                 <text x=\"{}\" y=\"13\" fill=\"#333333\">{}</text>\n",
                points(&line.values, scale, span),
                legend + 20,
                line.name,
            );
            legend += 104;
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Returns the points of a line, whose last value is at the right edge.
fn points(values: &[f64], scale: f64, span: usize) -> String {
    let (right, floor) = (f64::from(WIDTH - 6), f64::from(HEIGHT - BOTTOM));
    let height = floor - f64::from(TOP);
    let step = (right - f64::from(LEFT)) / number(span);
    let mut points = String::new();
    for (back, value) in values.iter().rev().enumerate() {
        let (x, y) = (right - step * number(back), floor - height * value / scale);
        // Writing to a string cannot fail.
        let _ = write!(points, "{x:.1},{y:.1} ");
    }
    points
}

fn seconds(minute: &MinuteCounts, percent: u32) -> f64 {
    minute.durations.quantile(percent).map_or(0.0, |duration| duration.as_secs_f64())
}

fn number(value: usize) -> f64 {
    u32::try_from(value).unwrap_or(u32::MAX).into()
}

fn rounded(value: f64) -> String {
    if value.fract() == 0.0 || value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_right_and_reach_the_top() {
        let counts = |clean| MinuteCounts { clean, ..MinuteCounts::default() };
        let svg = Plot::Rates.svg(&[counts(0), counts(8), counts(4)]);
        assert!(svg.contains("points=\"474.0,76.0 431.0,22.0 388.0,130.0 \""), "{svg}");
        assert!(svg.contains(">8</text>"), "{svg}");
        assert!(!svg.contains("style"), "the content security policy forbids styles");
        let description = Plot::Rates.description(&[counts(8), counts(4)]);
        assert!(description.starts_with("current minute: clean 4 (highest: 8), "), "{description}");
    }

    #[test]
    fn empty_plots_are_flat() {
        for plot in Plot::ALL {
            let svg = plot.svg(&[MinuteCounts::default()]);
            assert!(svg.contains("points=\"474.0,130.0 \""), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
