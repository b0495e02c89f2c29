//! Results of `doctor`.

use std::fmt::Display;

use serde_json::{Value, json};

use super::output::{BAD, GOOD, NOTE, Painter, print_line};
use crate::text::{escape_json, escape_untrusted};

/// State of one part of the service, in the order of severity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum ServiceHealth {
    Well,
    Degraded,
    Broken,
}

/// The results, in the order of the checks.
#[derive(Debug, Default)]
pub(super) struct HealthReport(Vec<HealthCheck>);

/// Result of one check.
#[derive(Debug)]
struct HealthCheck {
    part: &'static str,
    health: ServiceHealth,
    text: String,
}

impl ServiceHealth {
    /// Returns the exit code of `doctor`.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Degraded => 1,
            Self::Broken => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Degraded => "degraded",
            Self::Broken => "broken",
        }
    }
}

impl HealthReport {
    pub(super) fn ok(&mut self, part: &'static str, text: impl Display) {
        self.add(part, ServiceHealth::Well, text);
    }

    pub(super) fn warn(&mut self, part: &'static str, text: impl Display) {
        self.add(part, ServiceHealth::Degraded, text);
    }

    pub(super) fn fail(&mut self, part: &'static str, text: impl Display) {
        self.add(part, ServiceHealth::Broken, text);
    }

    fn add(&mut self, part: &'static str, health: ServiceHealth, text: impl Display) {
        self.0.push(HealthCheck { part, health, text: text.to_string() });
    }

    /// Returns the worst state.
    pub(super) fn health(&self) -> ServiceHealth {
        self.0.iter().map(|check| check.health).max().unwrap_or(ServiceHealth::Well)
    }

    /// Prints one line for each check, and the worst state.
    pub(super) fn print(&self, painter: Painter) {
        for HealthCheck { part, health, text } in &self.0 {
            let (style, word) = match health {
                ServiceHealth::Well => (GOOD, "ok"),
                ServiceHealth::Degraded => (NOTE, "warn"),
                ServiceHealth::Broken => (BAD, "fail"),
            };
            let word = painter.paint(style, format_args!("{word:4}"));
            print_line(format_args!("{word}  {part}: {}", escape_untrusted(text)));
        }
        print_line(self.health().name());
    }

    /// Prints one JSON object.
    pub(super) fn print_json(&self) {
        let checks = self.0.iter().map(|HealthCheck { part, health, text }| {
            json!({ "part": part, "health": health.name(), "text": text })
        });
        let checks: Vec<Value> = checks.collect();
        let report = json!({ "health": self.health().name(), "checks": checks });
        print_line(escape_json(&report.to_string()));
    }
}
