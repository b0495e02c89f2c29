//! Results: figures with their limits from the same run and their goals, as a table and as JSON.

use std::{
    fmt::{self, Write as _},
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{
    files::{GIB, KIB, MIB},
    machine,
};

/// Median with lower and upper quartile.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Quartiles {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Quartiles {
    pub(crate) fn from_values(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let quartile = |n: usize| values[(values.len() * n / 4).min(values.len() - 1)];
        Self { low: quartile(1), median: quartile(2), high: quartile(3) }
    }
}

impl fmt::Display for Quartiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, median, high } = self;
        let digits = match *median {
            _ if [low, median, high].iter().all(|value| value.fract() == 0.0) => 0,
            100.0.. => 0,
            10.0.. => 1,
            0.1.. => 2,
            0.01.. => 3,
            _ => 4,
        };
        write!(f, "{median:.digits$}")?;
        if low < high { write!(f, " ({low:.digits$}–{high:.digits$})") } else { Ok(()) }
    }
}

/// Required range of a figure or ratio.
#[derive(Clone, Copy, Serialize)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    Within(f64, f64),
}

#[derive(Serialize)]
struct FigureRow {
    name: String,
    unit: &'static str,
    value: Quartiles,
    limit: Option<(String, Quartiles)>,
    /// Value divided by limit, for each round.
    ratio: Option<Quartiles>,
    /// Goal for the ratio if there is a limit, else for the value.
    goal: Option<Goal>,
    met: Option<bool>,
}

/// Figures as functions of a parameter.
#[derive(Serialize, Deserialize)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// Parameter on the x axis.
    pub(crate) by: Axis,
    pub(crate) unit: String,
    /// Whether the panel is plotted as well as printed.
    pub(crate) drawn: bool,
    pub(crate) curves: Vec<Curve>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Axis {
    /// File size in bytes.
    Size,
    Connections,
    CachedMedia,
    Workers,
    Seconds,
}

impl Axis {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Size => "file size",
            Self::Connections => "connections, each with one request in flight",
            Self::CachedMedia => "cached media",
            Self::Workers => "scan.workers",
            Self::Seconds => "seconds",
        }
    }

    pub(crate) fn value(self, value: f64) -> String {
        match self {
            Self::Size if value >= GIB as f64 => format!("{} GiB", value / GIB as f64),
            Self::Size if value >= MIB as f64 => format!("{} MiB", value / MIB as f64),
            Self::Size => format!("{} KiB", value / KIB as f64),
            _ => thousands(value),
        }
    }
}

/// One line of a plot.
#[derive(Serialize, Deserialize)]
pub(crate) struct Curve {
    pub(crate) name: String,
    /// Whether this is a limit (the best that the machine can do) instead of a figure of the service.
    pub(crate) limit: bool,
    pub(crate) points: Vec<(f64, Quartiles)>,
}

impl Curve {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), limit: false, points: Vec::new() }
    }

    pub(crate) fn new_limit(name: &str) -> Self {
        Self { limit: true, ..Self::new(name) }
    }

    pub(crate) fn add(&mut self, x: f64, values: &[f64]) {
        self.points.push((x, Quartiles::from_values(values)));
    }
}

/// Reads the panels of a saved report.
pub(crate) fn load_panels(file: &Path) -> Vec<Panel> {
    let report: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    serde_json::from_value(report["panels"].clone()).expect("panels")
}

#[derive(Serialize)]
pub(crate) struct BenchReport {
    machine: String,
    command: String,
    /// Seconds since 1970.
    begun: u64,
    /// Load average before and after the run, which includes the run itself.
    load: (f64, f64),
    rows: Vec<FigureRow>,
    panels: Vec<Panel>,
}

impl BenchReport {
    pub(crate) fn new(parts: &[&str]) -> Self {
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let command = ["benches/run"].iter().chain(parts).copied().collect::<Vec<_>>().join(" ");
        let load = machine::load_average();
        let (rows, panels) = (Vec::new(), Vec::new());
        Self { machine: machine::description(), command, begun, load: (load, load), rows, panels }
    }

    /// Adds a panel that is printed only.
    pub(crate) fn add_table(&mut self, title: &str, unit: &str, by: Axis, curves: Vec<Curve>) {
        let (title, unit) = (title.to_owned(), unit.to_owned());
        let panel = Panel { title, by, unit, drawn: false, curves };
        eprintln!("{}\n", format_table(&panel));
        self.panels.push(panel);
    }

    /// Adds a panel that is printed and plotted.
    pub(crate) fn add_panel(&mut self, title: &str, unit: &str, by: Axis, curves: Vec<Curve>) {
        self.add_table(title, unit, by, curves);
        self.panels.last_mut().unwrap().drawn = true;
    }

    /// Adds a figure without a limit. `values`: one value for each round.
    pub(crate) fn add_figure(
        &mut self,
        name: &str,
        unit: &'static str,
        values: &[f64],
        goal: Option<Goal>,
    ) {
        self.add(name, unit, values, None, goal);
    }

    /// Adds a figure with its limit. `values` and the limit's values: one value for each round.
    pub(crate) fn add_comparison(
        &mut self,
        name: &str,
        unit: &'static str,
        values: &[f64],
        limit: (&str, &[f64]),
        goal: Option<Goal>,
    ) {
        self.add(name, unit, values, Some(limit), goal);
    }

    fn add(
        &mut self,
        name: &str,
        unit: &'static str,
        values: &[f64],
        limit: Option<(&str, &[f64])>,
        goal: Option<Goal>,
    ) {
        let ratio = limit.map(|(_, limits)| {
            let ratios: Vec<f64> =
                values.iter().zip(limits).map(|(value, limit)| value / limit).collect();
            Quartiles::from_values(&ratios)
        });
        let value = Quartiles::from_values(values);
        let compared = ratio.unwrap_or(value).median;
        let met = goal.map(|goal| match goal {
            Goal::AtLeast(least) => compared >= least,
            Goal::AtMost(most) => compared <= most,
            Goal::Within(least, most) => (least..=most).contains(&compared),
        });
        let limit = limit.map(|(name, values)| (name.to_owned(), Quartiles::from_values(values)));
        let row = FigureRow { name: name.to_owned(), unit, value, limit, ratio, goal, met };
        eprintln!("  {}", format_row(&row));
        self.rows.push(row);
    }

    /// Returns whether all goals are met.
    pub(crate) fn all_met(&self) -> bool {
        self.rows.iter().all(|row| row.met != Some(false))
    }

    /// Prints the tables and saves the JSON.
    pub(crate) fn print(&mut self) {
        self.load.1 = machine::load_average();
        let directory = Path::new("target/benches");
        fs::create_dir_all(directory).unwrap();
        let path = directory.join(format!("{}.json", self.begun));
        fs::write(&path, serde_json::to_string_pretty(self).unwrap()).unwrap();
        println!(
            "{}; `{}`; load average {} before, {} after\n",
            self.machine, self.command, self.load.0, self.load.1
        );
        if !self.rows.is_empty() {
            println!("| | value | limit | ratio | goal | |\n|---|---|---|---|---|---|");
        }
        for row in &self.rows {
            println!("{}", format_row(row));
        }
        for panel in &self.panels {
            println!("\n{}", format_table(panel));
        }
        println!("\nMedians (quartiles of the rounds). JSON: {}", path.display());
    }
}

fn format_table(panel: &Panel) -> String {
    let Panel { title, by, unit, curves, .. } = panel;
    let names: Vec<&str> = curves.iter().map(|curve| &*curve.name).collect();
    let mut text = format!(
        "{title}, {unit}\n\n| {} | {} |\n|---|{}",
        by.name(),
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for (index, (x, _)) in curves[0].points.iter().enumerate() {
        let cells = curves.iter().map(|curve| format!(" {} |", curve.points[index].1));
        write!(text, "\n| {} |{}", by.value(*x), cells.collect::<String>()).unwrap();
    }
    text
}

/// Formats an integer with digits in groups of three.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(" ")
}

fn format_row(row: &FigureRow) -> String {
    let FigureRow { name, unit, value, limit, ratio, goal, met } = row;
    let limit =
        limit.as_ref().map_or(String::new(), |(name, quartiles)| format!("{name}: {quartiles}"));
    let ratio = ratio.map_or(String::new(), |quartiles| quartiles.to_string());
    let goal = match goal {
        None => String::new(),
        Some(Goal::AtLeast(least)) => format!("≥ {least}"),
        Some(Goal::AtMost(most)) => format!("≤ {most}"),
        Some(Goal::Within(least, most)) => format!("{least} to {most}"),
    };
    let met = match met {
        None => "",
        Some(true) => "met",
        Some(false) => "missed",
    };
    let comma = if unit.is_empty() { "" } else { ", " };
    format!("| {name}{comma}{unit} | {value} | {limit} | {ratio} | {goal} | {met} |")
}
