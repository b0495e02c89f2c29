//! Resource usage of programs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Resource usage of a program and its reaped descendants. getrusage(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in user mode.
    pub user_time: Duration,
    /// Processor time in kernel mode.
    pub system_time: Duration,
    /// Maximum resident set size of one process, bytes.
    pub max_rss: u64,
}
