//! What was found: figures, each beside its limit of the same run and its goal; as a table and as JSON.

use std::{
    fmt, fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::machine;

/// Median, and the middle half.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Spread {
    low: f64,
    pub(crate) median: f64,
    high: f64,
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
        let digits = if *median >= 100.0 {
            0
        } else if *median >= 10.0 {
            1
        } else {
            2
        };
        write!(f, "{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }
}

/// What a figure is held to.
#[derive(Clone, Copy, Serialize)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
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

#[derive(Serialize)]
pub(crate) struct Report {
    machine: String,
    command: String,
    /// Seconds since 1970.
    begun: u64,
    /// Before, and after, as the kernel counts it: this run's own is among it.
    load: (f64, f64),
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(parts: &[&str]) -> Self {
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let command = ["benches/run"].iter().chain(parts).copied().collect::<Vec<_>>().join(" ");
        let load = machine::load();
        Self { machine: machine::name(), command, begun, load: (load, load), rows: Vec::new() }
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
        });
        let limit = limit.map(|(name, values)| (name.to_owned(), Spread::of(values)));
        let row = Row { what: what.to_owned(), unit, found, limit, ratio, goal, met };
        eprintln!("  {}", line(&row));
        self.rows.push(row);
    }

    /// Prints the table, and keeps the JSON.
    pub(crate) fn print(mut self) {
        self.load.1 = machine::load();
        let directory = Path::new("target/benches");
        fs::create_dir_all(directory).unwrap();
        let path = directory.join(format!("{}.json", self.begun));
        fs::write(&path, serde_json::to_string_pretty(&self).unwrap()).unwrap();
        println!(
            "{}; `{}`; load {} before, {} after\n",
            self.machine, self.command, self.load.0, self.load.1
        );
        println!("| | found | limit | ratio | goal | |\n|---|---|---|---|---|---|");
        for row in &self.rows {
            println!("{}", line(row));
        }
        println!("\nMedians, with the middle half of the rounds. JSON: {}", path.display());
    }
}

fn line(row: &Row) -> String {
    let Row { what, unit, found, limit, ratio, goal, met } = row;
    let limit = limit.as_ref().map_or(String::new(), |(name, spread)| format!("{name}: {spread}"));
    let ratio = ratio.map_or(String::new(), |spread| spread.to_string());
    let goal = match goal {
        None => String::new(),
        Some(Goal::AtLeast(least)) => format!("≥ {least}"),
        Some(Goal::AtMost(most)) => format!("≤ {most}"),
    };
    let met = match met {
        None => "",
        Some(true) => "met",
        Some(false) => "missed",
    };
    format!("| {what}, {unit} | {found} | {limit} | {ratio} | {goal} | {met} |")
}
