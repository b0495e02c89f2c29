//! (being written)
use std::time::Duration;

/// `[result_cache]`, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Entries: verdicts, and what media hold, each.
    pub max_size: usize,
    /// How long an entry is valid.
    pub ttl: Duration,
    /// Largest body kept in memory, bytes; 0 keeps none.
    pub max_file_size: u64,
    /// All bodies kept in memory, bytes.
    pub max_total_size: u64,
    /// Verdicts by these exit codes are not remembered; may contain 0.
    pub exit_codes_to_ignore: Vec<i32>,
    /// How long a failure of the script is remembered.
    pub failure_ttl: Duration,
}
