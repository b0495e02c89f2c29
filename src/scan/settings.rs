//! The validated settings of `[scan]`.

pub use crate::config::sections::{
    canary::{CanarySamples, CanarySettings},
    scan::Settings,
};

use std::time::Duration;

use mcs_filetype::MimeRules;

use super::engines;
use crate::config::sections::unpack::InnerLists;

/// Time limit of an inspection without rules. It reads at most 8 times the size of the file and 80 MiB, and ordinary files
/// take milliseconds.
pub const INSPECTION_TIMEOUT: Duration = Duration::from_secs(30);

impl Settings {
    /// Returns `[rules]`, if the rules are one of the engines.
    #[must_use]
    pub fn rules(&self) -> Option<&engines::rules::Settings> {
        self.engines.iter().find_map(|engine| match engine {
            engines::EngineSettings::Rules(rules) => Some(rules),
            _ => None,
        })
    }

    /// Returns `[hashes]`, if the lists of hashes are one of the engines.
    #[must_use]
    pub fn hashes(&self) -> Option<&engines::hashes::Settings> {
        self.engines.iter().find_map(|engine| match engine {
            engines::EngineSettings::Hashes(hashes) => Some(hashes),
            _ => None,
        })
    }

    /// Returns the types that are allowed inside a media file.
    #[must_use]
    pub fn inner_types(&self) -> MimeRules {
        let unpack = self.unpack.as_ref().filter(|unpack| unpack.limits.enabled);
        let Some(unpack) = unpack.filter(|_| self.rules().is_some()) else {
            return MimeRules::All;
        };
        match (unpack.mime_types, &self.mime) {
            (InnerLists::Blocked, list @ MimeRules::AllBut(_)) | (InnerLists::Both, list) => {
                list.clone()
            }
            (InnerLists::Blocked | InnerLists::No, _) => MimeRules::All,
        }
    }

    /// Returns the sum of the time limits of the inspection and of all engines.
    #[must_use]
    pub fn time_limits(&self) -> Duration {
        let limit = |engine: &engines::EngineSettings| match engine {
            engines::EngineSettings::Script(_) => self.timeout,
            engines::EngineSettings::Rules(rules) => rules.timeout,
            engines::EngineSettings::Hashes(_) => INSPECTION_TIMEOUT,
            engines::EngineSettings::Clamd(clamd) => clamd.timeout,
            engines::EngineSettings::Icap(icap) => icap.timeout,
        };
        self.engines.iter().map(limit).fold(INSPECTION_TIMEOUT, Duration::saturating_add)
    }
}
