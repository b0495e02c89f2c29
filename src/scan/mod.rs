//! From a parsed request to its result: authorises the requester, then answers from the cache, or downloads and scans.
//! Independent of HTTP statuses, JSON and configuration files.
//!
//! A verdict is a value, not an error. It is clean only if every engine that was not skipped has run to completion and
//! reported the plaintext clean. Anything that prevents this is a [`ScanError`], never a verdict.

pub mod cache;
pub mod cached_media;
pub mod canary;
mod content_state;
pub mod context;
pub mod decisions;
mod digest_text;
pub mod engines;
pub mod error;
pub mod in_flight;
pub mod infection;
pub mod job;
pub mod local;
mod operator_error;
mod pipeline;
pub mod queue;
pub mod recent;
pub mod removal;
pub mod report;
pub mod request;
pub mod response;
pub mod scanner;
pub mod settings;
mod task;
pub mod trial;
pub mod verdict;
mod work_dir;
pub mod worker;
pub mod worker_activity;

pub use content_state::ContentState;
pub use context::ScanContext;
pub use error::{Phase, ScanError};
pub use operator_error::OperatorError;
pub use pipeline::Pipeline;
pub use request::{ScanRequest, Wants};
pub use response::{Media, ResponseSource, ScanResponse, Timings};
pub use scanner::{Scanner, ScannerUsage, WorkerLoad};
pub use settings::Settings;
pub use verdict::Verdict;
