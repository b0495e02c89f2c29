//! Results of scans: of one engine, and of all engines together.

use crate::scan::verdict::Verdict;

/// Maximum length of [`ScanResult::first_line`], bytes.
pub(super) const MAX_FIRST_LINE: usize = 1000;

/// Result of a complete scan by one engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// Nothing found.
    Clean,
    /// A match.
    NotClean {
        /// The engine's name for the finding: arbitrary text, not empty.
        name: String,
    },
    /// Contents that need a password, and nothing found in the rest.
    Encrypted {
        /// The engine's name for the finding.
        name: String,
    },
}

/// A verdict, and details for the cache and the audit log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanResult {
    /// The combined verdict of all engines.
    pub verdict: Verdict,
    /// The script's exit code, if the verdict depends on it.
    pub exit_code: Option<i32>,
    /// The first line of the script's output, or the finding of another engine.
    pub first_line: String,
    /// Whether an engine failed and was skipped. Such a verdict is cached only briefly.
    pub is_partial: bool,
}
