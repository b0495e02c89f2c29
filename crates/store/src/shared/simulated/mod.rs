//! Server in the process, whose clock, delays and failures a test controls, with the semantics of the commands that
//! the shared store uses.

use std::{fmt, time::Duration};

use crate::state::Now;

/// Server in the process. Clones refer to the same server.
#[derive(Clone)]
pub struct SimulatedServer(());

/// One replica that uses a [`SimulatedServer`].
#[derive(Clone)]
pub struct SimulatedNode {
    /// Number of the replica, by which the server distinguishes partitions.
    pub client: u32,
    /// Start of all random numbers of the replica, except those of seals.
    pub seed: u64,
    /// Time limit of one call of the server.
    pub timeout: Duration,
    /// Returns the current time of the replica in seconds since the Unix epoch.
    pub now: Now,
}

impl SimulatedServer {
    /// Creates an empty server. `seed`: start of the random numbers that decide about delays and failures.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let _ = seed;
        Self(())
    }
}

impl fmt::Debug for SimulatedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedServer(..)")
    }
}
