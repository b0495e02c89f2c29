//! Stores of scan results: sealed records in one `SQLite` file, or in a server that replicas share.
//!
//! - [`StoreSecret`] derives the names of records from their keys, and seals and opens their values.
//! - [`FileStore`] keeps sealed records in a file. Lookups and writes run on two threads of its own; callers await
//!   replies, and never wait for the disk otherwise.
//! - [`SharedStore`] keeps sealed records in a Valkey or Redis server, which several replicas use.
//!
//! **Trust.** Nothing that is read from a file or a server counts without a valid seal. An attacker who can write
//! there can delete records, and restore earlier ones until they expire; a damaged file loses records. Neither forges a record,
//! and names and values reveal nothing without the secret. Kind, version tag, time of expiry and length of records are visible.
//!
//! **Durability.** A record of kind [`RecordKind::NotClean`] is retried until it is on disk. Other records may be lost:
//! when too many are queued, when a write fails, and in the last moments before a power failure. A lost record costs a
//! scan.
//!
//! All times are whole seconds since the Unix epoch, all sizes bytes.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod changes;
mod check;
mod counters;
mod database;
mod error;
mod file_outbox;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod inspection;
mod limits;
mod listing;
mod outbox;
mod queue;
mod reader;
mod record;
mod secret;
mod secret_ring;
mod shared;
mod state;
mod store;
mod store_path;
#[cfg(test)]
mod tests;
mod writer;

pub use counters::StoreCounters;
pub use error::{DamageCause, NotDurable, StoreError};
pub use inspection::StoreInspection;
pub use limits::{DEFAULT_MAX_ENTRIES, MAX_OUTBOX, MAX_VALUE};
pub use listing::{ListPage, ListPosition, ListedRecord};
pub use outbox::{OutboxEntry, OutboxPage};
pub use record::{RecordKey, RecordKind, RecordName, VersionTag};
pub use secret::{BadRecord, SealError, StoreSecret};
pub use secret_ring::SecretRing;
pub use shared::{
    IncidentAddition, LatestDecisions, LeaseResult, MAX_MESSAGE, OutboxRecord, ScanLease,
    SharedCounters, SharedSettings, SharedStore, SharedStoreError, StoreEvent, StoreEvents,
    StoreServers, StoreServersError, StoreUnavailable, StoredValue,
};
#[cfg(any(test, feature = "simulation"))]
pub use shared::{KeyspaceSnapshot, SimulatedNode, SimulatedServer};
pub use store::{FileStore, OpenReport, StoreSettings};
pub use store_path::SetAside;
