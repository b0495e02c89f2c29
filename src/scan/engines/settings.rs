//! Settings of the engines.

pub use crate::config::sections::engines::EngineSettings;

impl EngineSettings {
    /// Returns the settings that determine what the engine examines and finds, without the policies for its outcomes.
    pub(super) fn without_policies(&self) -> Self {
        let mut settings = self.clone();
        let bounds = match &mut settings {
            Self::Script(bounds) => bounds,
            Self::Rules(rules) => &mut rules.bounds,
            Self::Hashes(_) => return settings,
            Self::Clamd(clamd) => &mut clamd.bounds,
            Self::Icap(icap) => &mut icap.bounds,
        };
        *bounds = bounds.without_policies();
        settings
    }
}
