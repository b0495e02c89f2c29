//! Limits of the shared store.

use std::time::Duration;

use crate::{limits::MAX_VALUE, secret::OVERHEAD};

/// Maximum length of a message in bytes that [`SharedStore::publish`](super::SharedStore::publish) accepts.
pub const MAX_MESSAGE: usize = 4 << 10;

/// Maximum number of keys of one lookup.
pub(crate) const MAX_KEYS: usize = 16;

/// Maximum number of references with one name.
pub(crate) const MAX_REFERENCES: usize = 64;

/// Default time limit of a call.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);

/// Time limit of a new connection, including TLS and authentication, and the search of the primary.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Minimum time between a failed connection and the next attempt. Up to the same time is added at random, so that
/// replicas do not connect to a restarted server at once.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// Number of failures in a row after which the store is taken out of use.
pub(crate) const MAX_FAILURES: u32 = 5;

/// Time for which the store is out of use at first. Doubles with each failed probe.
pub(crate) const MIN_PAUSE: Duration = Duration::from_secs(1);

/// Maximum time until the next probe.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Minimum time until changes that failed are tried again.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Number of calls that the writer has in flight.
pub(crate) const WRITES_IN_FLIGHT: usize = 16;

/// Time after which the writer writes other changes between incidents.
pub(crate) const INCIDENT_TIME: Duration = Duration::from_secs(1);

/// Maximum number of changes that the writer sends in one call.
pub(crate) const MAX_PIPELINE: usize = 32;

/// Maximum size of the changes in bytes that the writer sends in one call, except for a single larger one.
pub(crate) const MAX_PIPELINE_BYTES: usize = 256 << 10;

/// Time for which closing writes what waits.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum time in seconds until the server removes a record by itself; larger times are errors of the command.
pub(crate) const MAX_TTL: u64 = 10 * 366 * 86_400;

/// Difference between clocks in seconds that is no sign of a record restored after its expiry.
pub(crate) const MAX_CLOCK_DIFFERENCE: u64 = 60;

/// Maximum length of a string in a reply: a sealed value.
pub(crate) const MAX_BULK: usize = MAX_VALUE + OVERHEAD;

/// Maximum length of a line in a reply in bytes: a status, an error or a number.
pub(crate) const MAX_LINE: usize = 1 << 10;

/// Maximum length of a whole reply in bytes: [`MAX_REFERENCES`] values of maximum length.
pub(crate) const MAX_REPLY: usize = MAX_REFERENCES * (MAX_BULK + 64);

/// Maximum number of elements in a reply, at all levels. The map of a large cluster has the most.
pub(crate) const MAX_ELEMENTS: usize = 1 << 16;

/// Maximum depth of arrays in a reply. The map of a cluster has four levels, with the metadata of nodes.
pub(crate) const MAX_DEPTH: usize = 6;
