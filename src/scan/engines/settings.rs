//! Settings of the engines.

pub use crate::config::sections::engines::EngineSettings;

use super::bounds::ContentPolicy;
use crate::config::sections::unpack::{self, InnerLists};

impl EngineSettings {
    /// Returns the settings that determine what the engine examines and finds, without the policies for its outcomes.
    pub(super) fn without_policies(&self) -> Self {
        let mut settings = self.clone();
        let bounds = match &mut settings {
            Self::Script(bounds) => bounds,
            Self::Rules(rules) => {
                rules.unpack = rules.unpack.without_policies();
                &mut rules.bounds
            }
            Self::Hashes(hashes) => {
                hashes.unpack = hashes.unpack.without_policies();
                return settings;
            }
            Self::Clamd(clamd) => &mut clamd.bounds,
            Self::Icap(icap) => &mut icap.bounds,
        };
        *bounds = bounds.without_policies();
        settings
    }
}

impl unpack::Settings {
    /// Returns the part that determines what is found. Outcomes contain the locations whether clients receive them or
    /// not.
    fn without_policies(&self) -> Self {
        Self {
            limits: self.limits.clone(),
            on_unreadable: ContentPolicy::Pass,
            on_inconsistent: ContentPolicy::Pass,
            // The lists that apply are a condition of their own.
            mime_types: InnerLists::No,
            report_paths: false,
        }
    }
}
