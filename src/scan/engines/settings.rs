//! Settings of the engines.

use super::{bounds::Bounds, clamd, icap, rules};

/// The settings of one engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EngineSettings {
    /// The script; its other settings are in `[scan]`.
    Script(Bounds),
    /// `[rules]`
    Rules(rules::Settings),
    /// `[clamd]`
    Clamd(clamd::Settings),
    /// `[icap]`
    Icap(icap::Settings),
}

impl EngineSettings {
    /// Returns the settings that determine what the engine examines and finds, without the policies for its outcomes.
    pub(super) fn without_policies(&self) -> Self {
        let mut settings = self.clone();
        let bounds = match &mut settings {
            Self::Script(bounds) => bounds,
            Self::Rules(rules) => &mut rules.bounds,
            Self::Clamd(clamd) => &mut clamd.bounds,
            Self::Icap(icap) => &mut icap.bounds,
        };
        *bounds = bounds.without_policies();
        settings
    }
}
