//! Rescans: after a change of the engines, plain media that was served is downloaded and scanned again, with a token of the
//! service. Their findings are incidents as those of other jobs.
//!
//! 1. The [`RescanService`] notices that the engines have changed, and waits until they change no more.
//! 2. A pass goes through the seen media, and skips contents that have a verdict by these engines. So a pass that was
//!    interrupted continues where it was.
//! 3. After a pass, the state of the engines is stored.

mod end;
mod fetcher;
mod pass;
mod service;
mod source;
mod stored_state;
#[cfg(test)]
mod tests;

pub use fetcher::CurrentScanner;
pub use service::{RescanParts, RescanService};

pub(super) use service::RESCAN_TOKEN;
