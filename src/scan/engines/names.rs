//! Names of the engines in the configuration, metrics and messages.

/// The inspection of each file, which is no engine of the configuration, in metrics and messages.
pub(super) const INSPECTION: &str = "inspection";

pub(super) const SCRIPT: &str = "script";
pub(super) const RULES: &str = "rules";
pub(super) const HASHES: &str = "hashes";
pub(super) const CLAMD: &str = "clamd";
pub(super) const ICAP: &str = "icap";
