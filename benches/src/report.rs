//! What was found: figures, each beside its limit of the same run and its goal; as a table and as JSON.

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

/// Median, and the middle half.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let at = |quarter: usize| values[(values.len() * quarter / 4).min(values.len() - 1)];
        Self { low: at(1), median: at(2), high: at(3) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, median, high } = self;
        let digits = match *median {
            _ if [low, median, high].iter().all(|it| it.fract() == 0.0) => 0,
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

/// What a figure is held to.
#[derive(Clone, Copy, Serialize)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    Within(f64, f64),
}

#[derive(Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    found: Spread,
    limit: Option<(String, Spread)>,
    /// Of each round, ours by the limit's.
    ratio: Option<Spread>,
    /// For the ratio where there is one, else for the figure.
    goal: Option<Goal>,
    met: Option<bool>,
}

/// How figures grow with something.
#[derive(Serialize, Deserialize)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// With what.
    pub(crate) by: Axis,
    pub(crate) unit: String,
    /// Or in the table alone.
    pub(crate) drawn: bool,
    pub(crate) curves: Vec<Curve>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Axis {
    /// Bytes of a file.
    Size,
    Connections,
    Remembered,
    Workers,
    Seconds,
}

impl Axis {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Size => "size of the file",
            Self::Connections => "connections, each with a request under way",
            Self::Remembered => "media that are remembered",
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
    /// What is at best, not ours.
    pub(crate) limit: bool,
    pub(crate) points: Vec<(f64, Spread)>,
}

impl Curve {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), limit: false, points: Vec::new() }
    }

    pub(crate) fn limit(name: &str) -> Self {
        Self { limit: true, ..Self::new(name) }
    }

    pub(crate) fn add(&mut self, at: f64, found: &[f64]) {
        self.points.push((at, Spread::of(found)));
    }
}

/// Of a report that was kept.
pub(crate) fn panels(file: &Path) -> Vec<Panel> {
    let report: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    serde_json::from_value(report["panels"].clone()).expect("panels")
}

#[derive(Serialize)]
pub(crate) struct Report {
    machine: String,
    command: String,
    /// Seconds since 1970.
    begun: u64,
    /// Before, and after, as the kernel counts it: this run's own is among it.
    load: (f64, f64),
    rows: Vec<Row>,
    panels: Vec<Panel>,
}

impl Report {
    pub(crate) fn new(parts: &[&str]) -> Self {
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let command = ["benches/run"].iter().chain(parts).copied().collect::<Vec<_>>().join(" ");
        let load = machine::load();
        let (rows, panels) = (Vec::new(), Vec::new());
        Self { machine: machine::name(), command, begun, load: (load, load), rows, panels }
    }

    /// Figures that grow with something.
    pub(crate) fn table(&mut self, title: &str, unit: &str, by: Axis, curves: Vec<Curve>) {
        let (title, unit) = (title.to_owned(), unit.to_owned());
        let panel = Panel { title, by, unit, drawn: false, curves };
        eprintln!("{}\n", table(&panel));
        self.panels.push(panel);
    }

    /// The same, which is drawn as well.
    pub(crate) fn panel(&mut self, title: &str, unit: &str, by: Axis, curves: Vec<Curve>) {
        self.table(title, unit, by, curves);
        self.panels.last_mut().unwrap().drawn = true;
    }

    /// A figure by itself.
    pub(crate) fn figure(
        &mut self,
        what: &str,
        unit: &'static str,
        found: &[f64],
        goal: Option<Goal>,
    ) {
        self.add(what, unit, found, None, goal);
    }

    /// A figure beside its limit, round by round.
    pub(crate) fn beside(
        &mut self,
        what: &str,
        unit: &'static str,
        found: &[f64],
        limit: (&str, &[f64]),
        goal: Option<Goal>,
    ) {
        self.add(what, unit, found, Some(limit), goal);
    }

    fn add(
        &mut self,
        what: &str,
        unit: &'static str,
        found: &[f64],
        limit: Option<(&str, &[f64])>,
        goal: Option<Goal>,
    ) {
        let ratio = limit.map(|(_, limits)| {
            let ratios: Vec<f64> =
                found.iter().zip(limits).map(|(ours, limit)| ours / limit).collect();
            Spread::of(&ratios)
        });
        let found = Spread::of(found);
        let held = ratio.unwrap_or(found).median;
        let met = goal.map(|goal| match goal {
            Goal::AtLeast(least) => held >= least,
            Goal::AtMost(most) => held <= most,
            Goal::Within(least, most) => (least..=most).contains(&held),
        });
        let limit = limit.map(|(name, values)| (name.to_owned(), Spread::of(values)));
        let row = Row { what: what.to_owned(), unit, found, limit, ratio, goal, met };
        eprintln!("  {}", line(&row));
        self.rows.push(row);
    }

    /// Whether each goal is met.
    pub(crate) fn all_met(&self) -> bool {
        self.rows.iter().all(|row| row.met != Some(false))
    }

    /// Prints the table, and keeps the JSON.
    pub(crate) fn print(&mut self) {
        self.load.1 = machine::load();
        let directory = Path::new("target/benches");
        fs::create_dir_all(directory).unwrap();
        let path = directory.join(format!("{}.json", self.begun));
        fs::write(&path, serde_json::to_string_pretty(self).unwrap()).unwrap();
        println!(
            "{}; `{}`; load {} before, {} after\n",
            self.machine, self.command, self.load.0, self.load.1
        );
        if !self.rows.is_empty() {
            println!("| | found | limit | ratio | goal | |\n|---|---|---|---|---|---|");
        }
        for row in &self.rows {
            println!("{}", line(row));
        }
        for panel in &self.panels {
            println!("\n{}", table(panel));
        }
        println!("\nMedians, with the middle half of the rounds. JSON: {}", path.display());
    }
}

fn table(panel: &Panel) -> String {
    let Panel { title, by, unit, curves, .. } = panel;
    let names: Vec<&str> = curves.iter().map(|curve| &*curve.name).collect();
    let mut text = format!(
        "{title}, {unit}\n\n| {} | {} |\n|---|{}",
        by.name(),
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for (place, (at, _)) in curves[0].points.iter().enumerate() {
        let found = curves.iter().map(|curve| format!(" {} |", curve.points[place].1));
        write!(text, "\n| {} |{}", by.value(*at), found.collect::<String>()).unwrap();
    }
    text
}

/// Digits in groups of three.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(" ")
}

fn line(row: &Row) -> String {
    let Row { what, unit, found, limit, ratio, goal, met } = row;
    let limit = limit.as_ref().map_or(String::new(), |(name, spread)| format!("{name}: {spread}"));
    let ratio = ratio.map_or(String::new(), |spread| spread.to_string());
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
    format!("| {what}{comma}{unit} | {found} | {limit} | {ratio} | {goal} | {met} |")
}
