//! The validated settings of `[scan]`.

pub use crate::config::sections::{
    canary::{CanarySamples, CanarySettings},
    scan::Settings,
};

use std::time::Duration;

use super::engines;

impl Settings {
    /// Returns `[rules]`, if the rules are one of the engines.
    #[must_use]
    pub fn rules(&self) -> Option<&engines::rules::Settings> {
        self.engines.iter().find_map(|engine| match engine {
            engines::EngineSettings::Rules(rules) => Some(rules),
            _ => None,
        })
    }

    /// Returns the sum of all engines' time limits.
    #[must_use]
    pub fn time_limits(&self) -> Duration {
        let limit = |engine: &engines::EngineSettings| match engine {
            engines::EngineSettings::Script(_) => self.timeout,
            engines::EngineSettings::Rules(rules) => rules.timeout,
            engines::EngineSettings::Clamd(clamd) => clamd.timeout,
            engines::EngineSettings::Icap(icap) => icap.timeout,
        };
        self.engines.iter().map(limit).fold(Duration::ZERO, Duration::saturating_add)
    }
}
