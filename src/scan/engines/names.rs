//! Names of the engines in the configuration, metrics and messages.

/// The inspection of each file, which is no engine of the configuration, in metrics and messages.
pub(super) const INSPECTION: &str = "inspection";

/// The engines of the configuration.
pub const ENGINES: [&str; 5] = [SCRIPT, RULES, HASHES, CLAMD, ICAP];

pub(super) const SCRIPT: &str = "script";
pub(super) const RULES: &str = "rules";
pub(in crate::scan) const HASHES: &str = "hashes";
pub(super) const CLAMD: &str = "clamd";
pub(super) const ICAP: &str = "icap";

/// Returns the engine of the configuration with this name.
#[must_use]
pub fn engine_name(name: &str) -> Option<&'static str> {
    ENGINES.into_iter().find(|known| *known == name)
}
