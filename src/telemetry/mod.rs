//! What the service reports to operators about itself: the log, the audit log, and the listener with metrics and health.

pub mod audit;
pub(crate) mod job_records;
pub mod log;
pub mod operations;
pub mod request_audit;
