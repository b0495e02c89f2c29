//! Malware in a content.

use std::sync::Arc;

/// Malware that the engines found in a content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Infection {
    /// Name of the engine with the finding.
    pub engine: &'static str,
    /// The finding: a single line, at most `scan.max_output_size` bytes.
    pub finding: Arc<str>,
    /// Names of the containers and of the object inside the file. User content.
    pub location: Option<String>,
}
