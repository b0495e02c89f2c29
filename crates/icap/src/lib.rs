//! ICAP client, RFC 3507. It presents the file as a download (RESPMOD) or an upload (REQMOD), with a preview if the
//! server requests one. An unmodified response (204), or the whole file sent back, is "clean". A response that
//! names a finding, or replaces the file, is a finding of some [`FindingKind`]. Everything else is an error. An answer
//! that relies on the rest of the file is an error if it arrives before the whole file was sent.
//!
//! This is an own implementation because `icap-rs` 0.3 buffers response bodies in memory without a limit, and keeps
//! one idle connection only. Servers without 204 support send back whole files.

mod answer;
mod client;
mod connection;
mod content;
mod error;
mod finding;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod kind;
mod message;
mod options;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod transport;

pub use answer::{Answer, Finding, FindingKind, IcapReply};
pub use client::IcapClient;
pub use content::Content;
pub use error::IcapError;
pub use options::ServiceOptions;
pub use request::{IcapService, Method};
pub use transport::{Connect, Transport, Unread};
