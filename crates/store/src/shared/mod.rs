//! Store of sealed records in a Valkey or Redis server (6.2 or later) that several replicas of the service share.
//!
//! - [`SharedStore`] looks up records at once, writes them in the background, and takes the leases by which one of
//!   several replicas scans a content.
//! - [`StoreEvents`] returns what other replicas have published, within about a second.
//! - [`StoreServers`] names the servers: one, a cluster, or those that sentinels name.
//!
//! **Trust.** A server can delete records, restore earlier ones until they expire, refuse to answer, and see how many
//! records of which kind and length exist and when they are used. A server cannot make a record, read one or its key,
//! or return the record of one key for another. Leases and fingerprints are not sealed: a server that invents them
//! costs waiting time, or a scan.
//!
//! **Failures.** A store that fails costs scans: lookups return `None` after [`SharedSettings::timeout`], and at once
//! after five failures in a row. Records of kept kinds, deletions and events are retried until they are written.

mod breaker;
mod change_queue;
mod cluster;
mod connection;
mod connectors;
mod counters;
mod decisions;
mod dial;
mod error;
mod event_seal;
mod event_tracker;
mod events;
mod fingerprints;
#[cfg(any(test, fuzzing))]
mod fuzz_replies;
mod incident_write;
mod key_names;
mod lease;
mod limited_stream;
mod limits;
mod link;
mod listing;
mod outbox;
mod random;
mod records;
mod references;
mod replies;
mod resp_limit;
mod sentinel;
mod servers;
mod shared_writer;
#[cfg(any(test, feature = "simulation"))]
mod simulated;
mod slots;
mod store;
#[cfg(test)]
mod tests;
mod tls;
mod watched;

pub use counters::SharedCounters;
pub use decisions::LatestDecisions;
pub use error::{SharedStoreError, StoreUnavailable};
pub use event_tracker::StoreEvent;
pub use events::StoreEvents;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzz_replies::check_replies;
pub use incident_write::IncidentAddition;
pub use lease::{LeaseResult, ScanLease};
pub use limits::MAX_MESSAGE;
pub use outbox::OutboxRecord;
pub use records::StoredValue;
pub use servers::{StoreServers, StoreServersError};
#[cfg(any(test, feature = "simulation"))]
pub use simulated::{KeyspaceSnapshot, SimulatedNode, SimulatedServer};
pub use store::{SharedSettings, SharedStore};
