//! Parts of the tests of several crates.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a panic is how a test fails"
)]

mod corpus;
mod network_namespace;
mod redis_server;
mod server;
mod skipped;

pub use corpus::replay_corpus;
pub use network_namespace::NetworkNamespace;
pub use redis_server::{RedisServer, free_port};
pub use server::{FakeServer, Fault, LONG_TIMEOUT, SHORT_TIMEOUT, linger, read_until, respond};
pub use skipped::report_skipped;
